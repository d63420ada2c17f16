"""Decides which empty slots of a deployment are filled now, and why the others have to wait."""

import hashlib

from prsmd.core.backoff import ended_in, failures, waits_until
from prsmd.core.capacity import reserve
from prsmd.core.exits import cause_words
from prsmd.core.place import place
from prsmd.core.plan import Capacity, DesiredDeployment, Hold, Launch, Unplaceable
from prsmd.core.slots import Layout
from prsmd.core.supervise import Moment
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.ids import replica_id_for
from prsmd.domain.replica import Placement, Replica, ReplicaState

_COMING = frozenset({ReplicaState.PENDING, ReplicaState.STARTING})


def fill(
    item: DesiredDeployment, layout: Layout, capacity: Capacity, moment: Moment
) -> tuple[list[Launch | Hold], Capacity]:
    """Return a launch or a hold for each empty slot, and the capacity that remains."""
    decisions: list[Launch | Hold] = []
    for slot in layout.empty:
        launched = [one for one in decisions if isinstance(one, Launch)]
        hold = (
            _engine_silent(item, slot, moment)
            or _backing_off(item, slot, moment)
            or _one_at_a_time(item, slot, layout, launched, moment)
        )
        decision = hold or _placed(item, slot, capacity, moment)
        if isinstance(decision, Launch):
            capacity = reserve(capacity, [decision.replica])
        decisions.append(decision)
    return decisions, capacity


def _engine_silent(item: DesiredDeployment, slot: int, moment: Moment) -> Hold | None:
    if moment.sight.containers is not None:
        return None
    reason = "the container engine does not answer; nothing is launched until it does"
    return Hold(deployment_id=item.deployment.id, slot=slot, kind="engine", reason=reason)


def _backing_off(item: DesiredDeployment, slot: int, moment: Moment) -> Hold | None:
    ended = ended_in(item.replicas, item.revision.number, slot)
    until = waits_until(ended, moment.now)
    if until is None:
        return None
    row = failures(ended)
    times = "failed" if len(row) == 1 else f"failed {len(row)} times in a row"
    return Hold(
        deployment_id=item.deployment.id,
        slot=slot,
        kind="backoff",
        reason=f"{times}, last: {cause_words(row[-1])}; it is tried again after a pause",
        until=until,
    )


def _one_at_a_time(
    item: DesiredDeployment, slot: int, layout: Layout, launched: list[Launch], moment: Moment
) -> Hold | None:
    """Hold under the gradual strategy, which does not apply while nothing serves at all."""
    if item.deployment.scaling_strategy is not ScalingStrategy.GRADUAL:
        return None
    serving = any(moment.sight.ready(r) for r in (*layout.kept, *layout.older))
    coming = [r.id for r in layout.kept if r.state in _COMING]
    coming += [launch.replica.id for launch in launched]
    if not serving or not coming:
        return None
    reason = f"scaling is gradual: replica {coming[0]} has to be ready first"
    return Hold(deployment_id=item.deployment.id, slot=slot, kind="gradual", reason=reason)


def _placed(
    item: DesiredDeployment, slot: int, capacity: Capacity, moment: Moment
) -> Launch | Hold:
    placement = place(item.revision.spec.resources, capacity)
    if isinstance(placement, Unplaceable):
        return Hold(
            deployment_id=item.deployment.id,
            slot=slot,
            kind="unplaceable",
            reason=placement.summary,
            details=placement.reasons,
        )
    ended = ended_in(item.replicas, item.revision.number, slot)
    reason = f"replaces {ended[-1].id}" if ended else "needs a replica"
    return Launch(replica=_replica(item, slot, placement, moment.now), reason=reason)


def _replica(item: DesiredDeployment, slot: int, placement: Placement, now: float) -> Replica:
    deployment, number = item.deployment, item.revision.number
    return Replica(
        id=replica_id_for(deployment.id, number, slot, _suffix(item, slot, now)),
        deployment_id=deployment.id,
        organization=deployment.organization,
        revision=number,
        slot=slot,
        state=ReplicaState.PENDING,
        placement=placement,
        created_at=now,
    )


def _suffix(item: DesiredDeployment, slot: int, now: float) -> str:
    """Return what tells this replica from those before it: the same for the same decision."""
    known = sum(r.revision == item.revision.number and r.slot == slot for r in item.replicas)
    text = f"{item.deployment.id}/{item.revision.number}/{slot}/{now!r}/{known}"
    return hashlib.blake2s(text.encode(), digest_size=4).hexdigest()
