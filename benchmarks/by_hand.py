"""Containers replaced by hand with `docker run`: what a rollout is measured against.

The containers are what prsmd would run, option by option, read off one of its own; none of them is
prsmd's. All new ones are started at once and all old ones are stopped at once, as fast as it goes.
"""

import concurrent.futures
import contextlib
import http.client
import subprocess
import time
from typing import Any

from tests.support import containers
from tests.support.engine import PrivateEngine

_POLL_SECONDS = 0.01
_HEALTHY_SECONDS = 60


class ByHand:
    """`count` containers like the ones that prsmd runs, and how they are replaced."""

    def __init__(self, engine: PrivateEngine, count: int) -> None:
        self._engine = engine
        self._count = count
        self._serial = 0
        self._running: list[str] = []
        with engine.client() as client:
            pattern = client.containers.get(containers.running(engine)[0])
        self._attributes: dict[str, Any] = pattern.attrs
        self._options = _options(pattern.attrs)

    def start(self) -> None:
        """Start the first ones."""
        self._running = self._start_new()

    def replace(self) -> float:
        """Start as many new ones, wait until they answer, stop the old; return the seconds."""
        began = time.monotonic()
        fresh = self._start_new()
        self._docker("stop", *self._running)
        took = time.monotonic() - began
        self._docker("rm", *self._running)
        self._running = fresh
        return took

    def remove(self) -> None:
        """End and remove them."""
        self._docker("rm", "--force", *self._running)

    def _start_new(self) -> list[str]:
        names = [f"by-hand-{self._serial + number}" for number in range(self._count)]
        self._serial += self._count
        with concurrent.futures.ThreadPoolExecutor(self._count) as pool:
            list(pool.map(self._start_one, names))
        return names

    def _start_one(self, name: str) -> None:
        image, command = self._attributes["Image"], self._attributes["Config"]["Cmd"] or []
        self._docker("run", "--detach", "--name", name, *self._options, image, *command)
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = self._docker("inspect", "--format", networks, name).strip()
        deadline = time.monotonic() + _HEALTHY_SECONDS
        while not _healthy(address):
            assert time.monotonic() < deadline, f"{name} does not answer"
            time.sleep(_POLL_SECONDS)

    def _docker(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            env=self._engine.environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout


def _healthy(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 8080, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def _options(attributes: dict[str, Any]) -> list[str]:
    """Return the options of `docker run` that make such a container."""
    host, config = attributes["HostConfig"], attributes["Config"]
    log = host["LogConfig"]
    options = [
        *("--network", host["NetworkMode"]),
        *("--user", config["User"]),
        *("--memory", str(host["Memory"])),
        *("--memory-swap", str(host["MemorySwap"])),
        *("--cpus", str(host["NanoCpus"] / 1e9)),
        *("--pids-limit", str(host["PidsLimit"])),
        *("--restart", host["RestartPolicy"]["Name"]),
        *("--log-driver", log["Type"]),
        "--no-healthcheck",
    ]
    options += ["--init"] if host["Init"] else []
    options += ["--read-only"] if host["ReadonlyRootfs"] else []
    several = {
        "--cap-drop": host["CapDrop"] or [],
        "--security-opt": host["SecurityOpt"] or [],
        "--dns": host["Dns"] or [],
        "--dns-option": host["DnsOptions"] or [],
        "--env": config["Env"] or [],
        "--tmpfs": [f"{path}:{how}" for path, how in (host["Tmpfs"] or {}).items()],
        "--log-opt": [f"{name}={value}" for name, value in (log["Config"] or {}).items()],
    }
    return options + [
        text for flag, values in several.items() for v in values for text in (flag, v)
    ]
