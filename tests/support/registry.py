"""A real image registry of the tests' own on loopback, and a network in front of it that fails.

Docker engines speak plain HTTP to registries on loopback, so nothing has to be configured.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker

from tests.support.engine import PrivateEngine

USER, PASSWORD = "reader", "s3cret"
_HTPASSWD = "reader:$2y$04$TNeIDvR8v7b6SwMFIjawKeQxWQmQ9iigkD/O7ARaRIpr7BwVOq3V6\n"
_START_SECONDS = 20
_CHUNK = 16 * 1024


def obstacle() -> str | None:
    """Return why no registry can run here, or None."""
    return None if shutil.which("docker-registry") else "programs are missing: docker-registry"


class PrivateRegistry:
    """One docker-registry with its own folder and port; `closed` asks for USER and PASSWORD."""

    def __init__(self, *, closed: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="prsmd-registry-"))
        self.port = free_port()
        self._closed = closed
        self._process: subprocess.Popen[bytes] | None = None

    def name(self, repository: str, port: int | None = None) -> str:
        """Return how an engine names a repository of it, through another port if given."""
        return f"127.0.0.1:{port or self.port}/{repository}"

    def start(self) -> None:
        """Start it and return when it answers. RuntimeError with its log if it does not."""
        configuration = self.folder / "config.json"  # JSON is YAML
        configuration.write_text(json.dumps(self._configuration()))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "docker-registry", "serve", configuration],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"docker-registry did not start:\n{tail}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; what was pushed stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it and remove what was pushed."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def push(self, engine: PrivateEngine, image: str, repository: str, tag: str) -> str:
        """Push an image that the engine has; return its reference by digest.

        The engine forgets the name it had for this, but not its layers.
        """
        name = self.name(repository)
        login = {"username": USER, "password": PASSWORD} if self._closed else None
        with engine.client() as client:
            client.images.get(image).tag(name, tag)
            messages = client.images.push(name, tag, auth_config=login, stream=True, decode=True)
            for message in messages:
                if "error" in message:
                    raise RuntimeError(f"push of {name}:{tag}: {message['error']}")
            digests = client.images.get(f"{name}:{tag}").attrs["RepoDigests"]
            client.images.remove(f"{name}:{tag}")
        return next(digest for digest in digests if digest.startswith(f"{name}@"))

    def _configuration(self) -> dict[str, object]:
        access = {"auth": {"htpasswd": {"realm": "tests", "path": f"{self.folder}/users"}}}
        (self.folder / "users").write_text(_HTPASSWD)
        return {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": f"{self.folder}/data"}},
            "http": {"addr": f"127.0.0.1:{self.port}"},
            **(access if self._closed else {}),
        }

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False


class FaultyNetwork:
    """Carries connections to a port on loopback: as they are, slowly, cut, or to a standstill.

    Faults hold for answers, and each connection's bytes count anew; `carried` counts all of them.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty network")
        self._thread.start()
        starting = asyncio.start_server(self._carry, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._carriers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._cut_after: int | None = None
        self._stall_after: int | None = None
        self._pause_seconds = 0.0
        self.carried = 0
        self.stalled = threading.Event()

    def slow(self, bytes_per_second: int) -> None:
        """Carry no more than that on each connection."""
        self._pause_seconds = _CHUNK / bytes_per_second

    def cut_after(self, bytes_: int) -> None:
        """Reset a connection once it carried so much."""
        self._cut_after = bytes_

    def stall_after(self, bytes_: int) -> None:
        """Carry nothing more, and close nothing, once a connection carried so much."""
        self._stall_after = bytes_
        self.stalled.clear()

    def heal(self) -> None:
        """Carry new connections as they are."""
        self._cut_after = self._stall_after = None
        self._pause_seconds = 0.0

    def close(self) -> None:
        """End every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for writer in self._carriers.values():
            writer.transport.abort()
        await asyncio.gather(*self._carriers, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrier = asyncio.current_task()
        assert carrier is not None
        self._carriers[carrier] = writer
        answers, asks = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            asking = asyncio.create_task(_copy(reader, asks), name="requests")
            answering = asyncio.create_task(self._answer(answers, writer), name="answers")
            await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            for task in (asking, answering):
                task.cancel()
            await asyncio.gather(asking, answering, return_exceptions=True)
        finally:
            del self._carriers[carrier]
            asks.close()
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried = 0
        while data := await reader.read(_CHUNK):
            carried += len(data)
            if self._stall_after is not None and carried > self._stall_after:
                self.stalled.set()
                await asyncio.Event().wait()
            if self._cut_after is not None and carried > self._cut_after:
                return
            writer.write(data)
            self.carried += len(data)
            await writer.drain()
            await asyncio.sleep(self._pause_seconds)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build_image(engine: PrivateEngine, tag: str, base: str = "scratch", layers: int = 2) -> None:
    """Build an image with layers of 4 MiB each that cannot be compressed and are like no others."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        copies = "".join(f"COPY layer-{n} /weights/{n}\n" for n in range(layers))
        files = {"Dockerfile": f"FROM {base}\n{copies}".encode()}
        files |= {f"layer-{n}": os.urandom(4 << 20) for n in range(layers)}
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    context.seek(0)
    with engine.client() as client:
        client.images.build(fileobj=context, custom_context=True, tag=tag, network_mode="none")


def remove_image(engine: PrivateEngine, reference: str) -> None:
    """Remove an image and its layers, where the engine has it."""
    with engine.client() as client, contextlib.suppress(docker.errors.ImageNotFound):
        client.images.remove(reference, force=True)


def login_file(folder: Path, registry: str) -> Path:
    """Write what `docker login` writes for USER; return the folder it is in."""
    folder.mkdir(exist_ok=True)
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": login}}}))
    return folder


def started(*, closed: bool = False) -> Iterator[PrivateRegistry]:
    """Give a started registry, removed afterwards."""
    registry = PrivateRegistry(closed=closed)
    try:
        registry.start()
        yield registry
    finally:
        registry.close()
