"""The seam to a container engine: six verbs, the same for Docker, bare processes and the fake.

A runtime knows containers by the labels prsmd put on them. It decides nothing: when to launch, what
to stop and what a crash means is for the layers above. Foreign exceptions become `EngineError`,
`EngineUnreachableError` or `ImageUnavailableError`; nothing else leaves a driver.
Every verb is bounded in time by the driver, so that a hung engine costs a clear error.
"""

import dataclasses
import enum
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Protocol

from prsmd.domain.image import Login
from prsmd.domain.logs import LogLine as LogLine  # noqa: PLC0414 - drivers yield it
from prsmd.domain.replica import Endpoint, Placement
from prsmd.domain.spec import Security

from .archive import Archive


class ContainerState(enum.StrEnum):
    """What the engine says of a container."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What prsmd writes on a container; after a crash, rows and labels decide what happens."""

    instance: str
    organization: str
    deployment: str
    revision: int
    slot: int
    replica: str
    spec_hash: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of this instance, running or not.

    `endpoint` is where its HTTP server is reached, while it runs. `pid` is its first process on the
    host. `own_cgroup` tells whether that process's cgroup holds this container and nothing else.
    """

    id: str
    labels: Labels
    state: ContainerState
    endpoint: Endpoint | None = None
    pid: int | None = None
    own_cgroup: bool = True
    exit_code: int | None = None
    out_of_memory: bool = False
    finished_at: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything a runtime needs to create and start one container.

    `image_digest` is what `Images.resolve` or `Images.pull` returned. `environment` is complete
    (PORT and the GPU variables included), so every runtime gives a container the same one. Each of
    the `secrets` becomes a file that is gone with the container, whose path is in `NAME_FILE`.
    """

    labels: Labels
    image_digest: str
    placement: Placement
    port: int
    environment: Mapping[str, str] = dataclasses.field(repr=False)
    security: Security
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    secrets: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """How far a pull is, in bytes; `total_bytes` is None until the engine knows it.

    `trouble` is why the attempt before this one broke off.
    """

    status: str
    done_bytes: int = 0
    total_bytes: int | None = None
    attempt: int = 1
    trouble: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is here. `digest` names its content and is what containers are made from.

    `id` is the engine's own name of the content, the same under every reference and digest. Only
    `list` looks whether it is `in_use`: whether any container is made from it, of whomever.
    """

    reference: str
    digest: str
    size_bytes: int
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    id: str = ""
    in_use: bool = False


class Images(Protocol):
    """The images of one engine. `loads` tells whether it takes archives at all."""

    loads: bool

    async def resolve(self, reference: str) -> Image | None:
        """Return the image if it is here, None otherwise. Touches no registry."""
        ...

    async def pull(
        self,
        reference: str,
        on_progress: Callable[[PullProgress], None],
        login: Login | None = None,
    ) -> Image:
        """Bring the image here. `on_progress` runs on the event loop.

        Without a login, the engine's user's own are used. PullBrokenOffError where trying again can
        help, else ImageUnavailableError.
        """
        ...

    async def load(
        self, archive: Archive, on_progress: Callable[[PullProgress], None]
    ) -> list[Image]:
        """Bring the images of a verified archive here; return each under each of its names.

        A name that meant another image means the archive's from then on; the other one stays.
        ConflictError where the runtime loads none, EngineError where the engine refuses.
        """
        ...

    async def remove(self, image_id: str) -> None:
        """Remove an image with all its names. One that is gone already is success.

        EngineError for one that a container is made from.
        """
        ...

    async def list(self) -> list[Image]:
        """Return the images that are here, once for each name they have."""
        ...

    async def remote_digest(self, reference: str, login: Login | None = None) -> str | None:
        """Return the digest that a pull would bring, without one; None where it cannot be told."""
        ...

    async def free_bytes(self) -> int | None:
        """Return the space left where images are kept; None where that cannot be seen."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines: the last `tail` (None: all kept) since `since`, then new ones if `follow`."""

    tail: int | None = None
    since: float | None = None
    follow: bool = False


class Runtime(Protocol):
    """Driver of one container engine. All methods run on the event loop and never block it."""

    name: str
    isolates: bool
    images: Images

    async def list(self) -> list[Container]:
        """Return every container labelled with this instance, running or exited."""
        ...

    async def launch(self, launch: Launch) -> Container:
        """Create and start a container; the one that exists for this replica id is returned as is.

        Cancelled or failed half-way, it may leave a created container behind: `list` shows it.
        """
        ...

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """Ask it to end (SIGTERM), kill it after `grace_seconds`, and remove it.

        A container that is gone already is success; one without this instance's label is refused.
        """
        ...

    def logs(self, container_id: str, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """Yield lines oldest first. Ends when the container ends (or at once without `follow`)."""
        ...

    def events(self) -> AsyncIterator[None]:
        """Yield whenever something may have changed: a hint to look, never the truth.

        It may end at any time (the engine restarted); the caller resubscribes and looks again.
        """
        ...

    async def close(self) -> None:
        """Release connections and threads. Containers go on running."""
        ...
