"""What the daemon does next: one replica at a time, then whole deployments, then the rest."""

import pytest

from prsmd.core.plan import (
    Adopt,
    Drain,
    Fail,
    FinishDelete,
    Launch,
    MarkRunning,
    ObservedContainer,
    Plan,
    Probe,
    RemoveOrphan,
    Resume,
    Stop,
)
from prsmd.core.reconcile import Policy, reconcile
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import ExitCause, ExitKind, Placement, ReplicaState
from tests.core.cases import (
    NOW,
    ONE_GPU,
    changed,
    container,
    deployment,
    failed,
    gpu,
    healthy,
    ids,
    node,
    observed,
    replica,
    silent_engine,
)

PENDING, STARTING = ReplicaState.PENDING, ReplicaState.STARTING
RUNNING, DRAINING = ReplicaState.RUNNING, ReplicaState.DRAINING


def plan(*desired, sees=None, now=NOW):
    return reconcile(desired, sees or observed(), now, Policy())


def only(result):
    assert len(result.actions) == 1, result
    return result.actions[0]


def launches(result):
    return [action.replica for action in result.actions if isinstance(action, Launch)]


# One replica.


def test_a_world_as_it_should_be_needs_nothing():
    one = replica()
    assert plan(deployment(one), sees=healthy(one)) == Plan()


def test_a_pending_replica_without_container_is_launched_again():
    one = replica(state=PENDING)
    assert isinstance(only(plan(deployment(one))), Resume)


def test_a_pending_replica_whose_container_never_started_is_launched_again():
    one = replica(state=PENDING)
    result = plan(deployment(one), sees=observed(container(one, running=False)))
    assert isinstance(only(result), Resume)


def test_a_pending_replica_whose_container_runs_is_adopted_with_its_address():
    one = replica(state=PENDING)
    box = container(one)
    adopted = only(plan(deployment(one), sees=observed(box)))
    assert isinstance(adopted, Adopt)
    assert (adopted.container_id, adopted.endpoint) == (box.id, box.endpoint)


def test_a_pending_replica_whose_container_ended_has_failed_and_its_container_goes_with_it():
    one = replica(state=PENDING)
    box = container(one, running=False, exit_code=2)
    ended = only(plan(deployment(one), sees=observed(box)))
    assert isinstance(ended, Fail)
    assert ended.replica.container_id == box.id


def test_a_starting_replica_is_left_to_start():
    one = replica(state=STARTING)
    assert plan(deployment(one), sees=observed(container(one))) == Plan()


def test_a_starting_replica_that_answers_is_in_service():
    one = replica(state=STARTING)
    assert isinstance(only(plan(deployment(one), sees=healthy(one))), MarkRunning)


def test_a_replica_that_is_ready_at_the_last_moment_is_not_failed():
    one = replica(state=STARTING)
    result = plan(deployment(one, startup_timeout=10.0), sees=healthy(one))
    assert isinstance(only(result), MarkRunning)


def test_a_replica_that_never_gets_ready_fails_with_what_its_probe_met():
    one = replica(state=STARTING)
    probes = {one.id: Probe(ready=False, last_error="connection refused")}
    sees = observed(container(one), probes=probes)
    assert plan(deployment(one, startup_timeout=90.1), sees=sees) == Plan()
    cause = only(plan(deployment(one, startup_timeout=90.0), sees=sees)).cause
    assert cause == ExitCause(
        kind=ExitKind.STARTUP_TIMEOUT,
        message="not ready within its startup timeout of 90 s: connection refused",
    )


@pytest.mark.parametrize("state", [STARTING, RUNNING])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with code 0, though it should keep serving"),
        (3, "exited with code 3"),
        (137, "exited with code 137 (killed by SIGKILL)"),
        (-15, "exited with code -15 (killed by SIGTERM)"),
        (255, "exited with code 255"),
        (None, "exited with an unknown code"),
    ],
)
def test_a_container_that_ended_by_itself_is_a_failure_with_its_code(state, code, words):
    one = replica(state=state)
    sees = observed(container(one, running=False, exit_code=code))
    cause = only(plan(deployment(one), sees=sees)).cause
    assert cause == ExitCause(kind=ExitKind.EXITED, message=words, exit_code=code)


def test_running_out_of_memory_names_the_limit():
    one = replica(placement=Placement(node="here", cpu_millis=1, memory_bytes=3 * GIB // 2))
    sees = observed(container(one, running=False, exit_code=137, out_of_memory=True))
    cause = only(plan(deployment(one), sees=sees)).cause
    assert cause.kind is ExitKind.OUT_OF_MEMORY
    assert cause.message == "needed more than its memory limit of 1536Mi"
    assert cause.exit_code == 137


@pytest.mark.parametrize("state", [STARTING, RUNNING])
def test_a_container_that_the_engine_does_not_know_is_lost(state):
    assert only(plan(deployment(replica(state=state)))).cause.kind is ExitKind.LOST


def test_liveness_failures_end_a_running_replica_only_at_the_limit():
    one = replica()

    def after(count):
        probe = Probe(ready=False, failures=count, last_error="no answer from /health in time")
        return plan(deployment(one), sees=observed(container(one), probes={one.id: probe}))

    assert after(2) == Plan()
    assert only(after(3)).cause == ExitCause(
        kind=ExitKind.LIVENESS_FAILED,
        message="failed 3 liveness checks in a row: no answer from /health in time",
    )


def test_a_replica_that_is_not_ready_but_alive_is_left_in_peace():
    one = replica()
    sees = observed(container(one), probes={one.id: Probe(ready=False, last_error="503")})
    assert plan(deployment(one), sees=sees) == Plan()


def test_a_starting_replica_may_fail_its_probe_as_often_as_it_likes():
    one = replica(state=STARTING)
    sees = observed(container(one), probes={one.id: Probe(ready=False, failures=99)})
    assert plan(deployment(one), sees=sees) == Plan()


def test_a_draining_replica_stops_when_it_has_answered_everything():
    one = replica(state=DRAINING)
    sees = observed(container(one), in_flight={one.id: 1})
    assert plan(deployment(one, asked=0), sees=sees) == Plan()
    stop = only(plan(deployment(one, asked=0), sees=observed(container(one))))
    assert isinstance(stop, Stop)
    assert stop.reason == "everything it had accepted is answered"


def test_a_draining_replica_is_not_waited_for_longer_than_the_drain_timeout():
    one = replica(state=DRAINING, draining_since=NOW - 30)
    sees = observed(container(one), in_flight={one.id: 2})
    assert plan(deployment(one, asked=0), sees=sees, now=NOW - 0.1) == Plan()
    stop = only(plan(deployment(one, asked=0), sees=sees))
    assert stop.reason == "its drain timeout of 30 s is over with 2 still in flight"


@pytest.mark.parametrize("boxes", [(), (container(replica(), running=False, exit_code=1),)])
def test_a_container_that_ends_while_it_drains_was_stopped_and_did_not_fail(boxes):
    one = replica(state=DRAINING)
    sees = observed(*boxes, in_flight={one.id: 2})
    assert isinstance(only(plan(deployment(one, asked=0), sees=sees)), Stop)


@pytest.mark.parametrize("state", [PENDING, STARTING, RUNNING, DRAINING])
def test_what_the_executor_works_on_is_left_alone(state):
    one = replica(state=state)
    wanted = deployment(one, asked=0 if state is DRAINING else 1)
    assert plan(wanted, sees=observed(working=frozenset({one.id}))) == Plan()


# Slots.


def test_empty_slots_are_filled_with_pending_replicas_that_reserve_their_place():
    result = launches(plan(deployment(asked=2)))
    assert [one.slot for one in result] == [0, 1]
    assert {one.state for one in result} == {PENDING}
    assert result[0].placement == Placement(node="here", cpu_millis=1000, memory_bytes=GIB)
    assert (result[0].organization, result[0].created_at) == ("org", NOW)


def test_new_ids_differ_by_slot_moment_and_history_and_are_the_same_for_the_same_state():
    first, second = launches(plan(deployment(asked=2)))
    assert first.id.startswith("a-r1-s0-")
    later = launches(plan(deployment(asked=1), now=NOW + 1))
    again = launches(plan(deployment(failed(at=NOW - 999), asked=1)))
    assert len({first.id, second.id, later[0].id, again[0].id}) == 4
    assert launches(plan(deployment(asked=2))) == [first, second]


@pytest.mark.parametrize(
    ("asked", "recommended", "bounds", "count"),
    [
        (3, None, (1, 5), 3),
        (3, 4, (1, 5), 4),
        (3, 9, (1, 5), 5),
        (0, None, (1, 5), 1),
        (0, None, (0, 5), 0),
        (7, None, (0, 5), 5),
    ],
)
def test_the_target_is_what_was_asked_or_recommended_within_the_bounds(
    asked, recommended, bounds, count
):
    wanted = deployment(asked=asked, recommended=recommended, least=bounds[0], most=bounds[1])
    assert len(launches(plan(wanted))) == count


def test_surplus_is_drained_from_the_highest_slot():
    rows = [replica(slot) for slot in range(3)]
    result = plan(deployment(*rows, asked=2), sees=healthy(*rows))
    assert ids(result.actions) == [("Drain", rows[2].id)]
    assert result.actions[0].reason == "only 2 replicas are wanted"


def test_what_is_not_ready_is_drained_before_what_serves():
    rows = [replica(0), replica(1, STARTING), replica(2)]
    sees = changed(healthy(rows[0], rows[2]), containers=tuple(container(one) for one in rows))
    assert ids(plan(deployment(*rows, asked=2), sees=sees).actions) == [("Drain", rows[1].id)]


def test_two_replicas_in_one_slot_are_reduced_to_the_better_one():
    good, double = replica(0), replica(0, STARTING, id="double")
    sees = changed(healthy(good), containers=(container(good), container(double)))
    assert ids(plan(deployment(good, double), sees=sees).actions) == [("Drain", "double")]


def test_a_slot_that_still_drains_is_not_filled_but_another_one_is():
    old = replica(0, DRAINING)
    sees = observed(container(old), in_flight={old.id: 1})
    assert [one.slot for one in launches(plan(deployment(old), sees=sees))] == [1]


def test_a_failed_replica_leaves_its_slot_to_the_next_tick():
    result = plan(deployment(replica(), asked=1))
    assert [type(action) for action in result.actions] == [Fail]
    assert result.holds == ()


def test_a_surplus_replica_that_ended_fails_rather_than_drains():
    assert isinstance(only(plan(deployment(replica(), asked=0))), Fail)


def test_a_surplus_container_is_noted_before_it_drains_so_that_it_can_be_ended():
    one = replica(state=PENDING)
    assert isinstance(only(plan(deployment(one, asked=0), sees=observed(container(one)))), Adopt)


def test_a_surplus_replica_that_still_launches_is_given_up():
    one = replica(state=PENDING)
    result = plan(deployment(one, asked=0), sees=observed(working=frozenset({one.id})))
    assert isinstance(only(result), Drain)


def test_a_surplus_replica_whose_failure_is_being_handled_is_left_alone():
    one = replica()
    result = plan(deployment(one, asked=0), sees=observed(working=frozenset({one.id})))
    assert result == Plan()


# Holds.


def test_a_slot_in_backoff_is_held_with_the_last_cause_in_words():
    row = [failed(number=number, at=NOW - 1) for number in range(4)]
    result = plan(deployment(*row))
    hold = result.holds[0]
    assert result.actions == ()
    assert (hold.kind, hold.slot) == ("backoff", 0)
    assert hold.reason == (
        "failed 4 times in a row, last: exited with code 3; it is tried again after a pause"
    )
    assert NOW < hold.until < NOW + 10
    launched = plan(deployment(*row), now=hold.until).actions[0]
    assert launched.reason == "replaces failed-s0-3"


def test_the_backoff_of_one_slot_or_revision_holds_no_other():
    bad = failed(0, at=NOW)
    assert [one.slot for one in launches(plan(deployment(bad, asked=2)))] == [1]
    assert [one.slot for one in launches(plan(deployment(bad, revision=2)))] == [0]


def test_an_unplaceable_slot_is_held_with_the_reason_for_each_gpu():
    result = plan(deployment(asked=2, resources=ONE_GPU), sees=observed(here=node(gpu())))
    placed = launches(result)
    hold = result.holds[0]
    assert [one.slot for one in placed] == [0]
    assert (hold.kind, hold.slot, hold.until) == ("unplaceable", 1, None)
    assert hold.reason == "insufficient resources: 1 of 1 GPUs refused"
    assert hold.details == (f"GPU-0 (NVIDIA T4): reserved whole by {placed[0].id}",)


def test_the_reservations_of_all_deployments_count_and_the_oldest_comes_first():
    young = deployment(id="deploy_1_young", created_at=2.0, resources=ONE_GPU)
    old = deployment(id="deploy_2_old", created_at=1.0, resources=ONE_GPU)
    result = plan(young, old, sees=observed(here=node(gpu())))
    assert [one.deployment_id for one in launches(result)] == ["deploy_2_old"]
    assert [hold.deployment_id for hold in result.holds] == ["deploy_1_young"]


def test_what_drains_still_holds_its_place():
    taken = Placement(
        node="here", cpu_millis=1, memory_bytes=1, gpu_uuids=("GPU-0",), gpu_millis=1000
    )
    gone = replica(state=DRAINING, placement=taken)
    leaving = deployment(gone, asked=0)
    waiting = deployment(id="deploy_b", created_at=2.0, resources=ONE_GPU)
    sees = observed(container(gone), here=node(gpu()), in_flight={gone.id: 1})
    assert plan(leaving, waiting, sees=sees).holds[0].kind == "unplaceable"


def gradual(*rows, asked):
    return deployment(*rows, asked=asked, scaling_strategy=ScalingStrategy.GRADUAL)


def test_gradual_scaling_brings_one_replica_at_a_time_while_something_serves():
    first = replica(0)
    result = plan(gradual(first, asked=4), sees=healthy(first))
    assert [one.slot for one in launches(result)] == [1]
    assert [(hold.slot, hold.kind) for hold in result.holds] == [(2, "gradual"), (3, "gradual")]
    assert launches(result)[0].id in result.holds[0].reason


def test_gradual_scaling_waits_for_the_one_that_is_on_its_way():
    first, second = replica(0), replica(1, STARTING)
    sees = changed(healthy(first), containers=(container(first), container(second)))
    result = plan(gradual(first, second, asked=3), sees=sees)
    assert result.actions == ()
    assert result.holds[0].reason == (
        f"scaling is gradual: replica {second.id} has to be ready first"
    )


def test_gradual_scaling_does_not_delay_the_way_back_from_nothing():
    assert len(launches(plan(gradual(asked=3)))) == 3


# Revisions.


def test_an_old_revision_serves_until_the_new_one_is_ready():
    old, new = replica(0), replica(0, STARTING, revision=2)
    item = deployment(old, new, revision=2)
    sees = changed(healthy(old), containers=(container(old), container(new)))
    assert plan(item, sees=sees) == Plan()
    ready = deployment(old, replica(0, revision=2), revision=2)
    result = plan(ready, sees=healthy(*ready.replicas))
    assert ids(result.actions) == [("Drain", old.id)]
    assert result.actions[0].reason == "revision 2 has taken its place"


def test_each_ready_replica_of_the_new_revision_relieves_one_of_the_old():
    old = [replica(slot) for slot in range(3)]
    new = replica(0, revision=2)
    result = plan(deployment(*old, new, asked=3, revision=2), sees=healthy(*old, new))
    assert [name for name in ids(result.actions) if name[0] == "Drain"] == [("Drain", old[2].id)]


def test_a_failing_new_revision_takes_no_old_replica_down():
    old = replica(0)
    row = [failed(number=number, revision=2) for number in range(5)]
    result = plan(deployment(old, *row, revision=2), sees=healthy(old))
    assert result.actions == ()
    assert result.holds[0].kind == "backoff"


# A silent engine.


def test_a_silent_engine_lets_nothing_be_concluded_of_containers():
    rows = [replica(0, PENDING), replica(1, STARTING), replica(2), replica(3, DRAINING)]
    item = deployment(*rows, asked=3, startup_timeout=1.0)
    assert plan(item, sees=silent_engine()) == Plan()


def test_a_silent_engine_holds_what_is_missing():
    result = plan(deployment(asked=2), sees=silent_engine())
    assert result.actions == ()
    assert {hold.kind for hold in result.holds} == {"engine"}
    assert "does not answer" in result.holds[0].reason


def test_replicas_may_come_into_service_and_drain_while_the_engine_is_silent():
    ready = replica(0, STARTING)
    surplus = replica(1, STARTING)
    result = plan(deployment(ready, surplus, asked=1), sees=silent_engine(ready))
    assert ids(result.actions) == [("MarkRunning", ready.id), ("Drain", surplus.id)]


# Orphans and the end.


def test_containers_without_an_active_replica_are_removed():
    ended = failed()
    unknown = ObservedContainer(id="c-unknown", replica_id="unknown", running=True)
    sees = observed(unknown, container(ended, running=False))
    result = plan(deployment(ended, asked=0), sees=sees)
    assert result.actions == (
        RemoveOrphan(container_id="c-unknown", replica_id="unknown", reason="it has no replica"),
        RemoveOrphan(
            container_id=f"c-{ended.id}", replica_id=ended.id, reason="its replica has ended"
        ),
    )


def test_an_orphan_that_is_being_removed_is_left_alone():
    unknown = ObservedContainer(id="c-unknown", replica_id="unknown", running=True)
    assert plan(sees=observed(unknown, working=frozenset({"unknown"}))) == Plan()


def test_deleting_drains_everything_and_then_forgets():
    rows = [replica(0), replica(1, STARTING)]
    sees = changed(healthy(rows[0]), containers=tuple(container(one) for one in rows))
    result = plan(deployment(*rows, asked=2, deleting=True), sees=sees)
    assert ids(result.actions) == [("Drain", rows[0].id), ("Drain", rows[1].id)]
    assert {action.reason for action in result.actions} == {"the model is being deleted"}
    ended = deployment(failed(), asked=2, deleting=True)
    assert plan(ended).actions == (FinishDelete(deployment_id="deploy_a"),)


def test_deleting_waits_for_what_still_drains():
    one = replica(state=DRAINING)
    sees = observed(container(one), in_flight={one.id: 1})
    assert plan(deployment(one, deleting=True), sees=sees) == Plan()
