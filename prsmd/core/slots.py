"""Decides which replicas of a deployment are wanted, which are too many, which slots are empty.

Counts and orders only: whether a replica is well is asked elsewhere, where a new one goes too.
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence

from prsmd.core.plan import DesiredDeployment
from prsmd.core.shares import Share, Tally, share_out
from prsmd.core.sight import Sight
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.replica import Replica, ReplicaState

_PROGRESS = (ReplicaState.RUNNING, ReplicaState.STARTING, ReplicaState.PENDING)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a deployment should be: what stays, what is missing, what goes.

    `target` is how many replicas there should be now, `asked` where gradual scaling is going.
    `kept` are of the current revision, `settled` those of them that have taken over; `older` are of
    earlier revisions and still stand in. `surplus` should be drained, each with the reason. `empty`
    are the current revision's slots to be filled now, `withheld` those that wait for gradual
    scaling, and `refilled` the stable revision's slots to be filled again.
    """

    target: int
    asked: int
    share: Share
    kept: tuple[Replica, ...]
    settled: tuple[Replica, ...]
    older: tuple[Replica, ...]
    empty: tuple[int, ...]
    withheld: tuple[int, ...]
    refilled: tuple[int, ...]
    surplus: tuple[tuple[Replica, str], ...]


def target_replicas(item: DesiredDeployment) -> int:
    """Return how many replicas there should be: what was asked or recommended, within bounds."""
    deployment = item.deployment
    if deployment.deleting:
        return 0
    recommended = deployment.recommendation
    wanted = deployment.asked_replicas if recommended is None else recommended.replicas
    return _within_bounds(item, wanted)


def gradual_target(item: DesiredDeployment) -> int:
    """Return how many replicas there should be at the step that gradual scaling has reached."""
    deployment, asked = item.deployment, target_replicas(item)
    reached = deployment.gradual_level
    gradual = deployment.scaling_strategy is ScalingStrategy.GRADUAL
    if not gradual or reached is None or deployment.recommendation or deployment.deleting:
        return asked
    return _within_bounds(item, reached)


def lay_out(item: DesiredDeployment, sight: Sight) -> Layout:
    """Return who stays, who goes and what is missing.

    Of the current revision the best replicas stay, one to a slot: ready ones, then the furthest
    on, then the lowest slots. Replicas of earlier revisions stand in as the rollout's share says. A
    new replica takes the lowest slot in which none is active.
    """
    target = gradual_target(item)
    there = [r for r in item.replicas if r.active and r.state is not ReplicaState.DRAINING]
    there.sort(key=lambda replica: _rank(replica, sight))
    current = item.current_numbers
    unique, doubles = _one_per_slot([r for r in there if r.revision in current])
    earlier, useless = _stand_ins(item, there, sight)
    settled = tuple(r for r in unique[:target] if has_settled(item, r, sight))
    share = share_out(item.rollout, Tally(target=target, coming=len(unique), settled=len(settled)))
    kept, older = unique[: share.coming], earlier[: share.kept]
    asked = target_replicas(item)
    beyond = _empty_slots(item, max(0, asked - len(kept))) if share.coming == target else ()
    return Layout(
        target=target,
        asked=asked,
        share=share,
        kept=tuple(kept),
        settled=settled,
        older=tuple(older),
        empty=_empty_slots(item, share.coming - len(kept)),
        withheld=beyond[max(0, target - len(kept)) :],
        refilled=_free_slots(item, item.stable_numbers, share.refilled - len(older)),
        surplus=(
            *((r, f"another replica is active in slot {r.slot}") for r in doubles),
            *((r, _too_many(item, target)) for r in unique[share.coming :]),
            *((r, _replaced(item, share, target)) for r in earlier[share.kept :]),
            *((r, _useless(item, target)) for r in useless),
        ),
    )


def has_settled(item: DesiredDeployment, replica: Replica, sight: Sight) -> bool:
    """Tell whether a ready replica has been ready long enough for its rollout to count on it.

    One that gets ready only in the future was there before the clock was set back.
    """
    if not sight.ready(replica):
        return False
    until, at = settles_at(item, replica, sight), sight.observed.at
    return until is None or until <= at or (replica.ready_at or at) > at


def settles_at(item: DesiredDeployment, replica: Replica, sight: Sight) -> float | None:
    """Return when a replica that was ready will count, in epoch seconds; None: it counts now.

    What nobody could look at does not count.
    """
    rollout = item.rollout
    if rollout is None or not rollout.active or replica.ready_at is None:
        return None
    if replica.ready_at < rollout.started_at:
        return None
    passed = sight.observed.at - replica.ready_at
    unseen = max(0.0, passed - sight.counted(replica.ready_at))
    return replica.ready_at + rollout.options.min_ready_seconds + unseen


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


def _stand_ins(
    item: DesiredDeployment, ranked: Sequence[Replica], sight: Sight
) -> tuple[list[Replica], list[Replica]]:
    """Return the earlier replicas that can stand in, best first, and those that cannot.

    Ready ones come first, the stable revision's among them. One that never served helps nobody
    once its revision is not wanted any more, nor does one of a revision that was given up, once a
    better one can serve.
    """
    current, stable, bad = item.current_numbers, item.stable_numbers, item.given_up_numbers
    earlier = [r for r in ranked if r.revision not in current]
    better = any(r.revision not in bad and sight.ready(r) for r in ranked)
    useful = [
        r
        for r in earlier
        if (r.state is ReplicaState.RUNNING or r.revision in stable)
        and not (better and r.revision in bad)
    ]
    useful.sort(key=lambda r: (not sight.ready(r), r.revision not in stable))
    return useful, [r for r in earlier if r not in useful]


def _empty_slots(item: DesiredDeployment, count: int) -> tuple[int, ...]:
    return _free_slots(item, item.current_numbers, count)


def _free_slots(item: DesiredDeployment, numbers: Collection[int], count: int) -> tuple[int, ...]:
    occupied = {r.slot for r in item.replicas if r.active and r.revision in numbers}
    free = (slot for slot in itertools.count() if slot not in occupied)
    return tuple(itertools.islice(free, max(0, count)))


def _within_bounds(item: DesiredDeployment, replicas: int) -> int:
    scaling = item.revision.spec.scaling
    return max(scaling.min_replicas, min(replicas, scaling.max_replicas))


def _too_many(item: DesiredDeployment, target: int) -> str:
    if item.deployment.deleting:
        return "the model is being deleted"
    return f"only {target} replicas are wanted" if target else "the model is scaled to zero"


def _replaced(item: DesiredDeployment, share: Share, target: int) -> str:
    if share.kept >= target:  # nothing has taken over yet: there are just fewer wanted
        return _too_many(item, target)
    return f"revision {item.revision.number} has taken its place"


def _useless(item: DesiredDeployment, target: int) -> str:
    if not target:
        return _too_many(item, target)
    return f"revision {item.revision.number} is wanted instead"
