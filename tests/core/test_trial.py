"""Who goes to the revision on trial, and what its measured values say about it."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.trial import (
    Broken,
    Passed,
    Reading,
    TooFew,
    Trial,
    TrialReading,
    judge,
    places,
    takes_copy,
    takes_trial,
)
from prsmd.domain.rollout import Gate, HeaderRule

PERCENT = st.integers(0, 100)
TURN = st.integers(0, 10**9)
RULE = HeaderRule(name="X-Canary", value="yes")


def taken(trial: Trial, turns: range) -> list[int]:
    return [turn for turn in turns if takes_trial(trial, turn, "", {})]


@given(PERCENT, TURN)
def test_of_any_hundred_in_a_row_exactly_the_weight_goes(weight: int, start: int):
    trial = Trial(key="k", weight=weight)
    assert len(taken(trial, range(start, start + 100))) == weight


@given(st.integers(1, 99), TURN)
def test_the_weight_is_spread_evenly(weight: int, start: int):
    turns = taken(Trial(key="k", weight=weight), range(start, start + 400))
    gaps = {after - before for before, after in itertools.pairwise(turns)}
    assert gaps <= {100 // weight, -(-100 // weight)}


@given(PERCENT, TURN)
def test_of_any_hundred_answers_exactly_the_percent_is_copied(percent: int, start: int):
    trial = Trial(key="k", shadow_percent=percent)
    assert sum(takes_copy(trial, turn) for turn in range(start, start + 100)) == percent


@given(st.text(min_size=1), PERCENT, PERCENT, TURN, TURN)
def test_a_sticky_client_stays_on_trial_while_the_weight_grows(
    client: str, one: int, other: int, turn: int, later: int
):
    less, more = sorted((one, other))
    before = takes_trial(Trial(key="a", weight=less, sticky=True), turn, client, {})
    after = takes_trial(Trial(key="b", weight=more, sticky=True), later, client, {})
    assert after or not before


@given(PERCENT)
def test_sticky_clients_divide_about_as_the_weight_says(weight: int):
    trial = Trial(key="k", weight=weight, sticky=True)
    share = sum(takes_trial(trial, 0, f"key_{number}", {}) for number in range(1000)) / 10
    assert share == pytest.approx(weight, abs=5)


@given(PERCENT, TURN)
def test_who_has_no_name_goes_by_weight_even_if_clients_stick(weight: int, turn: int):
    trial = Trial(key="k", weight=weight)
    sticky = dataclasses.replace(trial, sticky=True)
    assert takes_trial(sticky, turn, "", {}) == takes_trial(trial, turn, "", {})


@given(PERCENT, st.booleans(), TURN, st.text())
def test_the_header_goes_before_everything_else(weight: int, sticky: bool, turn: int, client: str):
    trial = Trial(key="k", weight=weight, sticky=sticky, header=RULE)
    assert takes_trial(trial, turn, client, {"x-canary": "yes"})
    without = dataclasses.replace(trial, header=None)
    for headers in ({}, {"x-canary": "no"}, {"x-other": "yes"}):
        same = takes_trial(without, turn, client, {})
        assert takes_trial(trial, turn, client, headers) == same


@pytest.mark.parametrize(
    ("weight", "shadow_percent", "compares_only"),
    [(0, 0, False), (0, 1, True), (1, 100, False), (100, 0, False)],
)
def test_a_trial_without_weight_that_gets_copies_answers_nobody(
    weight: int, shadow_percent: int, *, compares_only: bool
):
    trial = Trial(key="k", weight=weight, shadow_percent=shadow_percent)
    assert trial.compares_only is compares_only


@given(PERCENT, st.integers(2, 10_000))
def test_a_trial_leaves_others_their_part_of_the_queue_or_half(weight: int, depth: int):
    left = depth - places(Trial(key="k", weight=weight), depth)
    assert left >= min(depth // 2, depth * (100 - weight) // 100)


@pytest.mark.parametrize(
    ("weight", "depth", "part"), [(0, 0, 1), (0, 1, 1), (10, 64, 32), (75, 64, 48), (100, 64, 64)]
)
def test_the_trial_s_part_of_the_queue(weight: int, depth: int, part: int):
    assert places(Trial(key="k", weight=weight), depth) == part


GATE = Gate(max_error_rate=0.05, max_latency_ratio=2.0, min_requests=20)


def verdict(trial: Reading, stable: Reading, gate: Gate = GATE) -> object:
    return judge(gate, TrialReading(key="k", trial=trial, stable=stable))


def reading(requests: int, errors: int = 0, mean_ms: float | None = 10.0) -> Reading:
    return Reading(requests=requests, errors=errors, mean_ms=mean_ms)


JUDGED = {
    "too few": (reading(19, 19), reading(100), TooFew),
    "enough and good": (reading(20), reading(100), Passed),
    "as many errors as allowed": (reading(100, 5), reading(100), Passed),
    "more errors than allowed": (reading(100, 6), reading(100), Broken),
    "more errors, but the stable one has them too": (reading(100, 9), reading(100, 9), Passed),
    "twice as slow": (reading(50, 0, 20.0), reading(50), Passed),
    "more than twice as slow": (reading(50, 0, 20.1), reading(50), Broken),
    "slow, but against too few": (reading(50, 0, 90.0), reading(19), Passed),
    "slow, but against nothing": (reading(50, 0, 90.0), reading(50, 50, None), Passed),
    "nothing but errors": (reading(20, 20, None), reading(50), Broken),
}


@pytest.mark.parametrize(("trial", "stable", "expected"), JUDGED.values(), ids=JUDGED)
def test_the_gate(trial: Reading, stable: Reading, expected: type):
    assert isinstance(verdict(trial, stable), expected)


def test_a_broken_gate_says_what_was_measured():
    told = verdict(reading(100, 7), reading(400, 1, 8.0))
    assert told == Broken(
        "its error rate of 7.00% is over the gate's 5.00% (7 of 100)",
        (
            "on trial: 100 requests, 7 errors, mean 10.0 ms",
            "stable: 400 requests, 1 errors, mean 8.0 ms",
        ),
    )


READINGS = st.integers(0, 500).flatmap(
    lambda requests: st.builds(
        Reading,
        requests=st.just(requests),
        errors=st.integers(0, requests),
        mean_ms=st.none() | st.floats(0.01, 1e5),
    )
)
GATES = st.builds(
    Gate,
    max_error_rate=st.floats(0, 1),
    max_latency_ratio=st.floats(1, 10),
    min_requests=st.integers(1, 100),
)


@given(READINGS, READINGS, GATES)
def test_nothing_is_decided_before_enough_was_answered_and_something_after(
    trial: Reading, stable: Reading, gate: Gate
):
    enough = trial.requests >= gate.min_requests
    assert isinstance(verdict(trial, stable, gate), Passed | Broken) == enough


@given(READINGS, GATES)
def test_a_revision_that_is_just_like_the_stable_one_never_breaks_the_gate(
    both: Reading, gate: Gate
):
    assert not isinstance(verdict(both, both, gate), Broken)


@given(READINGS, READINGS, GATES, st.integers(1, 50))
def test_more_errors_never_mend_a_broken_gate(
    trial: Reading, stable: Reading, gate: Gate, more: int
):
    worse = dataclasses.replace(trial, errors=min(trial.requests, trial.errors + more))
    if isinstance(verdict(trial, stable, gate), Broken):
        assert isinstance(verdict(worse, stable, gate), Broken)
