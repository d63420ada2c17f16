"""Limits: what is counted, what is refused in which words, and that no crash lets one too many."""

import dataclasses

import pytest

from prsmd.core.blocks import LARGEST_BLOCK, TOTAL, Ask, block, lease
from prsmd.core.meter import DAY_SECONDS, Hold, Meter, Refuse, Short
from prsmd.domain.quota import UsageLimits

NOON = 20_000 * DAY_SECONDS + DAY_SECONDS / 2
MIDNIGHT = 20_001 * DAY_SECONDS
Store = dict[int, int]


def limits(**given: int) -> UsageLimits:
    return UsageLimits(**given)


def settle(meter: Meter, store: Store) -> None:
    """Lease what is due, as the daemon does."""
    meter.due = False
    for window in meter.windows:
        ask = window.ask(meter.account)
        before, store[ask.day] = lease(ask, store.get(ask.day, 0))
        window.learn(before, store[ask.day])


def take(meter: Meter, store: Store, now: float = NOON) -> Hold | Refuse:
    """Take one, leasing at the boundary."""
    verdict = meter.take(now)
    if isinstance(verdict, Short):
        settle(meter, store)
        verdict = meter.take(now)
    assert not isinstance(verdict, Short)
    return verdict


def passed(meter: Meter, store: Store, wanted: int, now: float = NOON) -> int:
    return sum(isinstance(take(meter, store, now), Hold) for _ in range(wanted))


def refused(meter: Meter, store: Store, now: float = NOON) -> Refuse:
    verdict = take(meter, store, now)
    assert isinstance(verdict, Refuse)
    return verdict


def test_without_limits_everything_passes_and_nothing_is_leased():
    meter = Meter("share", limits())
    assert all(isinstance(meter.take(NOON), Hold) for _ in range(1000))
    assert not meter.due


def test_nothing_is_spent_that_was_not_leased():
    meter = Meter("share", limits(total_requests=1000))
    assert isinstance(meter.take(NOON), Short)
    assert meter.due


@pytest.mark.parametrize("limit", [1, 2, 15, 16, 17, 63, 1000, 5000])
@pytest.mark.parametrize("kind", ["requests_per_day", "total_requests"])
def test_exactly_the_limit_passes(kind: str, limit: int):
    assert passed(Meter("share", limits(**{kind: limit})), {}, limit + 20) == limit


def test_a_day_that_is_used_up_says_when_the_next_one_begins():
    meter, store = Meter("share", limits(requests_per_day=2)), {}
    passed(meter, store, 2)
    verdict = refused(meter, store)
    assert verdict == Refuse("requests_per_day", 2, MIDNIGHT, DAY_SECONDS // 2)


def test_a_total_that_is_used_up_never_comes_back():
    meter, store = Meter("share", limits(total_requests=1)), {}
    passed(meter, store, 1)
    assert refused(meter, store, NOON + 10 * DAY_SECONDS).reset_time is None


def test_the_next_day_begins_anew_and_the_total_goes_on():
    meter, store = Meter("share", limits(requests_per_day=3, total_requests=5)), {}
    assert passed(meter, store, 10) == 3
    assert passed(meter, store, 10, MIDNIGHT) == 2
    assert refused(meter, store, MIDNIGHT).limit_type == "total_requests"


def test_a_clock_that_goes_back_over_midnight_gives_no_day_twice():
    meter, store = Meter("share", limits(requests_per_day=3)), {}
    assert passed(meter, store, 10, MIDNIGHT) == 3
    assert passed(meter, store, 10, NOON) == 0


def test_a_minute_allows_a_burst_and_then_an_even_pace():
    meter = Meter("share", limits(requests_per_minute=6))
    assert passed(meter, {}, 10) == 6
    assert refused(meter, {}) == Refuse("requests_per_minute", 6, int(NOON) + 10, 10)
    assert passed(meter, {}, 10, NOON + 10) == 1


def test_what_a_crash_forgot_of_the_pace_counts_as_spent():
    meter = Meter("share", limits(requests_per_minute=6), full_at=NOON + 60)
    assert passed(meter, {}, 10) == 0
    assert passed(meter, {}, 10, NOON + 30) == 3


def test_only_so_many_at_once():
    meter = Meter("share", limits(concurrent_requests=2))
    first = take(meter, {})
    take(meter, {})
    assert refused(meter, {}).limit_type == "concurrent_requests"
    assert isinstance(first, Hold)
    first.end(counts=True)
    assert passed(meter, {}, 5) == 1


def test_what_was_refused_by_one_limit_is_counted_in_none():
    meter, store = Meter("share", limits(requests_per_minute=1, total_requests=3)), {}
    assert passed(meter, store, 10) == 1
    assert meter.windows[0].used == 1


def test_a_request_that_does_not_count_is_given_back_in_every_limit_and_once():
    meter, store = Meter("share", limits(requests_per_minute=1, total_requests=1)), {}
    hold = take(meter, store)
    assert isinstance(hold, Hold)
    hold.end(counts=False)
    hold.end(counts=False)
    assert passed(meter, store, 5) == 1
    assert meter.under_way == 1


def test_what_ends_after_midnight_and_does_not_count_gives_the_new_day_nothing():
    meter, store = Meter("share", limits(requests_per_day=2)), {}
    hold = take(meter, store)
    assert passed(meter, store, 5, MIDNIGHT) == 2
    assert isinstance(hold, Hold)
    hold.end(counts=False)
    assert passed(meter, store, 5, MIDNIGHT) == 0


def test_the_next_block_is_due_before_this_one_is_spent():
    meter, store = Meter("share", limits(total_requests=10_000)), {}
    take(meter, store)
    spent = 1
    while not meter.due:
        assert isinstance(meter.take(NOON), Hold)
        spent += 1
    assert spent == LARGEST_BLOCK // 2


def test_near_the_limit_nothing_is_leased_before_it_is_wanted():
    meter, store = Meter("share", limits(total_requests=20)), {}
    for used in range(1, 21):
        take(meter, store)
        assert store[TOTAL] == used
        assert not meter.due


def test_blocks_shrink_to_one():
    sizes = [block(left) for left in range(5000, -1, -1)]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-2], sizes[-1]) == (LARGEST_BLOCK, 1, 0)


def test_a_crash_forfeits_at_most_the_block_that_was_set_aside():
    store: Store = {}
    meter = Meter("share", limits(total_requests=1000))
    done = passed(meter, store, 100)
    after = Meter("share", limits(total_requests=1000))
    done += passed(after, store, 2000)
    assert 1000 - LARGEST_BLOCK <= done <= 1000


def test_many_that_do_not_count_leave_no_more_than_a_block_set_aside():
    meter, store = Meter("share", limits(total_requests=100_000)), {}
    holds = [take(meter, store) for _ in range(1000)]
    for hold in holds:
        assert isinstance(hold, Hold)
        hold.end(counts=False)
    assert meter.due
    settle(meter, store)
    assert store[TOTAL] == meter.windows[0].ahead == LARGEST_BLOCK


def test_a_limit_that_was_lowered_counts_at_once_and_gives_back_what_it_had_ahead():
    meter, store = Meter("share", limits(total_requests=10_000)), {}
    passed(meter, store, 10)
    meter.adopt(limits(total_requests=12))
    assert passed(meter, store, 100) == 2
    assert meter.due
    settle(meter, store)
    assert store[TOTAL] == 12


def test_a_limit_that_was_raised_goes_on_from_what_was_used():
    meter, store = Meter("share", limits(total_requests=3)), {}
    assert passed(meter, store, 10) == 3
    meter.adopt(limits(total_requests=5))
    assert passed(meter, store, 10) == 2


def test_another_pace_goes_on_from_what_was_used_of_the_old_one():
    meter = Meter("share", limits(requests_per_minute=10))
    assert passed(meter, {}, 20) == 10
    meter.adopt(limits(requests_per_minute=20))
    assert passed(meter, {}, 20) == 0
    assert passed(meter, {}, 20, NOON + 30) == 10


def test_a_limit_that_was_lifted_and_set_again_remembers():
    meter, store = Meter("share", limits(total_requests=3)), {}
    passed(meter, store, 2)
    meter.adopt(limits())
    passed(meter, store, 50)
    meter.adopt(limits(total_requests=3))
    assert passed(meter, store, 10) == 1


def test_a_total_that_is_lowered_below_what_was_used_lets_nothing_through_until_it_is_raised():
    meter, store = Meter("share", limits(total_requests=1000)), {}
    assert passed(meter, store, 100) == 100
    meter.adopt(limits(total_requests=40))
    assert passed(meter, store, 100) == 0
    assert next(one.remaining for one in meter.standings(NOON)) == 0
    meter.adopt(limits(total_requests=110))
    assert passed(meter, store, 100) == 10


def test_a_clock_that_is_set_back_empties_a_pace_for_a_minute_at_most():
    meter = Meter("share", limits(requests_per_minute=6))
    assert passed(meter, {}, 4) == 4
    assert passed(meter, {}, 10, NOON - 3600) == 0
    assert refused(meter, {}, NOON - 3600).retry_after_seconds <= 60
    assert passed(meter, {}, 10, NOON - 3600 + 60) == 6


def holds(meter: Meter, store: Store, count: int, now: float = NOON) -> list[Hold]:
    found = [take(meter, store, now) for _ in range(count)]
    return [hold for hold in found if isinstance(hold, Hold)]


def test_who_waits_has_a_place_and_has_spent_nothing():
    meter, store = Meter("share", limits(total_requests=1000)), {}
    waiting = holds(meter, store, 300)
    for hold in waiting:
        hold.wait()
        settle(meter, store)
    assert meter.windows[0].used == 0
    assert store[TOTAL] <= LARGEST_BLOCK, "a crash forfeits no more"
    assert passed(meter, store, 2000) == 700
    for hold in waiting:
        while hold.go_on(NOON) is not None:
            settle(meter, store)
    assert meter.windows[0].used == 1000


def test_who_goes_away_while_it_waits_leaves_its_place_to_another():
    meter, store = Meter("share", limits(total_requests=1, requests_per_minute=1)), {}
    [hold] = holds(meter, store, 1)
    hold.wait()
    hold.wait()
    assert refused(meter, store).limit_type == "total_requests"
    hold.end(counts=False)
    hold.end(counts=False)
    assert hold.go_on(NOON) is None
    assert passed(meter, store, 5) == 1


def test_who_waited_over_midnight_is_counted_in_the_new_day():
    meter, store = Meter("share", limits(requests_per_day=2)), {}
    first, second = holds(meter, store, 2)
    first.wait()
    second.wait()
    assert passed(meter, store, 5, MIDNIGHT) == 2
    assert isinstance(first.go_on(MIDNIGHT), Refuse), "others were there before it"
    meter.adopt(limits(requests_per_day=3))
    while isinstance(second.go_on(MIDNIGHT), Short):
        settle(meter, store)
    assert second.windows[0].day == 20_001
    second.end(counts=False)
    assert passed(meter, store, 5, MIDNIGHT) == 1


def test_a_limit_that_is_lowered_holds_for_those_who_wait():
    meter, store = Meter("share", limits(total_requests=100)), {}
    waiting = holds(meter, store, 20)
    for hold in waiting:
        hold.wait()
    meter.adopt(limits(total_requests=5))
    gone_on = 0
    for hold in waiting:
        while isinstance(verdict := hold.go_on(NOON), Short):
            settle(meter, store)
        gone_on += verdict is None
    assert gone_on == 5
    settle(meter, store)
    assert store[TOTAL] == 5


def test_standings_say_what_is_left():
    meter, store = (
        Meter("s", limits(requests_per_day=10, requests_per_minute=4, concurrent_requests=3)),
        {},
    )
    passed(meter, store, 2)
    left = {one.limit_type: (one.limit, one.remaining) for one in meter.standings(NOON)}
    assert left == {
        "requests_per_day": (10, 8),
        "requests_per_minute": (4, 2),
        "concurrent_requests": (3, 1),
    }
    assert next(one.reset_time for one in meter.standings(NOON)) == MIDNIGHT


def test_what_the_store_holds_and_nobody_remembers_counts_as_spent():
    ask = Ask("share", TOTAL, limit=100, ahead=0, spare=0)
    assert lease(ask, 100) == (100, 100)
    assert lease(dataclasses.replace(ask, limit=50), 100) == (100, 100)
    assert lease(ask, 0) == (0, block(100))
