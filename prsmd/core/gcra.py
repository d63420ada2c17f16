"""The generic cell rate algorithm: so many requests a minute, a full burst at once.

Of a bucket only one number is kept: the time at which it will be full again (ITU-T I.371). It is a
whole number of the microseconds' parts that the limit divides a minute into, so that no rounding
lets one request more pass, or one less.
"""

import dataclasses
import math

_MICROSECONDS = 1_000_000
_MINUTE = 60 * _MICROSECONDS


@dataclasses.dataclass(frozen=True, slots=True)
class Passed:
    """It may pass. `kept` is to be kept; `remaining` more may pass at once now.

    At `full_at`, in epoch seconds, all may pass again.
    """

    kept: int
    remaining: int
    full_at: float


@dataclasses.dataclass(frozen=True, slots=True)
class Limited:
    """It may not pass before `retry_at`, in epoch seconds. `kept` is to be kept."""

    kept: int
    retry_at: float


def spend(kept: int, per_minute: int, now: float) -> Passed | Limited:
    """Decide about one request at `now`, in epoch seconds.

    `kept` is what came of the last one that passed under the same limit; 0: there was none. After a
    clock was set back the bucket is empty at worst: nobody waits until the old time comes again.
    """
    unit = _MICROSECONDS * per_minute  # in a second
    arrival = int(now * _MICROSECONDS) * per_minute
    empty = arrival + _MINUTE * per_minute
    kept = min(max(kept, arrival), empty)
    after = kept + _MINUTE
    free = empty - after
    if free < 0:
        return Limited(kept=kept, retry_at=(arrival - free) / unit)
    return Passed(kept=after, remaining=free // _MINUTE, full_at=after / unit)


def give_back(kept: int) -> int:
    """Return what is to be kept when one request that passed is not to count after all."""
    return kept - _MINUTE


def kept_until(full_at: float, per_minute: int) -> int:
    """Return what is kept of a bucket that is full again at `full_at`, in epoch seconds."""
    return math.ceil(full_at * _MICROSECONDS) * per_minute


def full_at(kept: int, per_minute: int) -> float:
    """Return when a bucket is full again, in epoch seconds."""
    return kept / (_MICROSECONDS * per_minute)
