"""An engine in memory, for tests of the layers above: the same semantics, and failures on demand.

`FakeEngine` is the engine; any number of `FakeRuntime`s look at it, as daemons that come and go.
A test steers the engine: every way to fail is a method with the failure's name. Containers are
nothing but values: whoever wants an answer from one gives it an endpoint where something listens.
"""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Mapping

from prsmd.domain.errors import (
    EngineError,
    EngineNotFoundError,
    EngineUnreachableError,
    ImageUnavailableError,
)
from prsmd.domain.image import Login
from prsmd.domain.replica import Endpoint

from .base import (
    Container,
    ContainerState,
    Launch,
    LogLine,
    LogQuery,
)
from .environment import SECRETS_FOLDER, container_environment
from .fake_images import FakeImages, Shelf


@dataclasses.dataclass(slots=True)
class _Run:
    container: Container
    address: Endpoint
    environment: Mapping[str, str]
    secrets: Mapping[str, bytes]
    lines: list[LogLine] = dataclasses.field(default_factory=list)


class FakeEngine:
    """The world: images, containers and what is wrong with it. `endpoint` may be replaced."""

    def __init__(
        self,
        *,
        images: tuple[str, ...] = (),
        pullable: tuple[str, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.shelf = Shelf(images, pullable)
        self.images = self.shelf.images
        self.calls: list[str] = []
        self.endpoint: Callable[[Launch], Endpoint] = self._next_endpoint
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        self._ports = itertools.count(20001)
        self._hints: set[asyncio.Event] = set()
        self._recovered = asyncio.Event()
        self._recovered.set()
        self._unreachable: str | None = None
        self._refusals: dict[str, str] = {}
        self._slow_seconds = 0.0
        self._half_made = False

    # How it fails

    def crash(self, replica: str, exit_code: int = 1, *, out_of_memory: bool = False) -> None:
        """Let a replica's container end by itself."""
        run = self._runs[replica]
        run.container = dataclasses.replace(
            run.container,
            state=ContainerState.EXITED,
            endpoint=None,
            pid=None,
            exit_code=exit_code,
            out_of_memory=out_of_memory,
            finished_at=self._clock(),
        )
        self.hint()

    def lose(self, replica: str) -> None:
        """Let a container vanish, as if someone had removed it by hand."""
        del self._runs[replica]
        self.shelf.let_go(replica)
        self.hint()

    def hang(self) -> None:
        """Answer nothing until `recover`."""
        self._recovered.clear()

    def become_unreachable(self, reason: str = "connection refused") -> None:
        """Refuse every verb and end event streams until `recover`."""
        self._unreachable = reason
        self.hint()

    def become_slow(self, seconds: float) -> None:
        """Let every launch, stop and pull take this long."""
        self._slow_seconds = seconds

    def refuse_pulls(self, reason: str) -> None:
        """Let every pull fail with these words."""
        self._refusals["pull"] = reason

    def refuse_launches(self, reason: str) -> None:
        """Let every launch fail with these words."""
        self._refusals["launch"] = reason

    def refuse_stops(self, reason: str) -> None:
        """Let every stop fail with these words."""
        self._refusals["stop"] = reason

    def refuse_logs(self, reason: str) -> None:
        """Let every reading of a log fail with these words."""
        self._refusals["logs"] = reason

    def leave_half_made(self) -> None:
        """Let every launch create its container and then fail to start it."""
        self._half_made = True

    def recover(self) -> None:
        """End every failure above."""
        self._unreachable = None
        self._refusals.clear()
        self._slow_seconds = 0.0
        self._half_made = False
        self.shelf.cuts = 0
        self._recovered.set()
        self.hint()

    # What a test can look at or put in

    def make_pullable(self, reference: str, *, login: Login | None = None) -> None:
        """Let a registry have the image, for everyone or only with a login."""
        self.shelf.make_pullable(reference, login)

    def write_log(self, replica: str, text: str, stream: str = "stdout") -> None:
        """Let a container print one line."""
        self._runs[replica].lines.append(LogLine(at=self._clock(), stream=stream, text=text))
        self.hint()

    def environment(self, replica: str) -> Mapping[str, str]:
        """Return the variables a container got."""
        return self._runs[replica].environment

    def secret(self, replica: str, path: str) -> str:
        """Return what a file of a container's secrets holds."""
        return self._runs[replica].secrets[path.removeprefix(f"{SECRETS_FOLDER}/")].decode()

    def containers(self) -> dict[str, Container]:
        """Return every container of any instance by replica id."""
        return {replica: run.container for replica, run in self._runs.items()}

    def hint(self) -> None:
        """Tell every event stream that something may have changed."""
        for hint in self._hints:
            hint.set()

    # What the runtimes do

    async def enter(self, verb: str) -> None:
        """Begin a verb as this engine now does: at once, late, never or not at all."""
        self.calls.append(verb)
        await self._recovered.wait()
        if self._unreachable is not None:
            raise EngineUnreachableError(f"{verb}: cannot reach the engine: {self._unreachable}")
        if self._slow_seconds and verb in {"launch", "stop", "pull"}:
            await asyncio.sleep(self._slow_seconds)
        if verb in self._refusals:
            failure = ImageUnavailableError if verb == "pull" else EngineError
            raise failure(f"{verb}: {self._refusals[verb]}")

    @property
    def reachable(self) -> bool:
        """Whether it answers at all."""
        return self._unreachable is None

    def run(self, launch: Launch) -> Container:
        """Create the replica's container unless it exists, and start it unless it was started."""
        replica = launch.labels.replica
        if replica not in self._runs:
            self._create(launch)
        run = self._runs[replica]
        if run.container.labels != launch.labels:
            raise EngineError(f"a container named {replica} exists and is not this replica's")
        if run.container.state is ContainerState.CREATED:
            if self._half_made:
                raise EngineError(f"launch {replica}: it was created and cannot be started")
            run.container = dataclasses.replace(
                run.container, state=ContainerState.RUNNING, endpoint=run.address
            )
            self.hint()
        return run.container

    def _create(self, launch: Launch) -> None:
        if launch.image_digest not in {image.digest for image in self.images.values()}:
            raise ImageUnavailableError(f"image {launch.image_digest} is not here")
        replica, address = launch.labels.replica, self.endpoint(launch)
        container = Container(
            id=f"fake-{replica}", labels=launch.labels, state=ContainerState.CREATED
        )
        environment = container_environment(launch, host=address.host, port=address.port)
        self.shelf.use(replica, launch.image_digest)
        self._runs[replica] = _Run(container, address, environment, launch.secrets)
        self.hint()

    def find(self, container_id: str, instance: str) -> str | None:
        """Return the replica of a container. EngineError if another instance made it."""
        for replica, run in self._runs.items():
            if run.container.id == container_id:
                if run.container.labels.instance != instance:
                    raise EngineError(f"container {container_id} is not of this instance")
                return replica
        return None

    def lines(self, replica: str) -> list[LogLine]:
        """Return what a container printed, as a live list."""
        return self._runs[replica].lines

    def subscribe(self) -> asyncio.Event:
        """Return an event that is set whenever something may have changed."""
        hint = asyncio.Event()
        self._hints.add(hint)
        return hint

    def unsubscribe(self, hint: asyncio.Event) -> None:
        """Forget the event."""
        self._hints.discard(hint)

    def _next_endpoint(self, _: Launch) -> Endpoint:
        return Endpoint("127.0.0.1", next(self._ports))


class FakeRuntime:
    """One daemon's view of a fake engine."""

    name = "fake"
    isolates = True

    def __init__(self, engine: FakeEngine, instance: str = "test") -> None:
        self.engine = engine
        self._instance = instance
        self.images = FakeImages(engine.shelf, engine.enter)

    async def list(self) -> list[Container]:
        """Return this instance's containers."""
        await self.engine.enter("list")
        containers = self.engine.containers().values()
        return [found for found in containers if found.labels.instance == self._instance]

    async def launch(self, launch: Launch) -> Container:
        """Create and start a container, or return the one that exists."""
        await self.engine.enter("launch")
        return self.engine.run(launch)

    async def stop(self, container_id: str, grace_seconds: float) -> None:  # noqa: ARG002 - nothing lingers here
        """Remove a container."""
        await self.engine.enter("stop")
        replica = self.engine.find(container_id, self._instance)
        if replica is not None:
            self.engine.lose(replica)

    async def logs(self, container_id: str, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """Yield a container's lines."""
        await self.engine.enter("logs")
        replica = self.engine.find(container_id, self._instance)
        if replica is None:
            raise EngineNotFoundError(f"logs of {container_id}: there is no such container")
        lines = self.engine.lines(replica)
        hint = self.engine.subscribe()
        try:
            kept = [line for line in lines if line.at >= (query.since or 0)]
            first = len(kept) if query.tail is None else min(query.tail, len(kept))
            position = len(lines)
            for line in kept[len(kept) - first :]:
                yield line
            while query.follow and self._runs(replica):
                await hint.wait()
                hint.clear()
                fresh, position = lines[position:], len(lines)
                for line in fresh:
                    yield line
        finally:
            self.engine.unsubscribe(hint)

    async def events(self) -> AsyncGenerator[None, None]:
        """Yield once, then on every change; ends when the engine becomes unreachable."""
        await self.engine.enter("events")
        hint = self.engine.subscribe()
        try:
            while self.engine.reachable:
                yield None
                await hint.wait()
                hint.clear()
        finally:
            self.engine.unsubscribe(hint)

    async def close(self) -> None:
        """Forget nothing: the containers are the engine's."""

    def _runs(self, replica: str) -> bool:
        container = self.engine.containers().get(replica)
        return container is not None and container.state is ContainerState.RUNNING
