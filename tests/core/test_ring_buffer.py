"""The newest of what comes is kept, within a number and a size, and never more is held."""

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.ring_buffer import RingBuffer


def fits(items, most, size):
    return len(items) <= most and sum(items) <= size


@given(st.lists(st.integers(0, 9)), st.integers(0, 5), st.integers(0, 20))
def test_as_many_of_the_newest_are_kept_as_fit(sizes, most, size):
    newest = RingBuffer(most, size, int)
    for number, one in enumerate(sizes, 1):
        newest.add(one)
        added = sizes[:number]
        kept = [*newest.items]
        assert fits(kept, most, size)
        assert kept == added[len(added) - len(kept) :]
