"""When a rollout goes a step further, is complete, goes back, or waits, and in which words."""

import pytest

from prsmd.core.plan import Prepare, Probe, preparing
from prsmd.core.rollout import course, traffic
from prsmd.core.trial import Reading, TrialReading
from prsmd.domain.replica import ExitCause, ExitKind, ReplicaState
from prsmd.domain.rollout import HeaderRule, RolloutPhase, RolloutStrategy
from tests.core.cases import NOW, changed, container, failed, healthy, observed, replica
from tests.core.situations import (
    PREPARING,
    REPLACING,
    TRYING,
    layout,
    new,
    rolling,
    rollout,
    sight,
)

S = RolloutStrategy
OLD = replica(0)
CANARY = {"strategy": S.CANARY, "bake_seconds": 60.0}


def onward(item, sees, now=NOW):
    return course(item, layout(item, sees, now), sight(sees, now))


def became(item, sees, now=NOW):
    """Return what an item's rollout becomes and the event's word."""
    action = onward(item, sees, now).action
    assert action.before == item.rollout
    return action.after, action.reason


def trying(*rows, **values):
    return rolling(OLD, *rows, now=rollout(TRYING, **values))


def measured(now, *, errors=0, requests=100):
    """Return what the data path says of a trial as it stands."""
    trial = Reading(requests=requests, errors=errors, mean_ms=5.0)
    stable = Reading(requests=requests, mean_ms=5.0)
    return {"deploy_a": TrialReading(key=traffic(now).key, trial=trial, stable=stable)}


# Before anything is touched.


def test_the_image_is_brought_here_first():
    item = rolling(OLD, now=PREPARING)
    found = onward(item, healthy(OLD))
    assert found.action == Prepare(rollout=item.rollout, revision=item.revision)
    assert found.waiting_for == "image m:2 is being brought here; nothing is touched before"
    coming = healthy(OLD, working=frozenset({preparing(item.rollout)}))
    assert onward(item, coming).action is None


@pytest.mark.parametrize(
    ("options", "phase"),
    [
        ({}, REPLACING),
        ({"strategy": S.RECREATE}, REPLACING),
        ({"strategy": S.CANARY}, TRYING),
        ({"strategy": S.BLUE_GREEN}, TRYING),
        ({"strategy": S.SHADOW}, TRYING),
    ],
)
def test_with_its_image_here_it_begins_and_notes_how_many_stand(options, phase):
    rows = [OLD, replica(1), replica(2, ReplicaState.DRAINING)]
    item = rolling(*rows, now=rollout(PREPARING, prepared=True, **options), asked=2)
    after, reason = became(item, healthy(*rows))
    assert (after.phase, after.base, reason) == (phase, 2, "RolloutStarted")


def test_what_turns_out_to_be_the_same_needs_no_trial():
    item = rolling(OLD, now=rollout(PREPARING, prepared=True, strategy=S.CANARY))
    same = changed(item, revision=changed(item.others[0], number=2))
    assert became(same, healthy(OLD))[0].phase is REPLACING


def test_paused_it_does_not_begin():
    item = rolling(OLD, now=rollout(PREPARING, prepared=True, paused=True))
    found = onward(item, healthy(OLD))
    assert (found.action, found.waiting_for) == (None, "paused; its image is here")


def test_an_image_that_cannot_be_had_gives_the_new_revision_up():
    item = rolling(OLD, now=rollout(PREPARING, trouble="no such image: m:2"))
    after, reason = became(item, healthy(OLD))
    assert (after.phase, reason) == (RolloutPhase.ROLLED_BACK, "RolledBack")
    assert (after.outcome, after.finished_at) == ("no such image: m:2", NOW)


def test_with_nothing_good_behind_it_goes_on_without_its_image_and_says_why_when_paused():
    young = replica(0, ReplicaState.STARTING, ready_at=None)
    stuck = rollout(PREPARING, trouble="no such image: m:2")
    item = rolling(young, now=stuck, stable_revision=None)
    assert became(item, observed(container(young)))[0].phase is REPLACING
    paused = changed(item, rollout=changed(stuck, paused=True))
    found = onward(paused, observed(container(young)))
    assert found.waiting_for == "paused; no such image: m:2"


# What is bad.


def bad(number=0, *, ready=False, **changes):
    values = {"revision": 2, "created_at": NOW - 8, "ready_at": NOW - 5 if ready else None}
    return failed(0, number, **(values | changes))


def test_one_that_ends_before_it_was_ready_gives_the_revision_up_with_its_last_lines():
    cause = ExitCause(kind=ExitKind.EXITED, message="exited with code 3", log_tail=("boom",))
    item = rolling(OLD, bad(exit=cause))
    after, _ = became(item, healthy(OLD))
    assert after.phase is RolloutPhase.ROLLED_BACK
    assert after.outcome == "replica failed-s0-0 never got ready: exited with code 3"
    assert after.evidence == ("boom",)
    message = onward(item, healthy(OLD)).action.message
    assert message.startswith("revision 2 is given up for revision 1: replica failed-s0-0")


def test_one_crash_of_a_replica_that_was_ready_is_tolerated_and_a_second_one_is_not():
    once = rolling(OLD, bad(ready=True))
    assert onward(once, healthy(OLD)).action is None
    twice = rolling(OLD, bad(ready=True), bad(1, ready=True))
    after, _ = became(twice, healthy(OLD))
    assert after.outcome == "replica failed-s0-1 crashed 2 times: exited with code 3"


@pytest.mark.parametrize("phase", [TRYING, REPLACING])
def test_a_bad_revision_is_given_up_on_trial_and_paused_too(phase):
    now = rollout(phase, strategy=S.CANARY, paused=True)
    after, _ = became(rolling(OLD, bad(), now=now), healthy(OLD))
    assert after.phase is RolloutPhase.ROLLED_BACK


@pytest.mark.parametrize(
    "row",
    [
        bad(exit=ExitCause(kind=ExitKind.LOST, message="gone")),
        bad(exit=None),
        bad(revision=1),
        bad(revision=1, created_at=NOW - 500),
    ],
    ids=["removed by somebody", "without a cause", "of the stable revision", "long ago"],
)
def test_what_says_nothing_about_the_revision_does_not_end_it(row):
    assert onward(rolling(OLD, row), healthy(OLD)).action is None


def test_a_clock_that_was_set_back_hides_no_failure_of_the_new_revision():
    item = rolling(OLD, bad(created_at=NOW - 5000))
    assert became(item, healthy(OLD))[1] == "RolledBack"


def test_failures_of_an_equal_revision_from_before_the_rollout_do_not_count():
    before = bad(revision=3, created_at=NOW - 500)
    item = rolling(OLD, before)
    equal = changed(item.revision, number=3)
    assert onward(changed(item, others=(*item.others, equal)), healthy(OLD)).action is None


def test_there_is_no_way_back_before_anything_was_good():
    young = replica(0, ReplicaState.STARTING, ready_at=None)
    item = rolling(young, bad(), stable_revision=None)
    assert onward(item, observed(container(young))).action is None
    served = rolling(OLD, bad(), stable_revision=None)
    assert became(served, healthy(OLD))[1] == "RolledBack"


# On trial.


def test_a_trial_waits_for_its_replicas_and_says_until_when():
    item = trying(new(ready_at=NOW - 5), **CANARY, min_ready_seconds=20.0)
    found = onward(item, healthy(*item.replicas))
    assert found.waiting_for == "0 of 1 replicas on trial are ready"
    assert found.until == NOW + 15


def test_a_clock_that_was_set_back_does_not_hold_a_replica_up():
    item = trying(new(ready_at=NOW + 5000), **CANARY)
    assert became(item, healthy(*item.replicas))[1] == "TrialStep"


@pytest.mark.parametrize("back", [5, 3600, 365 * 86400])
def test_a_clock_that_was_set_back_has_a_step_bake_anew_and_not_pass(back):
    item = trying(new(), **CANARY, step_since=NOW + back)
    action = onward(item, healthy(*item.replicas)).action
    assert (action.reason, action.after.step, action.after.step_since) == ("TrialStep", 0, NOW)


def test_nothing_can_be_tried_of_a_model_that_is_scaled_to_zero():
    item = rolling(now=rollout(TRYING, **CANARY), asked=0)
    words = "the model is scaled to zero: nothing can be tried"
    assert onward(item, observed()).waiting_for == words


def test_with_its_replicas_up_the_step_begins_unless_it_is_paused():
    item = trying(new(), **CANARY)
    sees = healthy(*item.replicas)
    action = onward(item, sees).action
    assert (action.after.step_since, action.after.step) == (NOW, 0)
    assert action.message == "10 % of the traffic goes to revision 2 (1 ready); it bakes 60 s"
    paused = changed(item, rollout=changed(item.rollout, paused=True))
    assert onward(paused, sees).waiting_for == "paused before the next step"


def test_blue_and_green_switch_all_at_once():
    item = trying(new(), strategy=S.BLUE_GREEN)
    after, _ = became(item, healthy(*item.replicas))
    assert after.step == 1
    assert (traffic(item.rollout).weight, traffic(after).weight) == (0, 100)


def baking(since=NOW - 60, **values):
    return trying(new(), **({"step_since": since} | CANARY | values))


def test_it_bakes_for_as_long_as_it_was_asked():
    item = baking(since=NOW - 59)
    sees = healthy(*item.replicas, trials=measured(item.rollout))
    found = onward(item, sees)
    assert found.action is None
    assert found.waiting_for == "10 % of the traffic goes to revision 2; it bakes"
    assert found.until == NOW + 1
    assert became(item, sees, NOW + 1)[1] == "TrialPassed"


def test_a_broken_gate_gives_it_up_at_once_with_what_was_measured():
    item = baking(since=NOW - 1, paused=True)
    sees = healthy(*item.replicas, trials=measured(item.rollout, errors=50))
    after, _ = became(item, sees)
    assert after.outcome == "its error rate of 50.00% is over the gate's 5.00% (50 of 100)"
    assert after.evidence[0] == "on trial: 100 requests, 50 errors, mean 5.0 ms"


def test_too_few_answers_are_waited_for_and_old_ones_do_not_count():
    item = baking()
    few = "0 of 20 requests to judge by were answered; promote it to go on without"
    assert onward(item, healthy(*item.replicas)).waiting_for == few
    stale = {"deploy_a": changed(measured(item.rollout)["deploy_a"], key="an earlier step")}
    assert onward(item, healthy(*item.replicas, trials=stale)).waiting_for == few


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"paused": True}, "paused; resume, promote or abort it"),
        ({"weight": 30}, "its traffic was set by hand; resume, promote or abort it"),
        ({"step": 1, "promote_by_hand": True}, "it has passed; promote or abort it"),
    ],
)
def test_a_trial_that_has_passed_waits_where_a_person_has_the_say(values, words):
    rows = [OLD, replica(1)] if "step" not in values else [OLD]
    item = rolling(*rows, new(), now=rollout(TRYING, **CANARY, step_since=NOW - 60, **values))
    sees = healthy(*item.replicas, trials=measured(item.rollout))
    assert (onward(item, sees).action, onward(item, sees).waiting_for) == (None, words)


def test_the_next_step_and_then_the_whole():
    item = baking()
    sees = healthy(*item.replicas, trials=measured(item.rollout))
    after, _ = became(item, sees)
    assert (after.step, after.step_since, after.phase) == (1, None, TRYING)
    assert after.evidence[0].startswith("on trial: 100 requests")
    last = baking(step=1)
    sees = healthy(*last.replicas, trials=measured(last.rollout))
    after, reason = became(last, sees)
    assert (after.phase, after.step_since, reason) == (REPLACING, None, "Promoted")


def test_a_trial_is_not_promoted_while_one_of_its_replicas_is_missing():
    item = baking(step=1)
    sees = healthy(OLD, trials=measured(item.rollout))
    sees = changed(sees, containers=tuple(container(row) for row in item.replicas))
    found = onward(item, sees)
    assert (found.action, found.waiting_for) == (None, "0 of 1 replicas on trial are ready")


# Taking over.


def test_it_is_complete_when_all_have_settled_and_nothing_earlier_is_left():
    item = rolling(new())
    after, reason = became(item, healthy(*item.replicas))
    assert (after.phase, after.finished_at, reason) == (RolloutPhase.COMPLETED, NOW, "RolledOut")
    assert onward(item, healthy(*item.replicas)).action.message == (
        "revision 2 has taken over after 10.0 s"
    )
    ending = rolling(new(), changed(OLD, state=ReplicaState.DRAINING))
    found = onward(ending, healthy(*ending.replicas))
    assert (found.action, found.waiting_for) == (None, "1 earlier replicas are still ending")


def test_until_then_it_says_how_many_have_taken_over():
    item = rolling(OLD, new(0, ReplicaState.STARTING), now=rollout(base=2), asked=2)
    sees = observed(*map(container, item.replicas), probes={OLD.id: Probe(ready=True)})
    assert onward(item, sees).waiting_for == "0 of 2 replicas have taken over"
    paused = changed(item, rollout=changed(item.rollout, paused=True))
    assert onward(paused, sees).waiting_for == "paused; 0 of 2 replicas have taken over"


def test_more_than_stood_at_the_beginning_are_not_waited_for():
    item = rolling(new(), now=rollout(base=1), asked=5)
    assert became(item, healthy(*item.replicas))[0].phase is RolloutPhase.COMPLETED


def test_scaled_to_zero_it_waits_for_the_first_that_gets_ready():
    item = rolling(now=rollout(base=0), asked=0)
    words = "scaled to zero: it is proven when a replica gets ready"
    assert onward(item, observed()).waiting_for == words


# Where nothing happens at all.


def test_a_silent_engine_moves_nothing_on():
    item = rolling(OLD, bad())
    found = onward(item, changed(observed(), containers=None))
    assert found.action is None
    assert found.waiting_for == "the container engine does not answer; nothing is moved on"


@pytest.mark.parametrize(
    "item",
    [
        changed(rolling(OLD), rollout=None),
        rolling(OLD, bad(), now=rollout(RolloutPhase.ABORTED)),
        rolling(OLD, bad(), deleting=True),
    ],
    ids=["no rollout", "it has ended", "the model is being deleted"],
)
def test_without_a_rollout_under_way_nothing_is_decided(item):
    found = onward(item, healthy(OLD))
    assert (found.action, found.waiting_for, found.until) == (None, "", None)


# How traffic divides meanwhile.


@pytest.mark.parametrize(
    ("values", "weight", "copied"),
    [
        (CANARY, 0, 0),
        (CANARY | {"step_since": NOW}, 10, 0),
        (CANARY | {"step": 1}, 10, 0),
        (CANARY | {"step": 1, "step_since": NOW}, 50, 0),
        (CANARY | {"weight": 35}, 35, 0),
        ({"strategy": S.BLUE_GREEN}, 0, 0),
        ({"strategy": S.BLUE_GREEN, "step": 1}, 100, 0),
        ({"strategy": S.SHADOW, "shadow_percent": 25}, 0, 25),
    ],
)
def test_each_step_has_its_part_of_the_traffic(values, weight, copied):
    trial = traffic(rollout(TRYING, **values))
    assert (trial.weight, trial.shadow_percent) == (weight, copied)


def test_what_is_measured_begins_anew_with_each_step():
    steps = [{}, {"step_since": NOW}, {"step": 1}, {"step": 1, "step_since": NOW}, {"weight": 7}]
    keys = [traffic(rollout(TRYING, **CANARY, **values)).key for values in steps]
    assert len(set(keys)) == len(steps)


def test_only_a_canary_looks_at_a_header():
    rule = HeaderRule(name="X-Try", value="yes")
    assert traffic(rollout(TRYING, strategy=S.CANARY, header=rule)).header == rule
    assert traffic(rollout(TRYING, strategy=S.SHADOW, header=rule)).header is None


@pytest.mark.parametrize("phase", [PREPARING, REPLACING, RolloutPhase.COMPLETED])
def test_traffic_is_divided_on_trial_only(phase):
    assert traffic(rollout(phase, **CANARY)) is None
    assert traffic(None) is None
