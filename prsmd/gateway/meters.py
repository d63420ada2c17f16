"""The meters of all borrowers and keys that are under a limit, and who waits for a block.

Taking one is decided at once while a block has units; only at a block's end does a request wait.
Leasing itself is another's: it collects what is due and says when the store has answered. A meter
that nobody uses is put away: then the store alone knows what was used.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from prsmd.core.clock_steps import ClockSteps
from prsmd.core.meter import Hold, Meter, Refuse, Short, Standing
from prsmd.domain.errors import PrsmdError, ResourceUnavailableError, StorageFullError
from prsmd.domain.quota import UsageLimits

T = TypeVar("T")
_MINUTE_SECONDS = 60.0


Words = Callable[[Refuse], PrsmdError]
"""How who asks is told that a limit is reached."""


class Held:
    """A request that was admitted under a limit. `end` it once; further calls do nothing."""

    __slots__ = ("_hold", "_meters", "_words", "meter")

    def __init__(self, meters: "Meters", meter: Meter, hold: Hold, words: Words) -> None:
        self.meter = meter
        self._meters = meters
        self._hold = hold
        self._words = words

    def wait(self) -> None:
        """The request waits for a replica, and spends nothing meanwhile."""
        self._hold.wait()
        self._tell()

    async def go_on(self) -> None:
        """A replica is there for it: spend, as `Meters.admit` does.

        Nothing is refused here but what a limit that was changed meanwhile, or a new day, does not
        allow.
        """
        await self._meters.go_on(self.meter, self._hold, self._words)

    def end(self, *, counts: bool) -> None:
        """The request ended. Where it does not count, what it took is given back."""
        self._hold.end(counts=counts)
        self._tell()

    def _tell(self) -> None:
        if self.meter.due:
            self._meters.lease(self.meter)


def tightest(held: Iterable[Held], now: float) -> Standing | None:
    """Return what is left of whichever limit has least left; None: none counts requests."""
    left = [one for each in held if (one := each.meter.tightest(now)) is not None]
    return min(left, key=lambda one: one.remaining, default=None)


class _Arrival:
    """The next answer of the store to what one meter wants."""

    __slots__ = ("error", "event")

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.error: PrsmdError | None = None


def steady_seconds() -> float:
    """Return seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Meters:
    """All meters by account. `clock` gives seconds since the epoch.

    `paces` are when limits per minute are full again, as a clean stop left them; None: after a
    crash nobody knows, and all of every minute counts as spent. A request waits for a block no
    longer than `patience_seconds`. `steady` gives seconds of a clock that nobody
    sets; None: the machine's, or a `clock` that was given.
    """

    def __init__(
        self,
        paces: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.time,
        patience_seconds: float = 5.0,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self.wanted = asyncio.Event()
        self._wall = clock
        self._steady = steady or (steady_seconds if clock is time.time else clock)
        self.steps = ClockSteps(clock(), self._steady())
        self._patience = patience_seconds
        self._paces = dict(paces or {})
        self._spent_until = clock() + _MINUTE_SECONDS if paces is None else 0.0
        self._meters: dict[str, Meter] = {}
        self._due: dict[str, Meter] = {}
        self._arrivals: dict[str, _Arrival] = {}

    def __len__(self) -> int:
        return len(self._meters)

    def _clock(self) -> float:
        """Return the time by now; where the clock was set, have every meter know."""
        now = self._wall()
        if self.steps.was_set(now, self._steady()):
            for meter in self._meters.values():
                meter.clock_set()
        return now

    def steady_for(self) -> float:
        """Return for how many seconds the clock has not been set."""
        self._clock()
        return self._steady() - self.steps.steady_since

    def meter(self, account: str, limits: UsageLimits) -> Meter:
        """Return the meter of an account, counting against these limits from now on."""
        meter = self._meters.get(account)
        if meter is None:
            full_at = self._paces.pop(account, self._spent_until)
            meter = self._meters[account] = Meter(account, limits, full_at)
        elif meter.limits is not limits and meter.limits != limits:
            meter.adopt(limits)
        return meter

    def view(self, account: str, limits: UsageLimits) -> Meter:
        """Return what the meter of an account would be in these limits: to look at, not to count.

        Windows that are not known are in the store only.
        """
        meter = self._meters.get(account)
        if meter is None:
            return Meter(account, limits, self._paces.get(account, self._spent_until))
        return meter.view(limits)

    async def admit(self, account: str, limits: UsageLimits, words: Words) -> Held:
        """Count a request in these limits of an account, after a block was leased if need be.

        Raises:
            PrsmdError: a limit is reached, in these words; nothing was counted.
            ResourceUnavailableError: the store did not set a block aside, or not in time.
        """
        meter = self.meter(account, limits)
        verdict = meter.take(self._clock())
        if meter.due:
            self.lease(meter)
        if isinstance(verdict, Short):
            verdict = await self._wait(meter, meter.take)
        if isinstance(verdict, Refuse):
            raise words(verdict)
        return Held(self, meter, verdict, words)

    async def go_on(self, meter: Meter, hold: Hold, words: Words) -> None:
        """Count a request that waited for a replica, and has its place. Raises as `admit` does."""
        verdict = hold.go_on(self._clock())
        if meter.due:
            self.lease(meter)
        if isinstance(verdict, Short):
            verdict = await self._wait(meter, hold.go_on)
        if isinstance(verdict, Refuse):
            raise words(verdict)

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

    def idle(self) -> list[Meter]:
        """Return the meters that nobody has used since this was last asked."""
        now = self._clock()
        self._paces = {account: at for account, at in self._paces.items() if at > now}
        found = [meter for meter in self._meters.values() if meter.idle(now)]
        for meter in self._meters.values():
            meter.stirred = False
        return found

    def put_away(self, meters: Iterable[Meter]) -> None:
        """Forget these meters, as the store has them; not those that were used meanwhile."""
        now = self._clock()
        for meter in meters:
            if meter.idle(now) and not any(window.ahead for window in meter.kept()):
                self._meters.pop(meter.account, None)

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

    async def _wait(
        self, meter: Meter, attempt: Callable[[float], T | Refuse | Short]
    ) -> T | Refuse:
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    arrival = self._arrivals.setdefault(meter.account, _Arrival())
                    await arrival.event.wait()
                    if arrival.error is not None:
                        raise _used_up(arrival.error)
                    verdict = attempt(self._clock())
                    if meter.due:
                        self.lease(meter)
                    if not isinstance(verdict, Short):
                        return verdict
        except TimeoutError:
            raise _unavailable(f"the store did not answer within {self._patience:g} s") from None


def _used_up(error: PrsmdError) -> ResourceUnavailableError:
    if not isinstance(error, StorageFullError):
        return _unavailable(error.message)
    return _unavailable(
        "what was set aside of it is used up, and the disk that keeps the state takes no more"
        f" ({error.message}) It goes on when there is room"
    )


def _unavailable(why: str) -> ResourceUnavailableError:
    return ResourceUnavailableError(
        f"What is left of a limit cannot be checked: {why}",
        resource_type="quota",
        retry_after_seconds=1,
    )
