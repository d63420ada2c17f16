"""Measures how late the event loop runs, and remembers when the daemon could not look.

A wake-up is scheduled at a fixed interval, and how late it comes is how long the loop did not run:
a callback held it up, or the process was stopped, or the machine gave it no time. What it remembers
answers whether a missed deadline says anything (`core/stalls.py`). Holds nothing against anyone.
"""

import asyncio
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

from prsmd.core.stalls import (
    ANY,
    FAIR_PART,
    LEAST_SECONDS,
    OWN,
    Stall,
    StallKind,
    Unknown,
    judge_deadline,
)

log = logging.getLogger(__name__)
_INTERVAL_SECONDS = 0.05
_SHORT_SECONDS = 0.2  # shorter ones that follow each other closely are remembered as one
_CLOSE_SECONDS = 1.0
_LONGEST_STRETCH_SECONDS = 10.0
_REMEMBERED = 1024
_CLOCK_STEP_SECONDS = 1.0  # smaller ones are how a clock is kept right
_TOLD_SECONDS = 0.25
_TELL_EVERY_SECONDS = 10.0
_PATIENT_SECONDS = 0.5  # a look at the engine that takes longer counts as one that hangs
_WORST_WINDOW_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Lag:
    """What a scrape shows: the worst lag of the last minute, and the seconds lost, by kind."""

    worst_seconds: float
    lost_seconds: Mapping[StallKind, float]


class LoopLag:
    """The stalls of this process, of its machine, and of the engine as the observer saw it.

    `clock` gives seconds since the epoch, `monotonic` and `boot_time` seconds since some moment;
    only the last goes on while the machine is suspended. `on_clock_set` is called when the
    wall clock moved against the monotonic one, ahead or back.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        boot_time: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self.on_clock_set: list[Callable[[], None]] = []
        self._clock = clock
        self._monotonic = monotonic
        self._boot_time = boot_time
        self._stalls: deque[Stall] = deque(maxlen=_REMEMBERED)
        self._lost = dict.fromkeys(StallKind, 0.0)
        self._worst: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._due: float | None = None
        self._offset = self._skew = 0.0
        self._looking_since: float | None = None
        self._silent_since: float | None = None
        self._untold: list[float] = []
        self._told_at = -_TELL_EVERY_SECONDS

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        handle: asyncio.TimerHandle | None = None

        def wake() -> None:
            nonlocal handle
            self.tick()
            handle = loop.call_later(_INTERVAL_SECONDS, wake)

        self._begin()
        handle = loop.call_later(_INTERVAL_SECONDS, wake)
        try:
            await loop.create_future()
        finally:
            handle.cancel()
            self._due = None

    def now(self) -> float:
        """Return monotonic seconds, from which `unknown` judges."""
        return self._monotonic()

    def stalls(self) -> tuple[Stall, ...]:
        """Return what is remembered, and what goes on now."""
        now = self._monotonic()
        going_on = [self._lateness(now), self._engine_silence(now), self._skipped_time(now)]
        return (*self._stalls, *(stall for stall in going_on if stall is not None))

    def unknown(
        self, began: float, kinds: frozenset[StallKind] = ANY, part: float = FAIR_PART
    ) -> Unknown | None:
        """Return why what was not heard since `began` says nothing about who was asked."""
        return judge_deadline(self.stalls(), began, self._monotonic(), kinds, part)

    def on_time_since(self, began: float) -> float:
        """Return the seconds since then in which the loop ran on time."""
        passed = self._monotonic() - began
        own = [stall for stall in self.stalls() if stall.kind in OWN]
        lost = sum(stall.lost_within(began, began + passed) for stall in own)
        return max(0.0, passed - lost)

    def lag(self) -> Lag:
        """Return what a scrape shows."""
        since = self._monotonic() - _WORST_WINDOW_SECONDS
        worst = max((late for at, late in self._worst if at >= since), default=0.0)
        return Lag(worst, dict(self._lost))

    def tick(self) -> None:
        """Note how late this wake-up is, and what the clocks did since the last one."""
        now = self._monotonic()
        late = self._lateness(now)
        if late is not None:
            self._remember(late)
            self._worst.append((now, late.lost))
        skipped = self._skipped_time(now)
        if skipped is not None:
            self._remember(skipped)
            how = (
                "machine was suspended" if skipped.kind is StallKind.SUSPENDED else "clock was set"
            )
            log.warning("%.3g s passed at once: the %s; no deadline counts them", skipped.lost, how)
        self._tell(now)
        moved = self._due is not None and abs(self._ahead()) > _CLOCK_STEP_SECONDS
        self._begin()
        if moved:
            for tell in self.on_clock_set:
                tell()

    def look_began(self) -> None:
        """Note that the engine is being asked what runs."""
        self._looking_since = self._monotonic()

    def look_ended(self, *, answered: bool | None) -> None:
        """Note whether the engine answered (None: unknown).

        It counts as silent from its first look in vain until it answers.
        """
        now, began = self._monotonic(), self._looking_since
        self._looking_since = None
        if answered is None:
            return
        if not answered:
            self._silent_since = began if self._silent_since is None else self._silent_since
            return
        since, self._silent_since = self._silent_since or began, None
        if since is not None and now - since > _PATIENT_SECONDS:
            self._remember(self._stall(StallKind.ENGINE, since, now))

    def _begin(self) -> None:
        self._due = self._monotonic() + _INTERVAL_SECONDS
        self._offset, self._skew = self._offsets()

    def _offsets(self) -> tuple[float, float]:
        """Return how far the wall clock is ahead of both others, and boot time of monotonic."""
        monotonic = self._monotonic()
        return self._clock() - monotonic, self._boot_time() - monotonic

    def _ahead(self) -> float:
        """Return how far the wall clock went since the last wake-up beyond the monotonic one."""
        return self._offsets()[0] - self._offset

    def _lateness(self, now: float) -> Stall | None:
        if self._due is None or now - self._due < LEAST_SECONDS:
            return None
        return self._stall(StallKind.LOOP, self._due, now)

    def _engine_silence(self, now: float) -> Stall | None:
        since = self._looking_since if self._silent_since is None else self._silent_since
        if since is None or now - since <= _PATIENT_SECONDS:
            return None
        return self._stall(StallKind.ENGINE, since, now)

    def _stall(self, kind: StallKind, began: float, ended: float) -> Stall:
        return Stall(kind=kind, began=began, ended=ended, lost=ended - began, at=self._clock())

    def _skipped_time(self, now: float) -> Stall | None:
        """Return the time since the last wake-up that passed on the wall clock alone."""
        if self._due is None:
            return None
        offset, skew = self._offsets()
        ahead, suspended = offset - self._offset, skew - self._skew
        if ahead <= _CLOCK_STEP_SECONDS:
            return None
        kind = StallKind.SUSPENDED if suspended > ahead / 2 else StallKind.CLOCK
        return Stall(kind=kind, began=now, ended=now, lost=ahead, at=self._clock())

    def _remember(self, stall: Stall) -> None:
        self._lost[stall.kind] += stall.lost
        if stall.kind is StallKind.LOOP and stall.lost >= _TOLD_SECONDS:
            self._untold.append(stall.lost)
        last = self._stalls[-1] if self._stalls else None
        if last is not None and _belong_together(last, stall):
            lost = last.lost + stall.lost
            self._stalls[-1] = dataclasses.replace(stall, began=last.began, lost=lost)
        else:
            self._stalls.append(stall)

    def _tell(self, now: float) -> None:
        """Log the stalls that nobody was told of yet, one line in ten seconds at most."""
        if not self._untold or now - self._told_at < _TELL_EVERY_SECONDS:
            return
        more = f" ({len(self._untold)} times, {sum(self._untold):.3g} s in all)"
        log.warning(
            "the event loop stood still for %.3g s%s; deadlines missed meanwhile are not held"
            " against any model",
            max(self._untold),
            more if len(self._untold) > 1 else "",
        )
        self._untold.clear()
        self._told_at = now


def _belong_together(last: Stall, stall: Stall) -> bool:
    """Tell whether two stalls are one stretch of a loop that runs a little late all the time."""
    if not (stall.kind is last.kind is StallKind.LOOP) or stall.lost >= _SHORT_SECONDS:
        return False
    close = stall.began - last.ended < _CLOSE_SECONDS
    small = last.lost < max(_SHORT_SECONDS, (last.ended - last.began) / 2)  # of many short ones
    return close and small and stall.ended - last.began < _LONGEST_STRETCH_SECONDS
