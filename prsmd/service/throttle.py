"""How many requests a key may make: so many a minute, so many a day (UTC).

Minutes are counted in memory; days too, or with leases, so that no crash lets one too many.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Protocol

from prsmd.core.gcra import Limited, spend
from prsmd.core.meter import Refuse, Short
from prsmd.domain.access import ApiKey
from prsmd.domain.errors import RateLimitedError
from prsmd.domain.quota import UsageLimits
from prsmd.gateway.meters import Meters

_DAY_SECONDS = 86_400


@dataclasses.dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit: `remaining` of `limit` requests; at `reset_at` all of them again.

    `reset_at` is in epoch seconds; None: what was used does not come back.
    """

    limit: int
    remaining: int
    reset_at: float | None


class DailyCount(Protocol):
    """Counts requests of a day."""

    async def take(self, name: str, limit: int, now: float) -> int | None:
        """Count one and return how many are left; None, counting nothing, when none was."""


class LeasedCount:
    """Counts with blocks that the store has set aside: a crash forgets none of it."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    async def take(self, name: str, limit: int, now: float) -> int | None:
        """Count one and return how many are left; None, counting nothing, when none was.

        Raises:
            ResourceUnavailableError: the store could not be asked in time.
        """
        meter = self._meters.known(name)
        if meter is None or meter.limits.requests_per_day != limit:
            meter = self._meters.meter(name, UsageLimits(requests_per_day=limit), now)
        verdict = self._meters.take(meter, now)
        if isinstance(verdict, Short):
            verdict = await self._meters.wait(meter)
        if isinstance(verdict, Refuse):
            return None
        verdict.end(counts=True)
        (day,) = meter.windows
        return max(0, day.limit - day.used)


class MemoryCount:
    """Counts in memory: a restart forgets."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    async def take(self, name: str, limit: int, now: float) -> int | None:
        """Count one and return how many are left; None, counting nothing, when none was."""
        today = int(now // _DAY_SECONDS)
        day, count = self._counts.get(name, (today, 0))
        if day != today:
            count = 0
        if count >= limit:
            return None
        self._counts[name] = (today, count + 1)
        return limit - count - 1


class Throttle:
    """Admits the requests of keys. `clock` gives seconds since the epoch."""

    def __init__(
        self, days: DailyCount | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._days = days or MemoryCount()
        self._clock = clock
        self._minutes: dict[tuple[str, int], int] = {}

    async def admit(self, key: ApiKey) -> Allowance | None:
        """Count a request and return what is left of the tighter limit; None: the key has none.

        Raises:
            RateLimitedError: nothing is left; nothing was counted.
        """
        if key.requests_per_minute is None and key.requests_per_day is None:
            return None
        now = self._clock()
        self._minute(key, now)  # what is over this limit is not counted in the day
        day = await self._day(key, now)
        minute, kept = self._minute(key, now)
        if minute is not None:
            self._minutes[key.id, minute.limit] = kept
        left = [allowance for allowance in (minute, day) if allowance is not None]
        return min(left, key=lambda allowance: allowance.remaining)

    def _minute(self, key: ApiKey, now: float) -> tuple[Allowance | None, int]:
        limit = key.requests_per_minute
        if limit is None:
            return None, 0
        verdict = spend(self._minutes.get((key.id, limit), 0), limit, now)
        if isinstance(verdict, Limited):
            raise _refusal("requests_per_minute", limit, verdict.retry_at, now)
        return Allowance(limit, verdict.remaining, verdict.full_at), verdict.kept

    async def _day(self, key: ApiKey, now: float) -> Allowance | None:
        limit = key.requests_per_day
        if limit is None:
            return None
        midnight = (now // _DAY_SECONDS + 1) * _DAY_SECONDS
        remaining = await self._days.take(f"key:{key.id}", limit, now)
        if remaining is None:
            raise _refusal("requests_per_day", limit, midnight, now)
        return Allowance(limit, remaining, midnight)


def _refusal(kind: str, limit: int, reset_at: float, now: float) -> RateLimitedError:
    seconds = max(0.001, reset_at - now)
    words = kind.replace("_", " ")
    return RateLimitedError(
        f"This API key may make {limit} {words}; the next one passes in {seconds:.1f} s.",
        limit_type=kind,
        limit=limit,
        reset_time=math.ceil(reset_at),
        retry_after_seconds=round(seconds, 3),
    )
