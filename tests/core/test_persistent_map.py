"""A map that is a value: earlier ones stay as they are, and share what did not change."""

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.persistent_map import PersistentMap

changes = st.dictionaries(st.integers(0, 3000), st.none() | st.integers())


@given(st.lists(changes, max_size=5))
def test_it_holds_what_a_dictionary_would_and_earlier_ones_stay(steps):
    made: PersistentMap[int, int] = PersistentMap()
    known: dict[int, int] = {}
    past = []
    for step in steps:
        past.append((made, dict(known)))
        made = made.changed(step)
        known |= {key: value for key, value in step.items() if value is not None}
        for key in [key for key, value in step.items() if value is None]:
            known.pop(key, None)
    for each, then in [*past, (made, known)]:
        assert {key: each.get(key) for key in range(3001) if each.get(key) is not None} == then


def test_a_change_copies_only_the_buckets_of_its_keys():
    before = PersistentMap({number: number for number in range(50_000)})
    after = before.changed({1: None, 2: 0})
    assert len(buckets(after) - buckets(before)) == 2


def buckets(of: PersistentMap) -> set[int]:
    return {id(bucket) for row in of._rows for bucket in row}
