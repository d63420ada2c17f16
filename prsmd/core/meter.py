"""How much of a limit is left: counts by day and in all, a pace by the minute, some at once.

Counts are spent from blocks (blocks.py). Who waits for a replica keeps a place and spends nothing
meanwhile: a crash would make it forfeit. A meter decides in memory; it neither leases nor waits.
`now` is in seconds since the epoch, days are UTC.
"""

import dataclasses
import math

from prsmd.domain.quota import UsageLimits

from .blocks import NEVER, TOTAL, Window
from .gcra import Limited, full_at, give_back, kept_until, spend

DAY_SECONDS = 86_400
_FOREVER_SECONDS = 86_400  # what never comes back may still be raised by its owner: ask tomorrow


@dataclasses.dataclass(frozen=True, slots=True)
class Refuse:
    """A limit is reached: nothing was counted.

    `reset_time` is in epoch seconds; None: what was used does not come back.
    """

    limit_type: str
    limit: int
    reset_time: int | None
    retry_after_seconds: int


@dataclasses.dataclass(frozen=True, slots=True)
class Short:
    """No limit is reached, but a block has to be leased first: nothing was counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """What is left of one limit. `reset_time` is in epoch seconds; None: it does not come back."""

    limit_type: str
    limit: int
    remaining: int
    reset_time: int | None


SHORT = Short()


class Hold:
    """One request that was admitted, and what it was counted in. Ends once.

    While it waits for a replica it has places, and has spent nothing.
    """

    __slots__ = ("_meter", "_pace", "_waits", "windows")

    def __init__(self, meter: "Meter", windows: tuple[Window, ...], pace: int | None) -> None:
        self._meter: Meter | None = meter
        self.windows = windows
        self._pace = pace
        self._waits = False

    def wait(self) -> None:
        """It goes to wait: give back what it has spent, and keep its places."""
        if self._meter is None or self._waits:
            return
        self._waits = True
        self._meter.give_back(self.windows, None)
        for window in self.windows:
            window.keep_places(1)

    def go_on(self, now: float) -> "Refuse | Short | None":
        """It waits no more: spend, in what counts by now. Else say why not; it still waits then."""
        if self._meter is None or not self._waits:
            return None
        windows = self._meter.spend_place(now)
        if isinstance(windows, tuple):
            self._leave()
            self.windows = windows
            return None
        return windows

    def end(self, *, counts: bool) -> None:
        """The request ended. Where it does not count, what it took is given back."""
        meter, self._meter = self._meter, None
        if meter is None:
            return
        meter.under_way -= 1
        if self._waits:
            self._leave()
            self.windows = ()
        if not counts:
            meter.give_back(self.windows, self._pace)

    def _leave(self) -> None:
        self._waits = False
        for window in self.windows:
            window.keep_places(-1)


class Meter:
    """The counts of one borrower of a share, or of one key.

    `full_at` is when the pace is at its best again: what a crash forgot counts as spent. `due` says
    that there is something to be leased, or to be given back to the store. `stirred` is set by
    every request: whoever looks for meters that nobody uses clears it.
    """

    __slots__ = (
        "_day",
        "_day_begins",
        "_day_ends",
        "_former",
        "_kept",
        "_set",
        "_total",
        "account",
        "due",
        "limits",
        "stirred",
        "under_way",
        "windows",
    )

    def __init__(self, account: str, limits: UsageLimits, full_at: float = 0.0) -> None:
        self.account = account
        self.limits = limits
        self.due = False
        self.stirred = True
        self.under_way = 0
        self.windows: tuple[Window, ...] = ()
        self._kept = kept_until(full_at, limits.requests_per_minute or 1)
        self._day: Window | None = None
        self._former: Window | None = None
        self._set = False
        self._total: Window | None = None
        self._day_begins, self._day_ends = math.inf, -math.inf

    def __repr__(self) -> str:
        return f"<Meter {self.account}: {self.under_way} under way, {list(self.windows)}>"

    @property
    def full_at(self) -> float:
        """When the pace is at its best again, in epoch seconds."""
        return full_at(self._kept, self.limits.requests_per_minute or 1)

    def adopt(self, limits: UsageLimits) -> None:
        """Count against these limits from now on; what was used stays used."""
        before, after = self.limits.requests_per_minute or 1, limits.requests_per_minute or 1
        self._kept = -(-self._kept * after // before)
        self.limits = limits
        self.due = True
        self._day_ends = -math.inf

    def clock_set(self) -> None:
        """The clock was set, not only by moments: what is counted next is of the same real day."""
        self._set = True
        self._day_ends = -math.inf

    def view(self, limits: UsageLimits) -> "Meter":
        """Return how it would be in these limits, by what is known: to look at, not to count."""
        seen = Meter(self.account, limits, self.full_at)
        seen.under_way = self.under_way
        seen._total = _seen(self._total)
        seen._day = _seen(self._day)
        return seen

    def arranged(self, now: float) -> tuple[Window, ...]:
        """Return what is counted now."""
        if not self._day_begins <= now < self._day_ends:
            self._arrange(now)
        return self.windows

    def take(self, now: float) -> Hold | Refuse | Short:
        """Count one request in everything at once, or in nothing."""
        self.stirred = True
        if not self._day_begins <= now < self._day_ends:
            self._arrange(now)
        limits = self.limits
        most = limits.concurrent_requests
        if most is not None and self.under_way >= most:
            return Refuse("concurrent_requests", most, int(now) + 1, 1)
        for window in self.windows:
            if window.used >= window.open:
                return self._closed(now)
        pace = limits.requests_per_minute
        if pace is not None:
            verdict = spend(self._kept, pace, now)
            self._kept = verdict.kept
            if isinstance(verdict, Limited):
                retry = max(1, math.ceil(verdict.retry_at - now))
                return Refuse("requests_per_minute", pace, math.ceil(verdict.retry_at), retry)
        self._spend()
        self.under_way += 1
        return Hold(self, self.windows, pace)

    def spend_place(self, now: float) -> tuple[Window, ...] | Refuse | Short:
        """Spend for a request that has places already, in what counts by now; return where."""
        if not self._day_begins <= now < self._day_ends:
            self._arrange(now)
        for window in self.windows:
            if window.known and window.used >= window.allowed:
                return _refusal(window, now)
        if any(window.used >= window.reserved for window in self.windows):
            self.due = True
            return SHORT
        self._spend()
        return self.windows

    def give_back(self, windows: tuple[Window, ...], pace: int | None) -> None:
        """Let a request that was counted in these windows, at this pace, not have been."""
        for window in windows:
            window.used = max(0, window.used - 1)
            self.due = self.due or window.spare > 0
        if pace is not None and pace == self.limits.requests_per_minute:
            self._kept = give_back(self._kept)

    def idle(self, now: float) -> bool:
        """Tell whether nothing is under way, due, or to be remembered but by the store."""
        return not (self.under_way or self.due or self.stirred or self.full_at > now)

    def kept(self) -> list[Window]:
        """Return all that was read from the store, also of limits that are no more."""
        every = (self._total, self._day, self._former)
        return [each for each in every if each is not None and each.known]

    def tightest(self, now: float) -> Standing | None:
        """Return what is left of the limit that has least left; None: none counts requests."""
        counted = [one for one in self.standings(now) if one.limit_type != "concurrent_requests"]
        return min(counted, key=lambda one: one.remaining, default=None)

    def standings(self, now: float) -> list[Standing]:
        """Return what is left of each limit, of those that are known."""
        found = [_standing(window) for window in self.arranged(now) if window.known]
        pace, most = self.limits.requests_per_minute, self.limits.concurrent_requests
        if pace is not None:
            verdict = spend(self._kept, pace, now)
            left = 0 if isinstance(verdict, Limited) else verdict.remaining + 1
            reset = math.ceil(max(self.full_at, now))
            found.append(Standing("requests_per_minute", pace, left, reset))
        if most is not None:
            left = max(0, most - self.under_way)
            found.append(Standing("concurrent_requests", most, left, None))
        return found

    def _arrange(self, now: float) -> None:
        """Begin the day, or count against other limits. The day is what the clock says.

        A day that was counted before goes on where it was. What was spent while the clock was
        wrong counts in the day that it is now.
        """
        day = int(now // DAY_SECONDS)
        self._day_begins, self._day_ends = day * DAY_SECONDS, (day + 1) * DAY_SECONDS
        self._total = _kept_on(self._total, TOTAL, self.limits.total_requests)
        self._day = self._on_day(day)
        self._set = False
        self.windows = tuple(
            window
            for window, limit in (
                (self._total, self.limits.total_requests),
                (self._day, self.limits.requests_per_day),
            )
            if window is not None and limit is not None
        )

    def _on_day(self, day: int) -> Window | None:
        before, limit = self._day, self.limits.requests_per_day
        if before is None or before.day == day:
            return _kept_on(before, day, limit)
        window = _kept_on(self._former, day, limit)
        if window is not None and (self._set or day < before.day):
            window.carry(before.used + before.places + before.carried)
            if self._set and day < before.day:
                before.void()  # its day is yet to come, and what it had is counted in this one
        self._former = before
        return window

    def _spend(self) -> None:
        for window in self.windows:
            window.used += 1
            if window.used >= window.mark:
                window.mark = NEVER
                self.due = True

    def _closed(self, now: float) -> Refuse | Short:
        for window in self.windows:
            if window.exhausted:
                return _refusal(window, now)
        self.due = True
        return SHORT


def reset_of(day: int) -> int | None:
    """Return when what was counted on this day counts no more, in epoch seconds; None: never."""
    return None if day == TOTAL else (day + 1) * DAY_SECONDS


def _kept_on(window: Window | None, day: int, limit: int | None) -> Window | None:
    if window is None or window.day != day:
        return None if limit is None else Window(day, limit)
    if limit is not None:
        window.allow(limit)
    return window


def _seen(window: Window | None) -> Window | None:
    """Return a copy of which all is spent that is spent or promised; None of one not known."""
    if window is None or not window.known:
        return None
    seen = Window(window.day, window.limit)
    seen.learn(window.used + window.places, window.used + window.places)
    seen.carried = window.carried
    return seen


def _type(day: int) -> str:
    return "total_requests" if day == TOTAL else "requests_per_day"


def _refusal(window: Window, now: float) -> Refuse:
    reset = reset_of(window.day)
    retry = _FOREVER_SECONDS if reset is None else max(1, math.ceil(reset - now))
    return Refuse(_type(window.day), window.limit, reset, retry)


def _standing(window: Window) -> Standing:
    return Standing(_type(window.day), window.limit, window.left, reset_of(window.day))
