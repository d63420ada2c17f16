"""No interleaving of requests, leases, crashes and changed limits lets one request too many."""

import itertools
import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prsmd.core.blocks import TOTAL, Ask, Window, block, lease
from prsmd.core.meter import DAY_SECONDS, Hold, Meter
from prsmd.domain.quota import UsageLimits

START = 20_000 * DAY_SECONDS + DAY_SECONDS // 2
AMOUNTS = st.one_of(st.none(), st.integers(1, 40), st.integers(1, 3000))
LIMITS = st.builds(
    UsageLimits,
    requests_per_day=AMOUNTS,
    total_requests=AMOUNTS,
    requests_per_minute=st.one_of(st.none(), st.integers(1, 500)),
    concurrent_requests=st.one_of(st.none(), st.integers(1, 30)),
)


class Shares(RuleBasedStateMachine):
    """One borrower of one share, its store, and what really reached the model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = float(START)
        self.store: dict[int, int] = {}
        self.limits = UsageLimits(requests_per_day=40, total_requests=100)
        self.meter = Meter("share", self.limits)
        self.under_way: list[Hold] = []
        self.waiting: list[Hold] = []
        self.counted: dict[int, int] = {}  # admitted and not given back, by day and in all
        self.total_since = 0  # what was counted while a total was limited
        self.underway_leases: list[tuple[Window, Ask]] = []
        self.budget = 0  # what crashes and lost answers may have forfeited
        self.given_back = 0

    @rule(times=st.integers(1, 80))
    def requests_come(self, times: int) -> None:
        for _ in range(times):
            verdict = self.meter.take(self.now)
            if not isinstance(verdict, Hold):
                return
            day = self.day
            for name, limit in (
                (TOTAL, self.limits.total_requests),
                (day, self.limits.requests_per_day),
            ):
                if limit is not None:
                    before = self.counted.get(name, 0)
                    places = sum(w.day == name for hold in self.waiting for w in hold.windows)
                    assert before + places < limit, f"{before} and {places} of {limit}, one more"
                    self.counted[name] = before + 1
            most = self.limits.concurrent_requests
            assert most is None or len(self.under_way) + len(self.waiting) < most
            self.under_way.append(verdict)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), counts=st.booleans())
    def one_ends(self, data: st.DataObject, counts: bool) -> None:
        place = data.draw(st.integers(0, len(self.under_way) - 1))
        hold = self.under_way.pop(place)
        windows = hold.windows
        hold.end(counts=counts)
        if not counts:
            for window in windows:
                self.counted[window.day] -= 1

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def one_waits_for_a_replica(self, data: st.DataObject) -> None:
        hold = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        hold.wait()
        for window in hold.windows:
            self.counted[window.day] -= 1
        self.waiting.append(hold)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), times=st.integers(1, 20))
    def some_go_on(self, data: st.DataObject, times: int) -> None:
        for _ in range(min(times, len(self.waiting))):
            place = data.draw(st.integers(0, len(self.waiting) - 1))
            hold = self.waiting[place]
            if hold.go_on(self.now) is not None:
                return
            self.under_way.append(self.waiting.pop(place))
            for window in hold.windows:
                before = self.counted.get(window.day, 0)
                assert before < window.limit
                self.counted[window.day] = before + 1

    @precondition(lambda self: self.waiting)
    @rule()
    def one_goes_away_while_it_waits(self) -> None:
        self.waiting.pop().end(counts=False)

    @precondition(lambda self: not (self.under_way or self.waiting or self.underway_leases))
    @rule()
    def the_meter_is_put_away(self) -> None:
        for window in self.meter.kept():
            ask = window.ask("share", closing=True)
            before, self.store[ask.day] = lease(ask, self.store.get(ask.day, 0))
            window.learn(before, self.store[ask.day])
            assert window.ahead == 0
        self.meter = Meter("share", self.limits)

    @rule()
    def a_lease_is_asked_for(self) -> None:
        if not self.underway_leases:
            self.meter.due = False
            for window in self.meter.windows:
                self.underway_leases.append((window, window.ask("share")))

    @rule(heard=st.booleans())
    def the_store_answers(self, heard: bool) -> None:
        for window, ask in self.underway_leases:
            before, after = lease(ask, self.store.get(ask.day, 0))
            self.store[ask.day] = after
            if heard:
                window.learn(before, after)
        self.underway_leases = []

    @rule(committed=st.booleans())
    def the_daemon_is_killed(self, committed: bool) -> None:
        if committed:
            self.the_store_answers(heard=False)
        self._start_again()

    @rule()
    def the_daemon_stops_well(self) -> None:
        self.the_store_answers(heard=True)
        for window in self.meter.kept():
            self.store[window.day] = window.used
        self._start_again()

    @rule(seconds=st.sampled_from([0.5, 30, 3600, DAY_SECONDS, -10, -DAY_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(limits=LIMITS)
    def the_owner_changes_the_limits(self, limits: UsageLimits) -> None:
        self.limits = limits
        self.meter.adopt(limits)

    @invariant()
    def nothing_is_spent_that_the_store_has_not_set_aside(self) -> None:
        for window in self.meter.kept():
            assert window.used <= window.reserved <= self.store[window.day]

    @invariant()
    def the_store_knows_of_all_that_was_let_through(self) -> None:
        for day, count in self.counted.items():
            assert count <= self.store.get(day, 0)

    @property
    def day(self) -> int:
        """The day that a request counts in: the clock may have gone back."""
        found = [window.day for window in self.meter.windows if window.day != TOTAL]
        return found[0] if found else math.floor(self.now // DAY_SECONDS)

    def _start_again(self) -> None:
        self.underway_leases = []
        self.under_way = []
        self.waiting = []
        self.meter = Meter("share", self.limits, full_at=self.now + 60)


Shares.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestShares = Shares.TestCase


def test_a_crash_at_any_moment_forfeits_at_most_a_block():
    for limit, spent in itertools.product((1, 5, 40, 1000, 5000), (0, 1, 3, 31, 32, 33, 800)):
        store: dict[int, int] = {}
        meter = Meter("share", UsageLimits(total_requests=limit))
        done = 0
        for _ in range(spent):
            if not isinstance(meter.take(START), Hold):
                _lease(meter, store)
                if not isinstance(meter.take(START), Hold):
                    break
            done += 1
            if meter.due:
                _lease(meter, store)
        assert 0 <= store.get(TOTAL, 0) - done <= max(1, block(limit - done))


def _lease(meter: Meter, store: dict[int, int]) -> None:
    meter.due = False
    for window in meter.windows:
        ask = window.ask("share")
        before, store[ask.day] = lease(ask, store.get(ask.day, 0))
        window.learn(before, store[ask.day])
