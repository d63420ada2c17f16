"""Decides which replicas of a deployment are wanted, which are too many, which slots are empty.

Counts and orders only: whether a replica is well is asked elsewhere, where a new one goes too.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from prsmd.core.plan import DesiredDeployment
from prsmd.core.sight import Sight
from prsmd.domain.replica import Replica, ReplicaState

_PROGRESS = (ReplicaState.RUNNING, ReplicaState.STARTING, ReplicaState.PENDING)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a deployment should be: `kept` and `empty` together make its target.

    `older` are replicas of earlier revisions that still stand in; `surplus` should be drained,
    each with the reason.
    """

    target: int
    kept: tuple[Replica, ...]
    empty: tuple[int, ...]
    older: tuple[Replica, ...]
    surplus: tuple[tuple[Replica, str], ...]


def target_replicas(item: DesiredDeployment) -> int:
    """Return how many replicas there should be: what was asked or recommended, within bounds."""
    deployment, scaling = item.deployment, item.revision.spec.scaling
    if deployment.deleting:
        return 0
    recommended = deployment.recommendation
    wanted = deployment.asked_replicas if recommended is None else recommended.replicas
    return max(scaling.min_replicas, min(wanted, scaling.max_replicas))


def lay_out(item: DesiredDeployment, sight: Sight) -> Layout:
    """Return who stays, who goes and what is missing.

    Of the current revision the best replicas stay, one to a slot: ready ones, then the furthest
    on, then the lowest slots. Replicas of earlier revisions stand in until as many of the current
    one are ready. A new replica takes the lowest slot in which none is active.
    """
    target = target_replicas(item)
    settled = [r for r in item.replicas if r.active and r.state is not ReplicaState.DRAINING]
    settled.sort(key=lambda replica: _rank(replica, sight))
    current = [r for r in settled if r.revision == item.revision.number]
    earlier = [r for r in settled if r.revision != item.revision.number]
    unique, doubles = _one_per_slot(current)
    kept = unique[:target]
    stand_ins = max(0, target - sum(sight.ready(replica) for replica in kept))
    return Layout(
        target=target,
        kept=tuple(kept),
        empty=_empty_slots(item, target - len(kept)),
        older=tuple(earlier[:stand_ins]),
        surplus=(
            *((r, f"another replica is active in slot {r.slot}") for r in doubles),
            *((r, _too_many(item, target)) for r in unique[target:]),
            *((r, _replaced(item, target)) for r in earlier[stand_ins:]),
        ),
    )


def _rank(replica: Replica, sight: Sight) -> tuple[bool, bool, int, int, int, float, str]:
    return (
        not sight.ready(replica),
        replica.state is not ReplicaState.PENDING and not sight.may_run(replica),
        _PROGRESS.index(replica.state),
        -replica.revision,
        replica.slot,
        replica.created_at,
        replica.id,
    )


def _one_per_slot(ranked: Sequence[Replica]) -> tuple[list[Replica], list[Replica]]:
    first: dict[int, Replica] = {}
    for replica in ranked:
        first.setdefault(replica.slot, replica)
    unique = list(first.values())
    return unique, [replica for replica in ranked if first[replica.slot] is not replica]


def _empty_slots(item: DesiredDeployment, count: int) -> tuple[int, ...]:
    number = item.revision.number
    occupied = {r.slot for r in item.replicas if r.active and r.revision == number}
    free = (slot for slot in itertools.count() if slot not in occupied)
    return tuple(itertools.islice(free, count))


def _too_many(item: DesiredDeployment, target: int) -> str:
    if item.deployment.deleting:
        return "the model is being deleted"
    return f"only {target} replicas are wanted" if target else "the model is scaled to zero"


def _replaced(item: DesiredDeployment, target: int) -> str:
    if not target:
        return _too_many(item, target)
    return f"revision {item.revision.number} has taken its place"
