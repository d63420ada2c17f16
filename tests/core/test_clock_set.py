"""A clock that is set: days follow it, nobody is blocked by it, and no real day gives twice."""

import pytest

from prsmd.core.clock_steps import SET_SECONDS, ClockSteps
from prsmd.core.meter import DAY_SECONDS, Hold, Meter, Refuse
from tests.core.test_meter import NOON, limits, passed, refused, take

YEAR = 365 * DAY_SECONDS
STEPS = [YEAR, -YEAR, DAY_SECONDS, -DAY_SECONDS]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spent", [0, 1, 40, 99, 100])
def test_a_set_clock_gives_no_more_of_a_day_than_its_limit(step, spent):
    meter, store = Meter("key", limits(requests_per_day=100)), {}
    assert passed(meter, store, spent) == spent
    meter.clock_set()

    assert passed(meter, store, 200, NOON + step) == 100 - spent


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spent", [(0, 0), (10, 20), (30, 70), (0, 100)])
def test_a_clock_that_was_wrong_for_a_while_costs_nothing_when_it_is_right_again(step, spent):
    meter, store = Meter("key", limits(requests_per_day=100)), {}
    assert passed(meter, store, spent[0]) == spent[0]
    meter.clock_set()
    assert passed(meter, store, spent[1], NOON + step) == spent[1]
    meter.clock_set()

    assert passed(meter, store, 200) == 100 - sum(spent)
    assert passed(meter, store, 200, NOON + DAY_SECONDS) == 100


@pytest.mark.parametrize("step", STEPS)
def test_who_was_refused_under_the_wrong_clock_is_not_refused_for_ever(step):
    meter, store = Meter("key", limits(requests_per_day=10)), {}
    meter.clock_set()
    assert passed(meter, store, 20, NOON + step) == 10
    meter.clock_set()

    refusal = refused(meter, store)
    assert (refusal.limit, refusal.reset_time) == (10, NOON + DAY_SECONDS / 2)
    assert passed(meter, store, 20, NOON + DAY_SECONDS) == 10


@pytest.mark.parametrize("step", [1, -1])
def test_a_clock_set_by_moments_changes_nothing_and_over_midnight_goes_on(step):
    meter, store = Meter("key", limits(requests_per_day=100)), {}
    midnight = NOON + DAY_SECONDS / 2
    assert passed(meter, store, 60, midnight - 0.5) == 60
    assert passed(meter, store, 60, midnight + 0.5) == 60
    assert passed(meter, store, 100, midnight - 0.5 + min(0, step)) == 40
    assert passed(meter, store, 100, midnight + 0.5) == 40


def test_a_day_that_is_counted_again_after_a_restart_goes_on_where_the_store_says():
    store = {}
    first = Meter("key", limits(requests_per_day=100))
    passed(first, store, 50)
    again = Meter("key", limits(requests_per_day=100))
    again.clock_set()

    assert passed(again, store, 100) <= 50


@pytest.mark.parametrize("step", STEPS)
def test_a_request_under_way_while_the_clock_is_set_is_given_back_where_it_was_counted(step):
    meter, store = Meter("key", limits(requests_per_day=100)), {}
    hold = take(meter, store)
    assert isinstance(hold, Hold)
    meter.clock_set()
    assert isinstance(take(meter, store, NOON + step), Hold)
    hold.end(counts=False)
    meter.clock_set()

    assert passed(meter, store, 200) in {98, 99}  # never 100


@pytest.mark.parametrize("step", STEPS)
def test_a_pace_makes_nobody_wait_longer_than_a_minute(step):
    meter, store = Meter("key", limits(requests_per_minute=10)), {}
    assert passed(meter, store, 20) == 10
    meter.clock_set()
    now = NOON + step
    refusal = meter.take(now)

    if isinstance(refusal, Refuse):
        assert refusal.retry_after_seconds <= 60
        now += 60
    assert passed(meter, store, 20, now) >= 9


def test_a_step_is_told_from_time_that_passes_and_from_a_clock_that_is_corrected():
    steps = ClockSteps(1000.0, 0.0)

    assert not steps.was_set(1000.0 + YEAR, float(YEAR))
    assert not steps.was_set(1001.0 + YEAR, float(YEAR))
    assert steps.was_set(1000.0 + 2 * YEAR, float(YEAR))
    assert steps.steady_since == YEAR
    assert not steps.was_set(1000.0 + 2 * YEAR, float(YEAR))
    assert not steps.was_set(1000.0 + 2 * YEAR - SET_SECONDS / 2, float(YEAR))
    assert steps.was_set(1000.0, float(YEAR))
