"""What the contract suite needs of a runtime besides its six verbs, for each of them."""

import abc
import asyncio
import atexit
import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prsmd.domain.quantity import MIB
from prsmd.domain.replica import Placement
from prsmd.domain.spec import Security
from prsmd.runtime.base import Container, ContainerState, Labels, Launch, LogQuery, Runtime
from prsmd.runtime.docker import DockerRuntime, DockerSettings
from prsmd.runtime.fake import FakeEngine, FakeRuntime
from prsmd.runtime.process import ProcessRuntime, ProcessSettings
from tests.support.engine import MODEL_IMAGE, PrivateEngine
from tests.support.podman import PODMAN_IMAGE, PrivatePodman

MODEL_FOLDER = Path(__file__).parents[1] / "support" / "model"
SAFE = Security()
SHARED_MEMORY = Path(f"/dev/shm/prsmd-test-{os.getpid()}")  # a tmpfs on every Linux
atexit.register(shutil.rmtree, SHARED_MEMORY, ignore_errors=True)
GPUS = ("GPU-11111111-aaaa", "GPU-22222222-bbbb")


def launch_of(
    image_digest: str,
    replica: str = "replica-1",
    *,
    instance: str = "ours",
    gpus: tuple[str, ...] = (),
    memory_bytes: int = 128 * MIB,
    security: Security = SAFE,
    **environment: str,
) -> Launch:
    """Return a launch of the test model."""
    labels = Labels(
        instance=instance,
        organization="company",
        deployment="deploy_abc",
        revision=3,
        slot=1,
        replica=replica,
        spec_hash="c0ffee",
    )
    placement = Placement(
        node="here", cpu_millis=500, memory_bytes=memory_bytes, gpu_uuids=gpus, gpu_millis=1000
    )
    return Launch(
        labels=labels,
        image_digest=image_digest,
        placement=placement,
        port=8080,
        environment=environment,
        security=security,
    )


async def ask(container: Container, path: str, body: object = None) -> Any:
    """Ask the test model in a container; POST where there is a body."""
    assert container.endpoint is not None
    reader, writer = await asyncio.open_connection(container.endpoint.host, container.endpoint.port)
    try:
        payload = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nHost: model\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
        answer = await reader.read()
        return json.loads(answer.partition(b"\r\n\r\n")[2] or b"null")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def until_line(runtime: Runtime, container: Container, text: str) -> None:
    """Return once the container logged `text`."""
    async with contextlib.aclosing(runtime.logs(container.id, LogQuery(follow=True))) as lines:
        async for line in lines:
            if line.text == text:
                return
    raise AssertionError(f"it ended without logging {text!r}")


async def until_exited(runtime: Runtime, replica: str = "replica-1") -> Container:
    """Return the replica's container once the runtime says that it ended."""
    async with contextlib.aclosing(runtime.events()) as events:
        async for _ in events:
            for container in await runtime.list():
                ended = container.state is ContainerState.EXITED
                if ended and container.labels.replica == replica:
                    return container
    raise AssertionError("the events ended first")


class Harness(abc.ABC):
    """One engine, seen by as many drivers as a test wants."""

    image = MODEL_IMAGE
    follows = True  # whether a followed log is reliable from its first moment
    answers = True  # whether something listens in the containers
    keeps_images = True  # whether images can be loaded and removed through it, as far as was tried

    @abc.abstractmethod
    def runtime(self, instance: str = "ours") -> Runtime:
        """Return a new driver."""

    async def ready(self, runtime: Runtime, container: Container) -> None:
        """Return once the model in the container listens."""
        await until_line(runtime, container, "listening")

    async def environment(self, container: Container) -> Mapping[str, str]:
        """Return the variables of the container's process."""
        return await ask(container, "/environment")

    async def secret(self, container: Container, variable: str) -> str:
        """Return what the file of a secret holds, as the container sees it."""
        path = (await self.environment(container))[f"{variable}_FILE"]
        return (await ask(container, "/read", {"path": path}))["text"]

    async def print_lines(self, container: Container, *lines: str, stream: str = "stdout") -> None:
        """Let the container print."""
        await ask(container, "/log", {"lines": lines, "stream": stream})

    async def end(self, container: Container, code: int) -> None:
        """Let the container end by itself."""
        await ask(container, "/exit", {"code": code})


class DockerHarness(Harness):
    """The private Docker engine."""

    ulimits = DockerSettings(instance="").ulimits

    def __init__(self, engine: PrivateEngine | PrivatePodman) -> None:
        self._engine = engine

    def runtime(self, instance="ours"):
        settings = DockerSettings(
            instance=instance,
            base_url=self._engine.url,
            secrets_dir=SHARED_MEMORY,
            ulimits=self.ulimits,
        )
        return DockerRuntime(settings)


class PodmanHarness(DockerHarness):
    """The same driver on Podman's socket."""

    image = PODMAN_IMAGE
    follows = False
    ulimits = ()  # with any, it sets limits of its own that not every root may set
    keeps_images = False


class ProcessHarness(Harness):
    """Processes of this machine, with the test model as bundle."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def runtime(self, instance="ours"):
        settings = ProcessSettings(
            instance=instance,
            state_dir=self._folder / "runs",
            bundle_dirs=(MODEL_FOLDER.parent,),
        )
        return ProcessRuntime(settings)


class FakeHarness(Harness):
    """The engine in memory."""

    answers = False

    def __init__(self) -> None:
        self.engine = FakeEngine(images=(MODEL_IMAGE,))

    def runtime(self, instance="ours"):
        return FakeRuntime(self.engine, instance)

    async def ready(self, runtime, container):
        self.engine.write_log(container.labels.replica, "listening")

    async def environment(self, container):
        return self.engine.environment(container.labels.replica)

    async def secret(self, container, variable):
        path = (await self.environment(container))[f"{variable}_FILE"]
        return self.engine.secret(container.labels.replica, path)

    async def print_lines(self, container, *lines, stream="stdout"):
        for line in lines:
            self.engine.write_log(container.labels.replica, line, stream)

    async def end(self, container, code):
        self.engine.crash(container.labels.replica, code)
