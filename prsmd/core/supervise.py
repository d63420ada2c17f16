"""Decides what one replica needs, looking at it alone: its row, its container, its probe.

Whether a replica is wanted at all is not asked here. Never concludes from an engine's silence.
"""

import dataclasses
from collections.abc import Callable, Mapping

from prsmd.core import exits
from prsmd.core.plan import Adopt, Fail, MarkRunning, ObservedContainer, Resume, Stop
from prsmd.core.policy import Policy
from prsmd.core.sight import Sight
from prsmd.domain.replica import Replica, ReplicaState

Care = Resume | Adopt | MarkRunning | Stop | Fail


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What every decision of one tick looks at. `now` is seconds since the epoch."""

    sight: Sight
    now: float
    policy: Policy


def look_after(replica: Replica, startup_timeout_seconds: float, moment: Moment) -> Care | None:
    """Return what an active replica needs now, if anything.

    The action's replica carries its container's id as observed, so that a container of which the
    row does not know yet is ended with it.
    """
    sight = moment.sight
    if sight.worked_on(replica):
        return None
    if sight.containers is None:
        return _ready_at_last(replica, sight)
    container = sight.container(replica)
    if container is not None:
        replica = dataclasses.replace(replica, container_id=container.id)
    if replica.state is ReplicaState.STARTING:
        return _starting(replica, container, startup_timeout_seconds, moment)
    return _BY_STATE[replica.state](replica, container, moment)


def _pending(replica: Replica, container: ObservedContainer | None, _: Moment) -> Care:
    if container is None:
        return Resume(replica=replica, reason="it was placed, but its container never launched")
    if container.running:
        return Adopt(replica=replica, container_id=container.id, endpoint=container.endpoint)
    if container.exit_code is None and not container.out_of_memory:
        return Resume(replica=replica, reason="its container was created, but never started")
    return Fail(replica=replica, cause=exits.exited(replica, container))


def _starting(
    replica: Replica, container: ObservedContainer | None, timeout: float, moment: Moment
) -> Care | None:
    if container is None or not container.running:
        return _gone(replica, container)
    began = replica.created_at if replica.started_at is None else replica.started_at
    ready = _ready_at_last(replica, moment.sight)
    overdue = moment.sight.counted(began) >= timeout
    if ready is None and overdue and _was_asked(replica, moment.sight):
        cause = exits.startup_timeout(timeout, moment.sight.probe(replica))
        return Fail(replica=replica, cause=cause)
    return ready


def _was_asked(replica: Replica, sight: Sight) -> bool:
    """Tell whether silence means something.

    After a restart nobody has asked the replica yet, and what was not heard while the daemon stood
    still is asked again.
    """
    known = sight.probed(replica) and sight.probe(replica).unknown is None
    return known or sight.endpoint(replica) is None


def _running(replica: Replica, container: ObservedContainer | None, moment: Moment) -> Care | None:
    if container is None or not container.running:
        return _gone(replica, container)
    probe = moment.sight.probe(replica)
    if probe.failures >= moment.policy.liveness_failures:
        return Fail(replica=replica, cause=exits.liveness_failed(probe))
    return None


def _draining(replica: Replica, container: ObservedContainer | None, moment: Moment) -> Care | None:
    if container is None or not container.running:
        return Stop(replica=replica, reason="its container ended while it drained")
    in_flight = moment.sight.in_flight(replica)
    if in_flight == 0:
        return Stop(replica=replica, reason="everything it had accepted is answered")
    since = replica.created_at if replica.draining_since is None else replica.draining_since
    limit = moment.policy.drain_timeout_seconds
    if moment.sight.counted(since) >= limit:
        reason = f"its drain timeout of {limit:g} s is over with {in_flight} still in flight"
        return Stop(replica=replica, reason=reason)
    return None


def _gone(replica: Replica, container: ObservedContainer | None) -> Fail:
    cause = exits.lost() if container is None else exits.exited(replica, container)
    return Fail(replica=replica, cause=cause)


def _ready_at_last(replica: Replica, sight: Sight) -> MarkRunning | None:
    starting = replica.state is ReplicaState.STARTING
    return MarkRunning(replica=replica) if starting and sight.probe(replica).ready else None


_BY_STATE: Mapping[
    ReplicaState, Callable[[Replica, ObservedContainer | None, Moment], Care | None]
] = {
    ReplicaState.PENDING: _pending,
    ReplicaState.RUNNING: _running,
    ReplicaState.DRAINING: _draining,
}
