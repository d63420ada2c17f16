"""Whose turn it is: nobody waits longer because another one has more that waits."""

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.round_robin import RoundRobin

pushes = st.lists(st.sampled_from("abcd"), max_size=60)


def taken(sources: list[str]) -> list[tuple[str, int]]:
    """Push one item for each source, numbered, and pop all."""
    queue: RoundRobin[int] = RoundRobin()
    for number, source in enumerate(sources):
        queue.push(source, number)
    found = []
    while queue:
        found.append(queue.pop())
    return found


@given(pushes)
def test_everything_comes_out_once_and_each_sources_items_in_their_order(sources):
    found = taken(sources)

    assert sorted(number for _, number in found) == list(range(len(sources)))
    for source in set(sources):
        numbers = [number for name, number in found if name == source]
        assert numbers == sorted(numbers)
        assert all(sources[number] == source for number in numbers)


@given(pushes)
def test_no_source_has_two_turns_while_another_waits_for_one(sources):
    left = [source for source, _ in taken(sources)]
    while left:
        waiting = set(left)
        first, left = left[: len(waiting)], left[len(waiting) :]
        assert set(first) == waiting


def test_a_source_that_had_nothing_is_the_last_in_turn():
    queue: RoundRobin[int] = RoundRobin()
    for number in range(3):
        queue.push("many", number)
    queue.push("one", 9)

    assert [queue.pop() for _ in range(4)] == [("many", 0), ("one", 9), ("many", 1), ("many", 2)]
