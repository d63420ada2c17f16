"""What is open for whom: never more than the bound, and given back once on every way out."""

from hypothesis import given, settings
from hypothesis import strategies as st

from prsmd.core.connection_limits import (
    Bound,
    Claim,
    ConnectionLimits,
    Exceeded,
    Scope,
    plan_descriptors,
)

TOTAL, MINE = Scope("all"), Scope("principal", "a")


def limits(total=3, each=2):
    made = ConnectionLimits()
    made.bound("all", lambda _of: Bound(total, "limits.total"))
    made.bound("principal", lambda of: Bound(each, f"limits.of_{of}"))
    return made


def test_what_is_beyond_a_bound_is_refused_by_its_name_and_counts_nowhere():
    counter = limits()
    for _ in range(2):
        assert isinstance(counter.claim(TOTAL, MINE), Claim)

    refused = counter.claim(TOTAL, MINE)

    assert refused == Exceeded(MINE, Bound(2, "limits.of_a"))
    assert counter.counts() == {TOTAL: 2, MINE: 2}


def test_a_second_release_gives_nothing_back():
    counter = limits()
    first, second = counter.claim(TOTAL), counter.claim(TOTAL)
    for _ in range(3):
        first.release()

    assert counter.counts() == {TOTAL: 1}
    second.release()
    assert counter.counts() == {}


def test_a_bound_that_is_lowered_holds_for_the_next_claim_and_closes_nothing():
    counter, bound = ConnectionLimits(), [5]
    counter.bound("all", lambda _of: Bound(bound[0], "x"))
    kept = [counter.claim(TOTAL) for _ in range(5)]
    bound[0] = 2

    assert isinstance(counter.claim(TOTAL), Exceeded)
    for each in kept[:4]:
        each.release()
    assert isinstance(counter.claim(TOTAL), Claim)


def test_what_has_no_bound_is_counted_and_not_refused():
    counter = ConnectionLimits()

    assert all(isinstance(counter.claim(MINE), Claim) for _ in range(1000))
    assert counter.count(MINE) == 1000


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(min_value=-8, max_value=8)), max_size=200
    )
)
def test_no_bound_is_ever_exceeded_and_counts_are_those_of_open_claims(steps):
    """A negative step releases an open or already released claim; others claim for somebody."""
    counter, every, open_claims = limits(6, 3), [], []
    for who, step in steps:
        if step < 0 and every:
            claim = every[step % len(every)][1]
            claim.release()
            open_claims = [pair for pair in open_claims if pair[1] is not claim]
        else:
            claim = counter.claim(TOTAL, Scope("principal", who))
            if isinstance(claim, Claim):
                every.append((who, claim))
                open_claims.append((who, claim))
        assert counter.count(TOTAL) == len(open_claims) <= 6
        for one in "abc":
            count = sum(who == one for who, _ in open_claims)
            assert counter.count(Scope("principal", one)) == count <= 3
    for _, claim in every:
        claim.release()
    assert counter.counts() == {}


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(8, 2**20))
def test_descriptors_are_left_for_operators_containers_and_files(wanted, descriptors):
    plan = plan_descriptors(wanted, descriptors)

    assert 1 <= plan.network <= plan.connections <= wanted
    assert plan.operators >= 1
    if descriptors >= 16:
        assert 2 * (plan.connections + plan.operators) <= descriptors
    if plan.connections > 1:
        assert plan.network < plan.connections
