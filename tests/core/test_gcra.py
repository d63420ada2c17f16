"""The rate limiter: a full burst, then an even pace, and never one more than the limit."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.gcra import Limited, Passed, spend


def passed(limit: int, times: list[float]) -> list[float]:
    """Return at which of these times a request passes."""
    kept, found = 0, []
    for now in times:
        verdict = spend(kept, limit, now)
        if isinstance(verdict, Passed):
            kept = verdict.kept
            found.append(now)
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 60, 61, 100_000])
def test_a_burst_of_exactly_the_limit_passes(limit: int):
    assert len(passed(limit, [1e9] * (limit + 5))) == limit


def test_what_remains_counts_down_to_none():
    kept, seen = 0, []
    for _ in range(3):
        verdict = spend(kept, 3, 1e9)
        assert isinstance(verdict, Passed)
        kept = verdict.kept
        seen.append(verdict.remaining)
    assert seen == [2, 1, 0]


def test_who_is_refused_is_told_when_the_next_one_passes():
    kept = 0
    for _ in range(6):
        verdict = spend(kept, 6, 1e9)
        assert isinstance(verdict, Passed)
        kept = verdict.kept
    refused = spend(kept, 6, 1e9)
    assert isinstance(refused, Limited)
    assert refused.retry_at == pytest.approx(1e9 + 10)
    assert isinstance(spend(kept, 6, refused.retry_at - 0.1), Limited)
    assert isinstance(spend(kept, 6, refused.retry_at + 1e-6), Passed)


@given(
    limit=st.integers(1, 40),
    gaps=st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=200),
)
def test_after_any_past_no_minute_has_more_than_two_bursts_and_no_span_beyond_the_pace(
    limit: int, gaps: list[float]
):
    times = list(itertools.accumulate(gaps, initial=1e9))
    found = passed(limit, times)
    for first, last in itertools.combinations(range(len(found)), 2):
        span = found[last] - found[first]
        assert last - first + 1 <= limit + span * limit / 60 + 1e-3


@given(limit=st.integers(1, 300), now=st.floats(1e9, 2e9))
def test_after_a_minute_of_rest_everything_may_pass_again(limit: int, now: float):
    spent = passed(limit, [now] * limit + [now + 60.001] * limit)
    assert len(spent) == 2 * limit
