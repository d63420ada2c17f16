"""Replicas: one container run in a slot. States only move forward; nothing is ever restarted."""

import dataclasses
import enum
from collections.abc import Mapping


class ReplicaState(enum.StrEnum):
    """Where a replica is on its one-way path. Readiness is observed beside it, not a state."""

    PENDING = "pending"  # the row and its reservation are committed; no container is known yet
    STARTING = "starting"  # the container exists; it has not been ready yet
    RUNNING = "running"  # it was ready at least once
    DRAINING = "draining"  # out of the routes; answering what it had accepted
    STOPPED = "stopped"  # ended because it was told to
    FAILED = "failed"  # ended by itself, or never got ready


TRANSITIONS: Mapping[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.PENDING: frozenset(
        {ReplicaState.STARTING, ReplicaState.DRAINING, ReplicaState.STOPPED, ReplicaState.FAILED}
    ),
    ReplicaState.STARTING: frozenset(
        {ReplicaState.RUNNING, ReplicaState.DRAINING, ReplicaState.STOPPED, ReplicaState.FAILED}
    ),
    ReplicaState.RUNNING: frozenset(
        {ReplicaState.DRAINING, ReplicaState.STOPPED, ReplicaState.FAILED}
    ),
    ReplicaState.DRAINING: frozenset({ReplicaState.STOPPED, ReplicaState.FAILED}),
    ReplicaState.STOPPED: frozenset(),
    ReplicaState.FAILED: frozenset(),
}
ACTIVE = frozenset(state for state, following in TRANSITIONS.items() if following)


class ExitKind(enum.StrEnum):
    """Why a replica ended; the word that status, events, metrics and logs share."""

    STOPPED = "stopped"
    EXITED = "exited"
    OUT_OF_MEMORY = "out_of_memory"
    STARTUP_TIMEOUT = "startup_timeout"
    LIVENESS_FAILED = "liveness_failed"
    LAUNCH_FAILED = "launch_failed"
    IMAGE_UNAVAILABLE = "image_unavailable"
    LOST = "lost"  # the engine no longer knows the container


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExitCause:
    """How a replica ended, in words for the operator, with the last lines it logged."""

    kind: ExitKind
    message: str
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What a replica reserves and where. `gpu_millis` and `gpu_memory_bytes` are for each GPU."""

    node: str
    cpu_millis: int
    memory_bytes: int
    gpu_uuids: tuple[str, ...] = ()
    gpu_millis: int = 0
    gpu_memory_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a replica's HTTP server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One container run in a slot. Times are seconds since the epoch."""

    id: str
    deployment_id: str
    organization: str
    revision: int
    slot: int
    state: ReplicaState
    placement: Placement
    created_at: float
    container_id: str | None = None
    endpoint: Endpoint | None = None
    started_at: float | None = None
    ready_at: float | None = None
    draining_since: float | None = None
    finished_at: float | None = None
    exit: ExitCause | None = None

    @property
    def active(self) -> bool:
        """True while the replica holds its reservation."""
        return self.state in ACTIVE
