"""Windows forget what is old, whatever the clock does, and their estimates stay in range."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.window import Buckets, Gauge, Histogram

TIMES = st.floats(0, 1e6)
VALUES = st.lists(st.floats(0, 400), min_size=1, max_size=50)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    return histogram


def test_a_bound_is_inclusive_and_what_is_above_all_bounds_is_counted():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.1, 2.0, 2.1, 1e9):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.count == 6


def test_without_values_there_is_no_mean_and_no_quantile():
    assert (Histogram().mean(), Histogram().quantile(0.5)) == (None, None)


def test_a_quantile_is_interpolated_inside_its_bucket():
    histogram = Histogram((1.0, 2.0, 4.0))
    for value in [1.5] * 50 + [3.9] * 50:
        histogram.observe(value)
    assert histogram.quantile(0.25) == pytest.approx(1.5)
    assert histogram.quantile(0.5) == pytest.approx(2.0)
    assert histogram.quantile(1.0) == pytest.approx(3.9)


@given(VALUES)
def test_quantiles_rise_and_never_exceed_the_largest_value(values: list[float]):
    histogram = filled(values)
    quantiles = [histogram.quantile(step / 20) for step in range(21)]
    assert all(quantile is not None for quantile in quantiles)
    for lower, higher in itertools.pairwise(quantiles):
        assert lower <= higher + 1e-9  # type: ignore[operator]
    assert quantiles[-1] <= max(values) + 1e-9  # type: ignore[operator]


@given(VALUES, st.floats(0.01, 1))
def test_a_quantile_is_in_the_bucket_of_the_true_one(values: list[float], fraction: float):
    histogram = filled(values)
    rank = max(1, -int(-fraction * len(values) // 1))
    true = sorted(values)[rank - 1]
    bounds = (0.0, *histogram.bounds, float("inf"))
    place = next(i for i, bound in enumerate(bounds[1:]) if true <= bound)
    estimate = histogram.quantile(rank / len(values))
    assert estimate is not None
    assert bounds[place] - 1e-9 <= estimate <= min(bounds[place + 1], max(values)) + 1e-9


@given(VALUES, VALUES)
def test_adding_histograms_is_observing_everything(one: list[float], other: list[float]):
    both = filled(one)
    both.add(filled(other))
    assert both.counts == filled(one + other).counts
    assert both.total == pytest.approx(sum(one + other))


@given(st.lists(TIMES, min_size=1, max_size=60).map(sorted))
def test_the_window_holds_what_is_recent_and_nothing_older(times: list[float]):
    buckets: Buckets[list[float]] = Buckets(60.0, 5.0, list)
    for now in times:
        buckets.current(now).append(now)
    kept = [at for bucket in buckets.recent(times[-1]) for at in bucket]
    assert set(kept) <= set(times)
    for at in times:
        if at > times[-1] - 55:
            assert at in kept
        if at <= times[-1] - 60:
            assert at not in kept


def test_a_clock_that_steps_back_writes_to_the_newest_bucket():
    buckets: Buckets[list[int]] = Buckets(60.0, 5.0, list)
    buckets.current(100.0).append(1)
    buckets.current(50.0).append(2)
    assert buckets.recent(100.0) == [[1, 2]]


def test_a_clock_that_jumps_ahead_empties_the_window():
    buckets: Buckets[list[int]] = Buckets(60.0, 5.0, list)
    buckets.current(100.0).append(1)
    assert buckets.recent(1e9) == []


def test_a_gauge_averages_by_time_not_by_change():
    gauge = Gauge(30.0, 2.0, 0.0)
    gauge.set(10, 0.0)
    gauge.set(0, 9.0)
    assert gauge.average(10.0) == pytest.approx(9.0)


def test_a_gauge_forgets_what_left_the_window():
    gauge = Gauge(30.0, 2.0, 0.0)
    gauge.set(100, 0.0)
    gauge.set(1, 10.0)
    assert gauge.average(100.0) == pytest.approx(1.0)


def test_a_gauge_that_just_started_shows_its_value():
    gauge = Gauge(30.0, 2.0, 5.0)
    gauge.set(3, 5.0)
    assert gauge.average(5.0) == 3


def test_a_gauge_survives_a_clock_that_steps_back():
    gauge = Gauge(30.0, 2.0, 100.0)
    gauge.set(4, 100.0)
    gauge.set(4, 50.0)
    assert gauge.average(60.0) == pytest.approx(4.0)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 50)), min_size=1, max_size=40))
def test_a_gauge_s_average_is_between_its_extremes(steps: list[tuple[float, int]]):
    gauge, now = Gauge(30.0, 2.0, 0.0), 0.0
    gauge.set(steps[0][1], 0.0)
    for pause, value in steps:
        now += pause
        gauge.set(value, now)
    values = [value for _, value in steps]
    assert min(values) - 1e-6 <= gauge.average(now + 1) <= max(values) + 1e-6


@pytest.mark.parametrize("back", [70.0, 3600.0, 365 * 86400.0])
def test_a_clock_that_is_set_far_back_begins_the_window_anew(back):
    now = 1.8e9
    buckets: Buckets[list[int]] = Buckets(60.0, 5.0, list)
    buckets.current(now).append(1)
    gauge = Gauge(60.0, 5.0, now)
    gauge.set(8.0, now)
    assert gauge.average(now + 30) == 8.0
    now -= back
    assert buckets.recent(now) == []
    gauge.set(0.0, now)
    for second in range(600):
        buckets.current(now + second).append(second)
        gauge.average(now + second)
    assert min(min(each) for each in buckets.recent(now + 599)) >= 535
    assert gauge.average(now + 599) == 0.0
