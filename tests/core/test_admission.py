"""Start, wait or refuse: the whole table, then that no bound is ever crossed."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.admission import Admit, QueueState, Refuse, Wait, admit, admit_again


@dataclasses.dataclass
class Seen:
    replica_id: str
    in_flight: int
    slots: int = 2
    suspect: bool = False


FREE, BUSY = Seen("free", 0), Seen("busy", 2)


def queue(queued: int = 0, depth: int = 3, **more: object) -> QueueState:
    return QueueState(**{"queued": queued, "depth": depth, **more})


def full(queued: int, retry: int, reason: str, limit: int = 3) -> Refuse:
    return Refuse(code="QUEUE_FULL", reason=reason, retry_after_seconds=retry, limit=limit)


def unavailable(reason: str) -> Refuse:
    return Refuse(code="RESOURCE_UNAVAILABLE", reason=reason, retry_after_seconds=5)


BUSY_TEXT = "all 2 slots of 1 replica are busy and the queue is full (3 of 3)"
CASES = {
    "a free slot and nobody waits": ([BUSY, FREE], queue(), Admit(FREE)),
    "a free slot that those who wait cannot use": ([FREE], queue(1), Admit(FREE)),
    "all busy, a place in the queue": ([BUSY], queue(2), Wait()),
    "all busy, the queue is full": ([BUSY], queue(3), full(3, 1, BUSY_TEXT)),
    "the same, and it takes long": ([BUSY], queue(3, mean_seconds=4.0), full(3, 8, BUSY_TEXT)),
    "the same, and it takes for ever": (
        [BUSY], queue(3, mean_seconds=1e9), full(3, 60, BUSY_TEXT),
    ),
    "no replica yet": ([], queue(waiting_for="starting"), Wait()),
    "no replica yet, the queue is full": (
        [], queue(3, waiting_for="starting"),
        full(3, 5, "starting and the queue is full (3 of 3)"),
    ),
    "no replica ever": (
        [], queue(hopeless=True, waiting_for="exits with 1"), unavailable("exits with 1"),
    ),
    "hopeless for new ones, but one serves": ([FREE], queue(hopeless=True), Admit(FREE)),
    "closed": ([FREE], queue(closed="stopping"), unavailable("stopping")),
    "no queue wanted": (
        [BUSY], queue(0, 0),
        full(0, 1, "all 2 slots of 1 replica are busy and the queue is full (0 of 0)", 0),
    ),
    "nothing is known": ([], queue(hopeless=True), unavailable("no replica is ready")),
}  # fmt: skip


@pytest.mark.parametrize(("targets", "state", "verdict"), CASES.values(), ids=CASES)
def test_a_new_inference(targets: list[Seen], state: QueueState, verdict: object):
    assert admit(targets, state, 0) == verdict


AGAIN = {
    "another is free, though others wait": ([FREE, BUSY], queue(3), {"busy"}, Admit(FREE)),
    "the others are busy, the queue full": ([FREE, BUSY], queue(3), {"free"}, Wait()),
    "all were tried": ([FREE, BUSY], queue(2), {"free", "busy"}, Wait()),
    "all were tried, and there is no place to wait": (
        [FREE, BUSY], queue(3), {"free", "busy"}, unavailable("no replica accepts connections"),
    ),
    "the last one left, more will come": ([], queue(), {"free"}, Wait()),
    "the last one left for good": (
        [], queue(hopeless=True, waiting_for="gone"), {"free"}, unavailable("gone"),
    ),
    "closed meanwhile": ([FREE], queue(closed="stopping"), set(), unavailable("stopping")),
}  # fmt: skip


@pytest.mark.parametrize(("targets", "state", "tried", "verdict"), AGAIN.values(), ids=AGAIN)
def test_an_inference_that_could_not_connect(
    targets: list[Seen], state: QueueState, tried: set[str], verdict: object
):
    assert admit_again(targets, state, 0, tried) == verdict


SIDES = {
    "its side has nobody, the other a slot": ([], [FREE], queue(), Admit(FREE)),
    "its side has nobody, the other is busy": ([], [BUSY], queue(2), Wait()),
    "the same, and the queue is full": ([], [BUSY], queue(3), full(3, 1, BUSY_TEXT)),
    "its side is busy, the other free": ([BUSY], [FREE], queue(2), Wait()),
    "the same, and the queue is full ": ([BUSY], [FREE], queue(3), full(3, 1, BUSY_TEXT)),
    "nothing to hope for, but the other side is there": ([], [BUSY], queue(hopeless=True), Wait()),
}


@pytest.mark.parametrize(("own", "spare", "state", "verdict"), SIDES.values(), ids=SIDES)
def test_a_new_inference_of_one_side(
    own: list[Seen], spare: list[Seen], state: QueueState, verdict: object
):
    assert admit(own, state, 0, spare) == verdict


def test_who_tried_its_whole_side_is_admitted_to_the_other_and_waits_for_it():
    assert admit_again([BUSY], queue(3), 0, {"busy"}, [FREE]) == Admit(FREE)
    assert admit_again([FREE], queue(3), 0, {"free"}, [BUSY]) == Wait()


TARGETS = st.lists(
    st.builds(
        Seen,
        replica_id=st.sampled_from("abcd"),
        in_flight=st.integers(0, 3),
        slots=st.integers(1, 3),
    ),
    max_size=4,
)
QUEUES = st.integers(0, 5).flatmap(
    lambda depth: st.builds(
        QueueState,
        queued=st.integers(0, depth),
        depth=st.just(depth),
        mean_seconds=st.none() | st.floats(0, 1e6),
        hopeless=st.booleans(),
        closed=st.none() | st.just("stopping"),
    )
)


@given(TARGETS, QUEUES, st.integers(0, 9))
def test_every_verdict_respects_the_bounds_and_explains_itself(
    targets: list[Seen], state: QueueState, turn: int
):
    verdict = admit(targets, state, turn)
    if isinstance(verdict, Admit):
        assert verdict.target.in_flight < verdict.target.slots
    elif isinstance(verdict, Wait):
        assert state.queued < state.depth
        assert state.closed is None
    else:
        assert verdict.reason
        assert 1 <= verdict.retry_after_seconds <= 60
