"""Decides how a deployment's replicas divide between the current revision and what was there.

Counts only. What makes a replica count as taken over is how long it has been ready; which replica
goes and where a new one is placed is asked elsewhere.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping

from prsmd.domain.rollout import Rollout, RolloutPhase, RolloutStrategy

_WHOLE = 100


class Room(enum.Enum):
    """Whether an earlier replica may be drained to make room for a new one."""

    NEVER = "never"
    WHERE_NEEDED = "where needed"
    FIRST = "first"  # even where the new one would fit beside it
    ALL = "all"  # every one of them, before the first new one comes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What is there of a deployment. `settled` of the `coming` replicas have taken over."""

    target: int
    coming: int
    settled: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How the replicas should divide.

    `coming` are of the current revision; at most `kept` earlier ones stay, and up to `refilled` of
    them are launched again when they end. At most `limit` replicas exist at once (None: as many
    as fit).
    """

    coming: int
    kept: int
    refilled: int = 0
    limit: int | None = None
    room: Room = Room.WHERE_NEEDED


def share_out(rollout: Rollout | None, tally: Tally) -> Share:
    """Return how the replicas divide now; without a rollout under way the current revision wins.

    Earlier replicas stand in until as many current ones have settled, so what can serve never
    falls below the target for the rollout's sake.
    """
    if rollout is None or not rollout.active:
        return _taking_over(tally)
    if rollout.phase is RolloutPhase.PREPARING:
        return _halted(_taking_over(tally), tally)
    if rollout.phase is RolloutPhase.TRYING:
        return _TRIALS[rollout.options.strategy](rollout, tally.target)
    share = _REPLACING[rollout.options.strategy](rollout, tally)
    return _halted(share, tally) if rollout.paused else share


def _taking_over(tally: Tally) -> Share:
    return Share(coming=tally.target, kept=max(0, tally.target - tally.settled))


def _halted(share: Share, tally: Tally) -> Share:
    """Nothing more comes; what ends is made up for by the earlier revision."""
    coming = min(tally.coming, tally.target)
    kept = max(0, tally.target - tally.settled)
    refilled = tally.target - coming
    return dataclasses.replace(share, coming=coming, kept=kept, refilled=refilled, room=Room.NEVER)


def _blue_green(rollout: Rollout, target: int) -> Share:
    refilled = 0 if rollout.step else target
    return Share(coming=target, kept=target, refilled=refilled, room=Room.NEVER)


def _canary(rollout: Rollout, target: int) -> Share:
    coming = min(target, max(1, math.ceil(target * canary_weight(rollout) / _WHOLE)))
    room = Room.WHERE_NEEDED if target > coming else Room.NEVER
    return Share(coming=coming, kept=target, refilled=target - coming, room=room)


def _shadow(_: Rollout, target: int) -> Share:
    return Share(coming=min(target, 1), kept=target, refilled=target, room=Room.NEVER)


def _surge(rollout: Rollout, tally: Tally) -> Share:
    share = _taking_over(tally)
    return dataclasses.replace(share, limit=tally.target + _beyond(rollout, tally), room=Room.NEVER)


def _auto(rollout: Rollout, tally: Tally) -> Share:
    room = Room.WHERE_NEEDED if _beyond(rollout, tally) else Room.FIRST
    return dataclasses.replace(_surge(rollout, tally), room=room)


def _beyond(rollout: Rollout, tally: Tally) -> int:
    """Return how many replicas may exist beyond the target: a second set, unless asked for less."""
    asked = rollout.options.max_surge
    return max(1, tally.target) if asked is None else asked


def _swap(_: Rollout, tally: Tally) -> Share:
    return dataclasses.replace(_taking_over(tally), limit=tally.target, room=Room.FIRST)


def _recreate(_: Rollout, tally: Tally) -> Share:
    return dataclasses.replace(_taking_over(tally), room=Room.ALL)


def canary_weight(rollout: Rollout) -> int:
    """Return the percent of the traffic that a canary is to get at its step, or as set by hand."""
    if rollout.weight is not None:
        return rollout.weight
    return rollout.options.steps[min(rollout.step, len(rollout.options.steps) - 1)]


_TRIALS: Mapping[RolloutStrategy, Callable[[Rollout, int], Share]] = {
    RolloutStrategy.BLUE_GREEN: _blue_green,
    RolloutStrategy.CANARY: _canary,
    RolloutStrategy.SHADOW: _shadow,
}
# A trial that was promoted is carried through as `auto` would.
_REPLACING: Mapping[RolloutStrategy, Callable[[Rollout, Tally], Share]] = {
    RolloutStrategy.AUTO: _auto,
    RolloutStrategy.SURGE: _surge,
    RolloutStrategy.BUFFERED_SWAP: _swap,
    RolloutStrategy.RECREATE: _recreate,
    RolloutStrategy.BLUE_GREEN: _auto,
    RolloutStrategy.CANARY: _auto,
    RolloutStrategy.SHADOW: _auto,
}
