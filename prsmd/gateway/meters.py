"""The meters of all borrowers and keys that are under a limit, and who waits for a block.

Taking one is decided at once while a block has units; only at a block's end does a request wait.
Leasing itself is another's: it collects what is due and says when the store has answered.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping

from prsmd.core.meter import Hold, Meter, Refuse, Short
from prsmd.domain.errors import PrsmdError, ResourceUnavailableError
from prsmd.domain.quota import UsageLimits

_MINUTE_SECONDS = 60.0


class Held:
    """A request that was admitted under a limit. `end` it once; further calls do nothing."""

    __slots__ = ("_hold", "_meters", "meter")

    def __init__(self, meters: "Meters", meter: Meter, hold: Hold) -> None:
        self.meter = meter
        self._meters = meters
        self._hold = hold

    def end(self, *, counts: bool) -> None:
        """The request ended. Where it does not count, what it took is given back."""
        self._hold.end(counts=counts)
        if self.meter.due:
            self._meters.lease(self.meter)


class _Arrival:
    """The next answer of the store to what one meter wants."""

    __slots__ = ("error", "event")

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.error: PrsmdError | None = None


class Meters:
    """All meters by account. `clock` gives seconds since the epoch.

    `paces` are when limits per minute are full again, as a clean stop left them; None: after a
    crash nobody knows, and all of those that were there counts as spent. A request waits for a
    block no longer than `patience_seconds`.
    """

    def __init__(
        self,
        paces: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.time,
        patience_seconds: float = 5.0,
    ) -> None:
        self.wanted = asyncio.Event()
        self._clock = clock
        self._patience = patience_seconds
        self._paces = paces or {}
        self._crashed_before = clock() if paces is None else -math.inf
        self._meters: dict[str, Meter] = {}
        self._due: dict[str, Meter] = {}
        self._arrivals: dict[str, _Arrival] = {}

    def __len__(self) -> int:
        return len(self._meters)

    def meter(self, account: str, limits: UsageLimits, since: float) -> Meter:
        """Return the meter of an account, counting against these limits from now on.

        `since` is when there was first something to count.
        """
        meter = self._meters.get(account)
        if meter is None:
            spent_by = self._crashed_before if since < self._crashed_before else -math.inf
            full_at = self._paces.get(account, max(0.0, spent_by + _MINUTE_SECONDS))
            meter = self._meters[account] = Meter(account, limits, full_at)
        elif meter.limits is not limits:
            meter.adopt(limits)
        return meter

    def known(self, account: str) -> Meter | None:
        """Return the meter of an account that was used since the start, or None."""
        return self._meters.get(account)

    def take(self, meter: Meter, now: float) -> Held | Refuse | Short:
        """Count a request, or say why not. What is `Short` can be waited for."""
        verdict = meter.take(now)
        if meter.due:
            self.lease(meter)
        return Held(self, meter, verdict) if isinstance(verdict, Hold) else verdict

    async def wait(self, meter: Meter) -> Held | Refuse:
        """Count a request as soon as a block was leased, or say why not.

        Raises:
            ResourceUnavailableError: the store did not set a block aside, or not in time.
        """
        try:
            async with asyncio.timeout(self._patience):
                while isinstance(verdict := self.take(meter, self._clock()), Short):
                    arrival = self._arrivals.setdefault(meter.account, _Arrival())
                    await arrival.event.wait()
                    if arrival.error is not None:
                        raise _unavailable(arrival.error.message)
        except TimeoutError:
            raise _unavailable(f"the store did not answer within {self._patience:g} s") from None
        return verdict

    def lease(self, meter: Meter) -> None:
        """Have the store asked for what a meter wants."""
        self._due[meter.account] = meter
        self.wanted.set()

    def collect(self) -> list[Meter]:
        """Return the meters that want something of the store; each is to be answered."""
        due, self._due = self._due, {}
        self.wanted.clear()
        for meter in due.values():
            meter.due = False
        return list(due.values())

    def answered(self, meters: Collection[Meter], error: PrsmdError | None = None) -> None:
        """Let those go on who wait for these meters: the store has answered, or failed."""
        for meter in meters:
            arrival = self._arrivals.pop(meter.account, None)
            if arrival is not None:
                arrival.error = error
                arrival.event.set()

    def forget(self, share_id: str) -> None:
        """Drop the meters of a share that is no more."""
        for account in [each for each in self._meters if each.startswith(f"{share_id}/")]:
            del self._meters[account]

    def used(self) -> list[tuple[str, int, int]]:
        """Return what was used: account, day and how many, of all that is known."""
        return [
            (meter.account, window.day, window.used)
            for meter in self._meters.values()
            for window in meter.kept()
        ]

    def paces(self) -> dict[str, float]:
        """Return when limits per minute are full again, of those that are not full now."""
        now = self._clock()
        left = {account: at for account, at in self._paces.items() if at > now}
        for account, meter in self._meters.items():
            left.pop(account, None)
            if meter.limits.requests_per_minute is not None and meter.full_at > now:
                left[account] = meter.full_at
        return left


def _unavailable(why: str) -> ResourceUnavailableError:
    return ResourceUnavailableError(
        f"What is left of a limit cannot be checked: {why}",
        resource_type="quota",
        retry_after_seconds=1,
    )
