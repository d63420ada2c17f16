"""What was not heard while somebody stood still says nothing; what was not heard on time does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.autoscale import AutoscaleSettings, Hold, recommend
from prsmd.core.plan import Fail, Plan, Probe, Stop
from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.stalls import (
    ANY,
    LEAST_SECONDS,
    OWN,
    AlwaysOnTime,
    Stall,
    StallKind,
    judge_deadline,
    lost_on_clock,
)
from prsmd.domain.replica import ReplicaState
from tests.core import test_autoscale, test_rollout
from tests.core.cases import NOW, container, deployment, healthy, observed, replica

moments = st.floats(0, 1000)


def stall(began: float, ended: float, kind: StallKind = StallKind.LOOP, at: float = NOW) -> Stall:
    return Stall(kind=kind, began=began, ended=ended, lost=ended - began, at=at)


@given(st.lists(st.tuples(moments, st.floats(0, 50))), moments, st.floats(0.001, 100))
def test_a_deadline_that_no_stall_touched_always_counts(spans, began, length):
    ended = began + length
    stalls = [stall(a, a + b) for a, b in spans if a + b < began or a > ended]
    assert judge_deadline(stalls, began, ended) is None


@given(moments, st.floats(0.05, 100), st.floats(0.2, 1), st.floats(0, 1))
def test_a_deadline_of_which_a_good_part_was_lost_never_counts(began, length, part, where):
    lost = length * part
    start = began + (length - lost) * where
    if lost > 2 * LEAST_SECONDS:
        unknown = judge_deadline([stall(start, start + lost)], began, began + length)
        assert unknown is not None
        assert unknown.lost == pytest.approx(lost)
        assert "this daemon itself stood still" in unknown.reason


@given(st.lists(st.tuples(moments, st.floats(0, 50))), moments, st.floats(0, 100))
def test_never_is_more_lost_than_there_was(spans, began, length):
    stalls = [stall(a, a + b, at=a + b) for a, b in spans]
    assert 0 <= lost_on_clock(stalls, began, began + length) <= (began + length) - began
    unknown = judge_deadline(stalls, began, began + length)
    assert unknown is None or unknown.lost <= length + 1e-9


def test_an_engine_that_hangs_explains_silence_and_no_refusal():
    stalls = [stall(0, 10, StallKind.ENGINE)]
    assert judge_deadline(stalls, 1, 3, ANY) is not None
    assert judge_deadline(stalls, 1, 3, OWN) is None


def test_a_loop_that_is_a_little_late_all_the_time_explains_nothing():
    late = [stall(at, at + 0.03) for at in range(100)]
    assert judge_deadline(late, 10, 12) is None


def test_where_nothing_measures_every_deadline_counts():
    assert AlwaysOnTime().unknown(AlwaysOnTime().now()) is None


# What the loop decides.


def starting(stalls=(), **probe):
    one = replica(state=ReplicaState.STARTING)
    probes = {one.id: Probe(**{"ready": False, "last_error": "connection refused", **probe})}
    sees = observed(container(one), probes=probes, stalls=tuple(stalls))
    return reconcile((deployment(one, startup_timeout=90.0),), sees, NOW, Policy())


def test_time_in_which_nobody_could_look_is_no_startup_time():
    assert isinstance(starting().actions[0], Fail), "the case itself is overdue"
    for kind in StallKind:
        assert starting([stall(0, 20, kind, at=NOW - 5)]) == Plan(), kind


def test_a_probe_that_found_nothing_out_is_no_evidence_at_the_startup_timeout():
    assert starting(unknown="this daemon itself stood still for 3 s of it") == Plan()


def test_a_drain_is_not_cut_for_time_that_passed_while_nobody_could_look():
    one = replica(state=ReplicaState.DRAINING, draining_since=NOW - 31)
    item = deployment(one, asked=0)
    sees = {"in_flight": {one.id: 1}}
    cut = reconcile((item,), observed(container(one), **sees), NOW, Policy())
    assert isinstance(cut.actions[0], Stop), "the case itself is overdue"
    stalled = observed(container(one), **sees, stalls=(stall(0, 10, at=NOW),))
    assert reconcile((item,), stalled, NOW, Policy()) == Plan()


def test_a_step_of_a_rollout_bakes_only_while_it_is_looked_at():
    item = test_rollout.baking(since=NOW - 61)
    seen = {"trials": test_rollout.measured(item.rollout)}
    assert test_rollout.onward(item, healthy(*item.replicas, **seen)).action is not None
    unseen = healthy(*item.replicas, **seen, stalls=(stall(0, 30, at=NOW - 1),))
    found = test_rollout.onward(item, unseen)
    assert (found.action, found.until) == (None, NOW + 29)


def test_nothing_is_scaled_by_what_was_measured_while_the_daemon_stood_still():
    busy = test_autoscale.inputs(40)
    assert not isinstance(recommend(busy, AutoscaleSettings(), test_autoscale.NOW), Hold)
    stalled = test_autoscale.inputs(40, stalled="this daemon itself stood still for 3 s of it")
    verdict = recommend(stalled, AutoscaleSettings(), test_autoscale.NOW)
    assert isinstance(verdict, Hold)
    assert verdict.needed == stalled.current
    assert "stood still" in verdict.reason
