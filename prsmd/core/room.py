"""Decides which earlier replica gives way when a new one fits nowhere beside it.

One at a time where one is enough, and only while everything else is in order: so what can serve
falls below the target by no more than what the hardware forces.
"""

import dataclasses
from collections.abc import Sequence

from prsmd.core import quota_admission
from prsmd.core.place import place
from prsmd.core.plan import Capacity, DesiredDeployment, Hold, Unplaceable
from prsmd.core.shares import Room
from prsmd.core.sight import Sight
from prsmd.core.slots import Layout
from prsmd.domain.deployment import Revision
from prsmd.domain.replica import Placement, Replica, ReplicaState
from prsmd.domain.rollout import RolloutPhase

MAKES_ROOM = "makes room for revision"  # how the reason to give way begins
RECREATES = "(recreate)"  # and ends, where nothing of the earlier revision can stay
ROOM_BACK_SECONDS = 60.0  # what is not free so long after it was given up is somebody else's


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Vacancy:
    """A slot of a revision that should hold a replica and does not."""

    revision: Revision
    slot: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Yield:
    """These replicas are drained so that the slot can be filled."""

    replicas: tuple[Replica, ...]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Who makes room anyway, and when the last one ended that did (epoch seconds; None: nobody)."""

    going: tuple[Replica, ...]
    gave_way_at: float | None


def make_room(
    item: DesiredDeployment,
    layout: Layout,
    vacancy: Vacancy,
    capacity: Capacity,
    sight: Sight,
    away: Leaving,
) -> Yield | Hold | None:
    """Return who gives way to a replica that cannot be placed, or what that waits for.

    None: nobody here can make room. `capacity` is what is left now, everything reserved on it.
    """
    going, gave_way_at = away.going, away.gave_way_at
    if going:  # from its container's end to its row's, its memory looks like a stranger's
        names = ", ".join(replica.id for replica in going)
        return _hold(item, vacancy, f"waits for the room of {names}, which is draining")
    short = len(layout.kept) + len(layout.older) < floor(item, layout)
    if short and gave_way_at is not None:
        until = gave_way_at + ROOM_BACK_SECONDS
        late = not gave_way_at <= sight.observed.at < until
        return None if late else _room_not_back(item, vacancy, capacity, until)
    if layout.share.room is Room.NEVER or vacancy.revision is not item.revision:
        return None
    victims = _victims(item, layout, vacancy, capacity, sight)
    if not victims or _leaves_nobody(item, layout, victims, sight):
        return None
    unsettled = [r for r in layout.kept if r not in layout.settled]
    if unsettled and any(sight.ready(victim) for victim in victims):
        return _hold(item, vacancy, f"replica {unsettled[0].id} has to be ready first")
    return Yield(replicas=victims, reason=_why(item, victims, layout))


def leaving(item: DesiredDeployment, layout: Layout) -> Leaving:
    """Return the replicas that make room anyway, those that are to be drained now included."""
    draining = [r for r in item.replicas if r.state is ReplicaState.DRAINING]
    surplus = [replica for replica, _ in layout.surplus]
    return Leaving(going=(*draining, *surplus), gave_way_at=_gave_way_at(item))


def counted_on(
    vacancy: Vacancy, going: Sequence[Replica], capacity: Capacity
) -> tuple[Placement, ...]:
    """Return what the new replica will need beside the room of those that make it.

    Were it taken by somebody else meanwhile, they would have gone in vain.
    """
    wanted = place(vacancy.revision.spec.resources, without(capacity, going))
    if isinstance(wanted, Unplaceable):
        return ()
    held = [replica.placement for replica in going]
    host = dataclasses.replace(
        wanted,
        cpu_millis=max(0, wanted.cpu_millis - sum(one.cpu_millis for one in held)),
        memory_bytes=max(0, wanted.memory_bytes - sum(one.memory_bytes for one in held)),
        gpu_uuids=(),
        gpu_millis=0,
        gpu_memory_bytes=0,
    )
    return (host, *(_of_gpu(uuid, wanted, held) for uuid in wanted.gpu_uuids))


def _of_gpu(uuid: str, wanted: Placement, held: Sequence[Placement]) -> Placement:
    here = [one for one in held if uuid in one.gpu_uuids]
    return Placement(
        node=wanted.node,
        cpu_millis=0,
        memory_bytes=0,
        gpu_uuids=(uuid,),
        gpu_millis=max(0, wanted.gpu_millis - sum(one.gpu_millis for one in here)),
        gpu_memory_bytes=max(
            0, wanted.gpu_memory_bytes - sum(one.gpu_memory_bytes for one in here)
        ),
    )


def without(capacity: Capacity, replicas: Sequence[Replica]) -> Capacity:
    """Return `capacity` as it would be once these replicas reserve nothing any more."""
    gone = [replica.placement for replica in replicas]
    reservations: list[Placement] = []
    for placement in capacity.reservations:
        if placement in gone:
            gone.remove(placement)
        else:
            reservations.append(placement)
    names = {replica.id for replica in replicas}
    holders = {
        uuid: tuple(name for name in known if name not in names)
        for uuid, known in capacity.holders.items()
    }
    held = dict(capacity.held)
    for replica in replicas:
        whose = replica.organization
        held[whose] = quota_admission.without_one(held.get(whose, {}), replica.placement)
    return dataclasses.replace(
        capacity, reservations=tuple(reservations), holders=holders, held=held
    )


def floor(item: DesiredDeployment, layout: Layout) -> int:
    """Return how many replicas there have to be before another one may give way."""
    base = item.rollout.base if item.rollout is not None else None
    return layout.target if base is None else min(layout.target, base)


def _gave_way_at(item: DesiredDeployment) -> float | None:
    """Return when the last replica of another revision ended since the latest rollout began.

    Where that was rolled back, those are the ones that were given up.
    """
    rollout = item.rollout
    if rollout is None:
        return None
    current = item.current_numbers
    ends = [
        replica.finished_at
        for replica in item.replicas
        if replica.finished_at is not None and replica.revision not in current
    ]
    return max((at for at in ends if at >= rollout.started_at), default=None)


def _fits(vacancy: Vacancy, capacity: Capacity) -> bool:
    verdict = place(vacancy.revision.spec.resources, capacity)
    return not isinstance(verdict, Unplaceable)


def _victims(
    item: DesiredDeployment, layout: Layout, vacancy: Vacancy, capacity: Capacity, sight: Sight
) -> tuple[Replica, ...]:
    """Return the earlier replicas without which the new one fits: one where that is enough.

    Those that serve least go first: not ready before ready, idle before busy, the newest of equals;
    the good revision's last. Nobody goes where the new one would not fit even then.
    """
    good = item.stable_numbers
    order = sorted(
        layout.older,
        key=lambda r: (
            sight.ready(r),
            r.revision in good,
            sight.in_flight(r),
            -r.created_at,
            r.id,
        ),
    )
    if not order or not _fits(vacancy, without(capacity, order)):
        return ()
    if layout.share.room is Room.ALL:
        return tuple(order)
    if layout.share.room is Room.FIRST and _fits(vacancy, capacity):
        return tuple(order[:1])
    one = next((r for r in order if _fits(vacancy, without(capacity, [r]))), None)
    return (one,) if one is not None else _several(order, vacancy, capacity)


def _several(order: Sequence[Replica], vacancy: Vacancy, capacity: Capacity) -> tuple[Replica, ...]:
    """Return the first of them that are enough together, and none that is not needed for it."""
    counts = range(2, len(order) + 1)
    enough = next(n for n in counts if _fits(vacancy, without(capacity, order[:n])))
    chosen = list(order[:enough])
    for replica in order[:enough]:
        rest = [one for one in chosen if one is not replica]
        chosen = rest if _fits(vacancy, without(capacity, rest)) else chosen
    return tuple(chosen)


def _leaves_nobody(
    item: DesiredDeployment, layout: Layout, victims: Sequence[Replica], sight: Sight
) -> bool:
    """Tell whether what is only on trial would be all that serves."""
    trying = item.rollout is not None and item.rollout.phase is RolloutPhase.TRYING
    return trying and not any(sight.ready(r) for r in layout.older if r not in victims)


def _why(item: DesiredDeployment, victims: Sequence[Replica], layout: Layout) -> str:
    makes = f"{MAKES_ROOM} {item.revision.number}"
    if layout.share.room is Room.ALL:
        return f"{makes}: all of the earlier ones go first {RECREATES}"
    if len(victims) == 1:
        return f"{makes}, which does not fit beside it"
    every = "all" if len(victims) == len(layout.older) else str(len(victims))
    return f"{makes}, which fits only where {every} earlier replicas have gone {RECREATES}"


def _room_not_back(
    item: DesiredDeployment, vacancy: Vacancy, capacity: Capacity, until: float
) -> Hold:
    asker = item.deployment.organization
    verdict = place(vacancy.revision.spec.resources, capacity, asker)
    details = verdict.reasons if isinstance(verdict, Unplaceable) else ()
    reason = "waits until the room that was made for it is really free"
    return dataclasses.replace(_hold(item, vacancy, reason), details=details, until=until)


def _hold(item: DesiredDeployment, vacancy: Vacancy, reason: str) -> Hold:
    return Hold(
        deployment_id=item.deployment.id,
        revision=vacancy.revision.number,
        slot=vacancy.slot,
        kind="swap",
        reason=reason,
    )
