"""How long a slot waits after failures: a table first, then what holds for every history."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.backoff import (
    JITTER,
    LONGEST_DELAY_SECONDS,
    PROVEN_AFTER_SECONDS,
    ended_by_slot,
    failures,
    retry_at,
    waits_until,
)
from prsmd.domain.replica import ReplicaState
from tests.core.cases import NOW, failed, replica

LONGEST = LONGEST_DELAY_SECONDS * (1 + JITTER)


def stopped(number=0, **changes):
    values = {"id": f"stopped-{number}", "finished_at": NOW}
    return replica(0, ReplicaState.STOPPED, **(values | changes))


def row(length, at=NOW):
    return [failed(number=number, at=at) for number in range(length)]


@pytest.mark.parametrize(
    ("length", "delay"),
    [(1, 1), (2, 2), (3, 4), (4, 8), (8, 128), (9, 256), (10, 300), (11, 300), (5000, 300)],
)
def test_the_delay_doubles_with_each_failure_in_a_row_up_to_its_limit(length, delay):
    waited = retry_at(row(length)) - NOW
    assert delay * (1 - JITTER) <= waited <= delay * (1 + JITTER)


def test_a_slot_that_never_failed_does_not_wait():
    assert retry_at([]) is None
    assert retry_at([stopped()]) is None


def test_replicas_that_were_told_to_stop_are_passed_over():
    ended = [failed(number=0), stopped(1), failed(number=2), stopped(3)]
    assert [replica.id for replica in failures(ended)] == ["failed-s0-0", "failed-s0-2"]


def test_the_failure_of_a_replica_that_served_long_begins_a_new_row():
    proven = failed(number=9, at=NOW, ready_at=NOW - PROVEN_AFTER_SECONDS - 1)
    assert failures([*row(6), proven]) == (proven,)


def test_a_long_serving_replica_that_was_stopped_clears_the_row():
    assert failures([*row(6), stopped(ready_at=NOW - PROVEN_AFTER_SECONDS - 1)]) == ()


def test_serving_for_less_than_the_proof_clears_nothing():
    short = failed(number=9, at=NOW, ready_at=NOW - PROVEN_AFTER_SECONDS + 1)
    assert len(failures([*row(3), short])) == 4


def test_replicas_that_failed_together_do_not_come_back_together():
    times = {retry_at([failed(number=number, at=NOW)]) for number in range(20)}
    assert len(times) == 20


def test_it_waits_until_the_delay_is_over_and_not_a_moment_longer():
    ended = row(5)
    until = retry_at(ended)
    assert waits_until(ended, until - 0.001) == until
    assert waits_until(ended, until) is None


def test_a_failure_in_the_far_future_is_a_clock_set_back_and_is_not_waited_for():
    assert waits_until([failed(at=NOW + 1_000_000)], NOW) is None


def test_a_row_without_an_end_time_waits_from_its_creation():
    ended = [failed(created_at=NOW - 5, finished_at=None)]
    assert retry_at(ended) == pytest.approx(NOW - 4, abs=0.21)


def test_only_ended_replicas_of_the_slot_and_revision_are_looked_at():
    wanted = failed(slot=1, number=1, revision=2)
    others = [
        failed(slot=1, number=2, revision=1),
        failed(slot=0, number=3, revision=2),
        replica(1, revision=2, id="active"),
    ]
    assert ended_by_slot([*others, wanted], {2}) == {0: [others[1]], 1: [wanted]}


ENDS = st.lists(
    st.tuples(
        st.sampled_from([ReplicaState.FAILED, ReplicaState.STOPPED]),
        st.none() | st.floats(0, 2000),  # how long it had been ready
        st.floats(0, 1000),  # how long after the one before it ended
    ),
    max_size=12,
)


def history(ends):
    at, ended = NOW, []
    for number, (state, served, later) in enumerate(ends):
        at += later
        ready_at = None if served is None else at - served
        ended.append(
            failed(number=number, at=at, ready_at=ready_at)
            if state is ReplicaState.FAILED
            else stopped(number, finished_at=at, ready_at=ready_at)
        )
    return ended


@given(ENDS)
def test_a_wait_is_bounded_always_the_same_and_starts_at_the_last_failure(ends):
    ended = history(ends)
    until = retry_at(ended)
    assert until == retry_at(list(ended))
    if until is not None:
        last = failures(ended)[-1]
        assert 0 < until - last.finished_at <= LONGEST


@given(ENDS)
def test_one_more_failure_never_makes_the_next_try_sooner(ends):
    ended = history(ends)
    before = retry_at(ended)
    at = max((one.finished_at for one in ended), default=NOW)
    after = retry_at([*ended, failed(number=99, at=at + LONGEST)])
    assert before is None or after >= before


@given(ENDS)
def test_there_is_a_wait_exactly_when_a_failure_counts(ends):
    ended = history(ends)
    assert (retry_at(ended) is None) == (not failures(ended))
    counted = failures(ended)
    assert all(one.state is ReplicaState.FAILED for one in counted)
    assert all(a.finished_at <= b.finished_at for a, b in itertools.pairwise(counted))
