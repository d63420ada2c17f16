"""The least busy free target, rotating among equals, suspects last."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.balance import least_busy


@dataclasses.dataclass
class Seen:
    replica_id: str
    in_flight: int
    slots: int = 4
    suspect: bool = False


def chosen(targets: list[Seen], turn: int = 0, excluded: tuple[str, ...] = ()) -> str | None:
    target = least_busy(targets, turn, excluded)
    return target.replica_id if target else None


def test_the_least_busy_is_chosen():
    assert chosen([Seen("a", 3), Seen("b", 1), Seen("c", 2)]) == "b"


def test_equals_take_turns():
    targets = [Seen("a", 0), Seen("b", 0), Seen("c", 0)]
    assert [chosen(targets, turn) for turn in range(4)] == ["a", "b", "c", "a"]


def test_a_full_target_is_never_chosen():
    assert chosen([Seen("a", 4), Seen("b", 5)]) is None
    assert chosen([Seen("a", 1, slots=1), Seen("b", 3)]) == "b"


def test_an_excluded_target_is_never_chosen():
    assert chosen([Seen("a", 0), Seen("b", 3)], excluded=("a",)) == "b"


def test_a_suspect_is_the_last_resort_but_one():
    assert chosen([Seen("a", 0, suspect=True), Seen("b", 3)]) == "b"
    assert chosen([Seen("a", 0, suspect=True), Seen("b", 4)]) == "a"


def test_without_targets_there_is_no_choice():
    assert chosen([]) is None


TARGETS = st.lists(
    st.builds(
        Seen,
        replica_id=st.sampled_from("abcdef"),
        in_flight=st.integers(0, 5),
        slots=st.integers(0, 5),
        suspect=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda seen: seen.replica_id,
)


@given(TARGETS, st.integers(0, 100), st.frozensets(st.sampled_from("abcdef")))
def test_a_choice_is_free_allowed_and_nobody_better_was_there(
    targets: list[Seen], turn: int, excluded: frozenset[str]
):
    free = [
        each for each in targets if each.in_flight < each.slots and each.replica_id not in excluded
    ]
    target = least_busy(targets, turn, excluded)
    assert (target is None) == (not free)
    if target is not None:
        assert target in free
        best = min((each.suspect, each.in_flight) for each in free)
        assert (target.suspect, target.in_flight) == best


@given(st.integers(1, 8), st.integers(1, 50))
def test_from_idle_the_work_is_spread_evenly(count: int, requests: int):
    targets = [Seen(str(number), 0, slots=100) for number in range(count)]
    for turn in range(requests):
        target = least_busy(targets, turn)
        assert target is not None
        target.in_flight += 1
    loads = [target.in_flight for target in targets]
    assert max(loads) - min(loads) <= 1
