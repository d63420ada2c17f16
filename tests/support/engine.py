"""A Docker engine of the tests' own, in folders of its own, that touches no other engine.

It has no default bridge and forwards nothing. It writes iptables rules only where no other dockerd
does, whose rules its start would replace. A hook that does nothing stands in for NVIDIA's, so that
device requests work.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker

ROOT = Path(__file__).parents[2]
BASE_IMAGE = "prsmd/base:bookworm"
MODEL_IMAGE = "prsmd-test/model:1"
CLASS = "runsc-like"  # a runtime of the engine besides its own: runc, under a script that notes it
_PROGRAMS = ("dockerd", "docker", "debootstrap", "setpriv", "umount")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_REMOVAL_SECONDS = 20
_WITHOUT_FIREWALL = "--iptables=false"
_START_SECONDS = 60


def obstacle() -> str | None:
    """Return why no engine can run here, or None."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing:
        return f"programs are missing: {', '.join(missing)}"
    return None if os.geteuid() == 0 else "a Docker engine needs root"


class PrivateEngine:
    """One dockerd. Its containers die with a graceful stop unless `live_restore`."""

    def __init__(
        self, *, live_restore: bool = False, download_attempts: int = 1, firewall: bool = True
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="prsmd-engine-"))
        self.url = f"unix://{self.folder}/docker.sock"
        self.secrets_dir = Path("/dev/shm") / self.folder.name  # in memory; prsmd makes it
        self._live_restore = live_restore
        self._download_attempts = download_attempts  # for each layer; it waits ever longer
        # A random name may hold underscores where containerd allows none.
        self._namespace = self.folder.name.replace("_", "u")
        self._noted = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.pool = _free_address_pool()
        self.has_firewall = firewall and _firewall_is_free()
        hook = self.folder / "bin" / "nvidia-container-runtime-hook"
        hook.parent.mkdir()
        hook.write_text("#!/bin/sh\nexit 0\n")
        hook.chmod(0o755)
        other = self.folder / "bin" / CLASS
        calls = self.folder / "class.calls"
        other.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexec runc "$@"\n')
        other.chmod(0o755)

    @property
    def log(self) -> str:
        """The last lines the engine wrote."""
        path = self.folder / "log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:])

    def forget_log(self) -> None:
        """Begin to note requests anew; see `requests`."""
        self._noted = (self.folder / "log").stat().st_size

    def requests(self) -> list[str]:
        """Return what was asked of the engine since `forget_log`, one line a request."""
        with (self.folder / "log").open("rb") as log:
            log.seek(self._noted)
            lines = log.read().decode(errors="replace").splitlines()
        return [line for line in lines if "Calling " in line]

    def calls_of_class(self) -> str:
        """Return what the engine had the runtime `CLASS` do, one call a line."""
        path = self.folder / "class.calls"
        return path.read_text() if path.exists() else ""

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to talk to this engine."""
        return {**os.environ, "PATH": _PATH, "DOCKER_HOST": self.url}

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        """Give an SDK client, for what a test does behind prsmd's back."""
        client = docker.DockerClient(base_url=self.url, version="auto", timeout=60)
        try:
            yield client
        finally:
            client.close()

    def start(self) -> None:
        """Start dockerd and return when it answers. RuntimeError with its log if it does not."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": f"{self.folder}/bin:{_PATH}"},
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start:\n{self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End dockerd in order; containers end too, unless `live_restore`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End dockerd at once. Its containers go on running until the next start."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        """Stop (or kill) and start again."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """Make the engine hang: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a hang."""
        self._signal(signal.SIGCONT)

    def build_images(self) -> None:
        """Make the base image and the test model's image, if they are not there."""
        with self.client() as client:
            if client.images.list(MODEL_IMAGE):
                return
            script = [str(ROOT / "scripts" / "base-image"), BASE_IMAGE]
            made = subprocess.run(
                script, env=self.environment, check=False, capture_output=True, text=True
            )
            if made.returncode:
                raise RuntimeError(f"scripts/base-image failed: {made.stderr[-2000:]}")
            client.images.build(
                path=str(ROOT / "tests" / "support" / "model"),
                tag=MODEL_IMAGE,
                buildargs={"BASE": BASE_IMAGE},
                network_mode="none",
            )

    def remove_containers(self) -> None:
        """Remove every container and network on this engine."""
        with self.client() as client:
            for container in client.containers.list(all=True, ignore_removed=True):
                try:
                    container.remove(force=True, v=True)
                except docker.errors.NotFound:
                    continue
                except docker.errors.APIError as error:  # somebody else is just removing it
                    if error.status_code != 409:
                        raise
                    container.wait(condition="removed", timeout=_REMOVAL_SECONDS)
            client.networks.prune()

    def close(self) -> None:
        """End everything and remove the folder."""
        if self._process is not None and self._process.poll() is None:
            self.resume()
            with contextlib.suppress(Exception):
                self.remove_containers()
            self.stop()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(str(self.folder))), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.secrets_dir, ignore_errors=True)

    def _command(self) -> list[str]:
        return [
            # Should the tests be killed, the engine goes with them.
            *("setpriv", "--pdeathsig", "TERM", "dockerd"),
            *("--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
            *("-p", f"{self.folder}/pid", "-H", self.url),
            *("--containerd-namespace", self._namespace),
            *("--containerd-plugins-namespace", f"{self._namespace}-plugins"),
            "--debug",  # notes every request
            *("--bridge=none", "--ip-forward=false", "--userland-proxy=false"),
            *([] if self.has_firewall else [_WITHOUT_FIREWALL]),
            "--shutdown-timeout=1",
            f"--default-address-pool=base={self.pool},size=24",
            f"--live-restore={str(self._live_restore).lower()}",
            f"--add-runtime={CLASS}={self.folder}/bin/{CLASS}",
            f"--max-download-attempts={self._download_attempts}",
        ]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                connection.connect(self.url.removeprefix("unix://"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
                return b" 200 " in connection.recv(64)
        return False

    def _signal(self, number: int) -> None:
        if self._process is None:
            raise RuntimeError("the engine was never started")
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # A killed dockerd takes its containerd along, but waits for it at the next start if it is
        # still in the process table.
        record = self.folder / "exec" / "containerd" / "containerd.pid"
        with contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(record.read_text()), signal.SIGKILL)
            record.unlink()


def _firewall_is_free() -> bool:
    """Tell whether iptables is there and no other dockerd uses it (or PRSMD_TEST_FIREWALL=1)."""
    if shutil.which("iptables", path=_PATH) is None:
        return False
    if os.environ.get("PRSMD_TEST_FIREWALL") == "1":
        return True
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            options = (process / "cmdline").read_bytes().split(b"\0")
            if options[0].endswith(b"dockerd") and _WITHOUT_FIREWALL.encode() not in options:
                return False
    return True


def _free_address_pool() -> str:
    """Return a /16 that no route of this machine leads to."""
    taken = set()
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        destination = int(line.split()[1], 16)
        taken.add((destination & 0xFF, destination >> 8 & 0xFF))
    start = os.getpid() % 50
    for number in range(50):
        second = 200 + (start + number) % 50
        if (10, second) not in taken:
            return f"10.{second}.0.0/16"
    raise RuntimeError("no private address range is free for test networks")
