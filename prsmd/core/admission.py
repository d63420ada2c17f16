"""Whether an inference may start now, has to wait, or is refused, and in which words."""

import dataclasses
import math
from collections.abc import Container, Sequence, Sized
from typing import Generic

from .balance import AnyTarget, choose

QUEUE_FULL = "QUEUE_FULL"
RESOURCE_UNAVAILABLE = "RESOURCE_UNAVAILABLE"
UNREACHABLE = "no replica accepts connections"
_RETRY_BUSY_SECONDS = (1, 60)
_RETRY_STARTING_SECONDS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Admit(Generic[AnyTarget]):
    """Start now, on this target."""

    target: AnyTarget


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Join the queue; a slot, or a replica, may come."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Do not start and do not wait. `code` is the API's; `limit` is the bound that was met."""

    code: str
    reason: str
    retry_after_seconds: int
    limit: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """What a pool knows beside its targets.

    `mean_seconds` is how long an inference takes (None: unknown). `closed` is why the pool accepts
    nothing any more. `waiting_for` says what a queue without replicas waits for, in words, and
    `hopeless` that waiting cannot help.
    """

    queued: int
    depth: int
    mean_seconds: float | None = None
    waiting_for: str = ""
    hopeless: bool = False
    closed: str | None = None


def admit(
    targets: Sequence[AnyTarget],
    queue: QueueState,
    turn: int,
    spare: Sequence[AnyTarget] = (),
) -> Admit[AnyTarget] | Wait | Refuse:
    """Decide about a new inference of the side `targets`; `spare` is the other, where it may go.

    A pool hands out every slot in the moment that it becomes free, so a free one is one that nobody
    in the queue can use (they could not connect to it), and taking it overtakes nobody.
    """
    if queue.closed is not None:
        return _unavailable(queue.closed)
    if (target := choose(targets, spare, turn)) is not None:
        return Admit(target)
    if (hopeless := no_way_left(targets or spare, queue)) is not None:
        return hopeless
    if queue.queued < queue.depth:
        return Wait()
    return _queue_full(targets or spare, queue)


def admit_again(
    targets: Sequence[AnyTarget],
    queue: QueueState,
    turn: int,
    tried: Container[str],
    spare: Sequence[AnyTarget] = (),
) -> Admit[AnyTarget] | Wait | Refuse:
    """Decide about an inference whose connection failed before anything was sent.

    It was admitted once, so it neither queues behind others nor counts against the queue's depth.
    When it tried every target, it waits for another, or for news of those, if there is a place.
    """
    if queue.closed is not None:
        return _unavailable(queue.closed)
    if (target := choose(targets, spare, turn, tried)) is not None:
        return Admit(target)
    if (hopeless := no_way_left(targets or spare, queue)) is not None:
        return hopeless
    if queue.queued >= queue.depth and unreachable(targets, tried) and unreachable(spare, tried):
        return _unavailable(UNREACHABLE)
    return Wait()


def no_way_left(targets: Sized, queue: QueueState) -> Refuse | None:
    """Return why waiting on cannot help; None when it can."""
    return None if targets or not queue.hopeless else _unavailable(queue.waiting_for)


def unreachable(targets: Sequence[AnyTarget], tried: Container[str]) -> bool:
    """Tell whether each of the targets was tried."""
    return all(target.replica_id in tried for target in targets)


def _unavailable(reason: str) -> Refuse:
    return Refuse(
        code=RESOURCE_UNAVAILABLE,
        reason=reason or "no replica is ready",
        retry_after_seconds=_RETRY_STARTING_SECONDS,
    )


def _queue_full(targets: Sequence[AnyTarget], queue: QueueState) -> Refuse:
    slots = sum(target.slots for target in targets)
    if slots:
        replicas = "1 replica" if len(targets) == 1 else f"{len(targets)} replicas"
        busy = f"all {slots} slots of {replicas} are busy"
        least, most = _RETRY_BUSY_SECONDS
        estimate = (queue.mean_seconds or 0.0) * (queue.queued + 1) / slots
        retry = min(max(math.ceil(estimate), least), most)
    else:
        busy = queue.waiting_for or "no replica is ready"
        retry = _RETRY_STARTING_SECONDS
    return Refuse(
        code=QUEUE_FULL,
        reason=f"{busy} and the queue is full ({queue.queued} of {queue.depth})",
        retry_after_seconds=retry,
        limit=queue.depth,
    )
