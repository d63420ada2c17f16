"""Who takes an answer at a sane rate is never cut; who does not, is, in bounded time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prsmd.core.write_progress import WriteLimits, WriteProgress

LIMITS = WriteLimits(timeout_seconds=60.0, bytes_per_second=1000)
TICK = 1.0


def seconds_until_cut(rate_of, size, most=10_000, tick=TICK):
    """Return when a client is cut that takes `rate_of(second)` bytes; None: it had all before."""
    progress, taken, at = WriteProgress(LIMITS), 0.0, 0.0
    while at < most:
        if progress.too_slow(tick, int(taken), size - int(taken)):
            return at
        if taken >= size:
            return None
        taken = min(size, taken + rate_of(at) * tick)
        at += tick
    return None


def test_who_takes_nothing_is_cut_when_the_time_is_over():
    assert seconds_until_cut(lambda _at: 0, 10**6) == 60


def test_who_stops_half_way_is_cut_within_two_periods():
    cut = seconds_until_cut(lambda at: 10_000 if at < 100 else 0, 10**8)

    assert 100 < cut <= 100 + 2 * 60 + TICK


@pytest.mark.parametrize("rate", [1, 100, 900])
def test_who_drips_is_cut(rate):
    assert seconds_until_cut(lambda _at: rate, 10**6) == 60


@settings(deadline=None)
@given(st.integers(2000, 10**7), st.integers(1, 4 * 2**20), st.integers(1, 15))
def test_a_sane_rate_is_never_cut_even_in_lumps(rate, size, every):
    assert seconds_until_cut(lambda at: rate * every if at % every == 0 else 0, size) is None


@settings(deadline=None)
@given(st.integers(1, 60_000))
def test_a_small_rest_needs_no_rate(size):
    assert seconds_until_cut(lambda at: size if at == 58 else 0, size) is None


def test_a_process_that_stood_still_finds_nobody_slow():
    progress = WriteProgress(LIMITS)
    for _ in range(20):
        assert not progress.too_slow(2.0, 0, 1000)  # what an hour's standstill counts for

    assert not progress.too_slow(2.0, 1000, 0)


def test_time_with_nothing_to_take_does_not_count():
    progress = WriteProgress(LIMITS)
    for _ in range(1000):
        assert not progress.too_slow(TICK, 0, 0)

    assert not progress.too_slow(TICK, 0, 5)
    assert not progress.too_slow(TICK, 0, 5)
