"""A Podman service of the tests' own, in folders of its own, behind a Docker-compatible socket."""

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
import pytest

from tests.support.engine import MODEL_IMAGE, PrivateEngine

PODMAN_IMAGE = f"localhost/{MODEL_IMAGE}"  # what it calls images of no registry
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_START_SECONDS = 30


def obstacle() -> str | None:
    """Return why Podman cannot run here, or None."""
    if shutil.which("podman", path=_PATH) is None:
        return "podman is not installed"
    return None if os.geteuid() == 0 else "these tests run Podman as root"


class PrivatePodman:
    """One `podman system service`. Its containers do not need it to go on running."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="prsmd-podman-"))
        self.url = f"unix://{self.folder}/podman.sock"
        self._process: subprocess.Popen[bytes] | None = None
        init = shutil.which("catatonit") or shutil.which("tini") or "/usr/bin/catatonit"
        (self.folder / "containers.conf").write_text(
            # Where root lacks CAP_SYS_RESOURCE, Podman's own limits are more than it may set.
            f'[containers]\ninit_path = "{init}"\n'
            'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
            # crun refuses hosts on which cgroup v1 and v2 both have controllers.
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'init_path = "{init}"\n'
            '[network]\nnetwork_backend = "netavark"\n'
        )

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        """Give an SDK client, for what a test does behind prsmd's back."""
        client = docker.DockerClient(base_url=self.url, version="1.40", timeout=60)
        try:
            yield client
        finally:
            client.close()

    def start(self) -> None:
        """Start it and return when it answers. RuntimeError with its log if it does not."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._podman(), "system", "service", "--time=0", self.url],
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"podman did not start:\n{tail}")
            time.sleep(0.05)

    def take_images(self, engine: PrivateEngine) -> None:
        """Take the test model's image over from a Docker engine that has it."""
        with engine.client() as client, (self.folder / "image").open("wb") as archive:
            for chunk in client.images.get(MODEL_IMAGE).save(named=True):
                archive.write(chunk)
        self._run("load", "--quiet", "--input", str(self.folder / "image"))
        (self.folder / "image").unlink()

    def remove_containers(self) -> None:
        """Remove every container and network."""
        self._run("rm", "--all", "--force", "--time=0")
        self._run("network", "prune", "--force")

    def close(self) -> None:
        """End everything and remove the folder."""
        with contextlib.suppress(RuntimeError):
            self.remove_containers()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(str(self.folder))), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, env=self._environment())
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *arguments: str) -> None:
        command = [*self._podman(), *arguments]
        made = subprocess.run(
            command, env=self._environment(), check=False, capture_output=True, text=True
        )
        if made.returncode:
            raise RuntimeError(f"podman {arguments[0]} failed: {made.stderr[-2000:]}")

    def _podman(self) -> list[str]:
        return [
            "podman",
            *("--root", f"{self.folder}/data", "--runroot", f"{self.folder}/run"),
            *("--tmpdir", f"{self.folder}/tmp", "--network-config-dir", f"{self.folder}/networks"),
        ]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": _PATH,
            "CONTAINERS_CONF": f"{self.folder}/containers.conf",
        }

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                connection.connect(self.url.removeprefix("unix://"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
                return b" 200 " in connection.recv(64)
        return False


@pytest.fixture(scope="session")
def shared_podman(shared_engine: PrivateEngine) -> Iterator[PrivatePodman]:
    """Give the session's Podman with the test model's image; skip where there is none."""
    reason = obstacle()
    if reason is not None:
        pytest.skip(reason)
    private = PrivatePodman()
    try:
        private.start()
        private.take_images(shared_engine)
        yield private
    finally:
        private.close()


@pytest.fixture
def podman(shared_podman: PrivatePodman) -> Iterator[PrivatePodman]:
    """Give a Podman that has no containers."""
    yield shared_podman
    shared_podman.remove_containers()
