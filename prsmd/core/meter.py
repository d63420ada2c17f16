"""How much of a limit is left: counts by day and in all, a pace by the minute, some at once.

Counts are spent from blocks that the store has set aside before: what is set aside counts as spent
for whoever reads the store after a crash, so that a limit is never exceeded and a crash costs at
most the one block. A meter decides in memory; it neither leases nor waits. `now` is in seconds
since the epoch, days are UTC.
"""

import dataclasses
import math

from prsmd.domain.quota import UsageLimits

from .gcra import Limited, full_at, give_back, kept_until, spend

TOTAL = -1  # the "day" of what is counted for good
LARGEST_BLOCK = 64
DAY_SECONDS = 86_400
_PARTS = 16  # a block is this part of what is left
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


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """What a window wants of the store: `spare` are given back, and a block is to be set aside.

    `ahead` are set aside already and not spent.
    """

    account: str
    day: int
    limit: int
    ahead: int
    spare: int


SHORT = Short()
_NEVER = 1 << 62


class Window:
    """What is counted of one limit in one day, or in all.

    `reserved` is what the store has set aside in all, `used` how much of that is spent. `used` may
    go up to `open`; when it comes to `mark`, the next block is due. What is `known` was read from
    the store.
    """

    __slots__ = ("day", "known", "limit", "mark", "open", "reserved", "used")

    def __init__(self, day: int, limit: int) -> None:
        self.day = day
        self.limit = limit
        self.reserved = self.used = self.open = 0
        self.mark = _NEVER
        self.known = False

    def __repr__(self) -> str:
        name = "total" if self.day == TOTAL else f"day {self.day}"
        return f"<Window {name}: {self.used} of {self.reserved} reserved, {self.limit} allowed>"

    @property
    def ahead(self) -> int:
        """How many are set aside and not spent."""
        return self.reserved - self.used

    @property
    def spare(self) -> int:
        """How many more than a block are set aside."""
        return max(0, self.ahead - block(self.limit - self.used))

    @property
    def exhausted(self) -> bool:
        """True when the limit itself is reached, not only the block."""
        return self.known and self.used >= self.limit

    def allow(self, limit: int) -> None:
        """Count against this limit from now on."""
        self.limit = limit
        self._open_up()

    def ask(self, account: str) -> Ask:
        """Return what to ask the store for. What it may have back is not spent from now on."""
        spare = self.spare if self.known else 0
        self.reserved -= spare
        self._open_up()
        return Ask(account, self.day, self.limit, self.ahead, spare)

    def learn(self, before: int, after: int) -> None:
        """Take over what the store has set aside: `before` a block was added, and `after` it.

        What it had set aside and nobody here remembers was lost to a crash, and counts as spent.
        """
        self.used += max(0, before - self.reserved)
        self.reserved = after
        self.known = True
        self._open_up()

    def _open_up(self) -> None:
        self.open = min(self.reserved, self.limit)
        size = block(self.limit - self.used)
        ends = self.reserved >= self.limit or size == 1  # near the limit nothing is leased ahead
        self.mark = _NEVER if ends else self.open - size // 2


class Hold:
    """One request that was admitted, and what it was counted in. Ends once."""

    __slots__ = ("_meter", "_pace", "windows")

    def __init__(self, meter: "Meter", windows: tuple[Window, ...], pace: int | None) -> None:
        self._meter: Meter | None = meter
        self.windows = windows
        self._pace = pace

    @property
    def meter(self) -> "Meter | None":
        """The meter, until the request ended."""
        return self._meter

    def end(self, *, counts: bool) -> None:
        """The request ended. Where it does not count, what it took is given back."""
        meter, self._meter = self._meter, None
        if meter is None:
            return
        meter.under_way -= 1
        if not counts:
            meter.give_back(self.windows, self._pace)


class Meter:
    """The counts of one borrower of a share, or of one key.

    `full_at` is when the pace is at its best again: what a crash forgot counts as spent. `due` says
    that there is something to be leased, or to be given back to the store.
    """

    __slots__ = (
        "_day",
        "_day_ends",
        "_kept",
        "_total",
        "account",
        "due",
        "limits",
        "under_way",
        "windows",
    )

    def __init__(self, account: str, limits: UsageLimits, full_at: float = 0.0) -> None:
        self.account = account
        self.limits = limits
        self.due = False
        self.under_way = 0
        self.windows: tuple[Window, ...] = ()
        self._kept = kept_until(full_at, limits.requests_per_minute or 1)
        self._day: Window | None = None
        self._total: Window | None = None
        self._day_ends = -math.inf

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

    def take(self, now: float) -> Hold | Refuse | Short:
        """Count one request in everything at once, or in nothing."""
        if now >= self._day_ends:
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
            if isinstance(verdict, Limited):
                retry = max(1, math.ceil(verdict.retry_at - now))
                return Refuse("requests_per_minute", pace, math.ceil(verdict.retry_at), retry)
            self._kept = verdict.kept
        for window in self.windows:
            window.used += 1
            if window.used >= window.mark:
                window.mark = _NEVER
                self.due = True
        self.under_way += 1
        return Hold(self, self.windows, pace)

    def give_back(self, windows: tuple[Window, ...], pace: int | None) -> None:
        """Let a request that was counted in these windows, at this pace, not have been."""
        for window in windows:
            window.used -= 1
            self.due = self.due or window.spare > 0
        if pace is not None and pace == self.limits.requests_per_minute:
            self._kept = give_back(self._kept)

    def kept(self) -> list[Window]:
        """Return all that was read from the store, also of limits that are no more."""
        return [each for each in (self._total, self._day) if each is not None and each.known]

    def tightest(self, now: float) -> Standing | None:
        """Return what is left of the limit that has least left; None: none counts requests."""
        counted = [one for one in self.standings(now) if one.limit_type != "concurrent_requests"]
        return min(counted, key=lambda one: one.remaining, default=None)

    def standings(self, now: float) -> list[Standing]:
        """Return what is left of each limit, of those that are known."""
        if now >= self._day_ends:
            self._arrange(now)
        found = [_standing(window) for window in self.windows if window.known]
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
        """Begin the day, or count against other limits. A clock that goes back begins nothing."""
        day = int(now // DAY_SECONDS)
        if self._day is not None:
            day = max(day, self._day.day)
        self._day_ends = (day + 1) * DAY_SECONDS
        self._total = _kept_on(self._total, TOTAL, self.limits.total_requests)
        self._day = _kept_on(self._day, day, self.limits.requests_per_day)
        self.windows = tuple(
            window
            for window, limit in (
                (self._total, self.limits.total_requests),
                (self._day, self.limits.requests_per_day),
            )
            if window is not None and limit is not None
        )

    def _closed(self, now: float) -> Refuse | Short:
        for window in self.windows:
            if window.exhausted:
                return _refusal(window, now)
        self.due = True
        return SHORT


def block(left: int) -> int:
    """Return how many of `left` are set aside at once: a part of them, and near the end one."""
    return min(LARGEST_BLOCK, max(1, left // _PARTS)) if left > 0 else 0


def lease(ask: Ask, stored: int) -> tuple[int, int]:
    """Decide what the store, which has `stored` set aside, sets aside from now on.

    Return it without and with the new block.
    """
    before = max(0, stored - ask.spare)
    left = ask.limit - before
    return before, before + max(0, min(block(left + ask.ahead) - ask.ahead, left))


def reset_of(day: int) -> int | None:
    """Return when what was counted on this day counts no more, in epoch seconds; None: never."""
    return None if day == TOTAL else (day + 1) * DAY_SECONDS


def _kept_on(window: Window | None, day: int, limit: int | None) -> Window | None:
    if window is None or window.day != day:
        return None if limit is None else Window(day, limit)
    if limit is not None:
        window.allow(limit)
    return window


def _type(day: int) -> str:
    return "total_requests" if day == TOTAL else "requests_per_day"


def _refusal(window: Window, now: float) -> Refuse:
    reset = reset_of(window.day)
    retry = _FOREVER_SECONDS if reset is None else max(1, math.ceil(reset - now))
    return Refuse(_type(window.day), window.limit, reset, retry)


def _standing(window: Window) -> Standing:
    left = max(0, window.limit - window.used)
    return Standing(_type(window.day), window.limit, left, reset_of(window.day))
