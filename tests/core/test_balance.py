"""The least busy free target, rotating among equals, suspects last."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.balance import choose, least_busy


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


FREE, BUSY = Seen("free", 0), Seen("busy", 4)
SUSPECT = Seen("suspect", 0, suspect=True)
SIDES = {
    "its own side first": ([Seen("own", 3)], [FREE], "own"),
    "its own side is busy: it waits": ([BUSY], [FREE], None),
    "nobody on its own side": ([], [FREE], "free"),
    "nobody anywhere": ([], [], None),
    "its own side only has a suspect": ([SUSPECT], [FREE], "free"),
    "a suspect, and the other side is busy": ([SUSPECT], [BUSY], "suspect"),
    "a suspect and a busy one": ([SUSPECT, BUSY], [FREE], "suspect"),
    "suspects on both sides": ([SUSPECT], [Seen("other", 0, suspect=True)], "suspect"),
    "a busy suspect": ([Seen("own", 4, suspect=True)], [FREE], "free"),
}


@pytest.mark.parametrize(("own", "spare", "expected"), SIDES.values(), ids=SIDES)
def test_the_other_side_is_for_need_only(own: list[Seen], spare: list[Seen], expected: str | None):
    target = choose(own, spare, 0)
    assert (target.replica_id if target else None) == expected


def test_who_tried_its_whole_side_goes_to_the_other():
    own, spare = [Seen("a", 0), Seen("b", 4)], [FREE]
    assert choose(own, spare, 0, ("a",)) is None  # b will be free
    assert choose(own, spare, 0, ("a", "b")) is FREE


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


@given(TARGETS, TARGETS, st.integers(0, 100), st.frozensets(st.sampled_from("abcdef")))
def test_nobody_waits_for_a_side_that_has_nobody_while_the_other_is_free(
    own: list[Seen], spare: list[Seen], turn: int, excluded: frozenset[str]
):
    target = choose(own, spare, turn, excluded)
    ready = [each for each in own if not each.suspect and each.replica_id not in excluded]
    if target is None:
        assert least_busy(own, turn, excluded) is None
        assert ready or least_busy(spare, turn, excluded) is None
    elif ready:
        assert any(target is each for each in own)
    else:
        assert any(target is each for each in own + spare)
