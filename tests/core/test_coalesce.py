"""What is noted whole and what is counted: nothing is lost, and nobody has more than a share."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from prsmd.core.coalesce import Coalescer, Shares

SHARES = Shares(window=60.0, each=2, caller=3, everybody=8, kinds=2, callers=3)


def test_the_first_few_of_a_kind_are_whole_and_the_rest_one_sum():
    coalescer = Coalescer(SHARES)
    whole = [coalescer.take("a", "x", n, 100.0 + n, n) for n in range(10)]
    assert whole == [True, True] + [False] * 8
    assert coalescer.due(59.0) == []
    [found] = coalescer.due(60.0)
    assert (found.caller, found.kind, found.count, found.item) == ("a", "x", 8, 9)
    assert (found.first_at, found.last_at) == (102.0, 109.0)
    assert coalescer.due(1000.0) == []


def test_the_next_window_begins_anew():
    coalescer = Coalescer(SHARES)
    for _ in range(5):
        coalescer.take("a", "x", 0, 0.0, 0.0)
    assert coalescer.take("a", "x", 1, 0.0, 60.0)
    assert [each.count for each in coalescer.due(60.0)] == [3]


def test_a_caller_has_one_share_of_whole_ones_whatever_the_kinds():
    coalescer = Coalescer(SHARES)
    assert sum(coalescer.take("a", kind, 0, 0.0, 0.0) for kind in range(100)) == 3
    sums = {each.kind: each.count for each in coalescer.due(60.0)}
    assert len(sums) == 3
    assert sums[None] == 95


def test_no_caller_takes_the_share_of_another():
    coalescer = Coalescer(SHARES)
    for kind in range(1000):
        coalescer.take("noisy", kind, 0, 0.0, 0.0)
    assert coalescer.take("quiet", "x", 0, 0.0, 0.0)


def test_callers_beyond_the_bound_are_counted_together():
    coalescer = Coalescer(SHARES)
    whole = sum(coalescer.take(f"caller-{n}", "x", n, float(n), 0.0) for n in range(1000))
    sums = coalescer.due(60.0)
    assert whole == 3
    assert [(each.caller, each.count) for each in sums] == [(None, 997)]
    assert (sums[0].first_at, sums[0].last_at) == (3.0, 999.0)


def test_sums_that_could_not_be_written_come_again():
    coalescer = Coalescer(SHARES)
    for _ in range(5):
        coalescer.take("a", "x", 0, 0.0, 0.0)
    found = coalescer.due(60.0)
    coalescer.put_back(found)
    assert coalescer.due(61.0) == found


def test_a_few_sums_at_a_time_the_oldest_first_and_nothing_twice():
    coalescer = Coalescer(dataclasses.replace(SHARES, each=0, callers=10))
    for n in range(10):
        coalescer.take(f"caller-{n}", "x", n, float(n), float(n))
    taken = [[each.item for each in coalescer.due(68.0, most=4)] for _ in range(4)]
    assert taken == [[0, 1, 2, 3], [4, 5, 6, 7], [8], []]
    assert [each.item for each in coalescer.due(69.0, most=4)] == [9]


def test_a_caller_of_many_kinds_is_not_more_at_a_time():
    coalescer = Coalescer(dataclasses.replace(SHARES, each=0, kinds=9, callers=10))
    for kind in range(9):
        coalescer.take("a", kind, kind, 0.0, 0.0)
    taken = [len(coalescer.due(60.0, most=4)) for _ in range(4)]
    assert taken == [4, 4, 1, 0]


def test_callers_whose_sums_are_not_taken_yet_keep_no_place_from_others():
    coalescer = Coalescer(SHARES)
    for caller in "abc":
        for _ in range(3):
            coalescer.take(caller, "x", 0, 0.0, 0.0)
    assert not coalescer.take("early", "x", 0, 59.0, 59.0)
    assert all(coalescer.take(caller, "x", 0, 60.0, 60.0) for caller in "def")
    assert not coalescer.take("late", "x", 0, 60.0, 60.0)
    sums = {each.caller: each.count for each in coalescer.due(120.0)}
    assert sums == {"a": 1, "b": 1, "c": 1, None: 2}


CALLS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 4), st.floats(0, 40), st.integers(0, 5)),
    max_size=200,
)


@settings(max_examples=200)
@given(CALLS)
def test_whole_ones_and_counts_are_always_all_there_were_and_memory_is_bounded(calls):
    coalescer: Coalescer[int] = Coalescer(SHARES)
    now, whole, counted = 0.0, 0, 0
    for caller, kind, passed, flush in calls:
        now += passed
        whole += coalescer.take(str(caller), kind, 0, now, now)
        if flush:
            sums = coalescer.due(now, most=flush)
            assert len(sums) <= flush + 1
            counted += sum(each.count for each in sums)
        bound = SHARES.callers * (SHARES.kinds + 1) + SHARES.callers + 1
        assert len(coalescer) <= bound
    counted += sum(each.count for each in coalescer.due(now, everything=True))
    assert whole + counted == len(calls)
    assert len(coalescer) == 0
