"""What a client is told of a deployment: one table of situations, then what holds for all."""

import pytest

from prsmd.core.plan import Hold, Plan, Probe
from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.status import derive
from prsmd.domain.deployment import DeploymentStatus
from prsmd.domain.replica import ExitCause, ExitKind, ReplicaState
from tests.core.cases import (
    NOW,
    ONE_GPU,
    changed,
    container,
    deployment,
    failed,
    healthy,
    observed,
    replica,
    silent_engine,
)

PENDING, STARTING = ReplicaState.PENDING, ReplicaState.STARTING
RUNNING, DRAINING = ReplicaState.RUNNING, ReplicaState.DRAINING
S = DeploymentStatus


def view(item, sees, holds=None):
    if holds is None:
        holds = reconcile([item], sees, NOW, Policy()).holds
    return derive(item, sees, holds)


def brief(item, sees):
    found = view(item, sees)
    counts = (found.desired_replicas, found.ready_replicas, found.available_replicas)
    return found.status, found.health_status, found.reason, counts


def row(count, slot=0, **changes):
    return [failed(slot, number=number, at=NOW, **changes) for number in range(count)]


def mixed(*ready, others=()):
    """Every container runs; only `ready` replicas answer their probe."""
    boxes = tuple(container(one) for one in (*ready, *others))
    return changed(healthy(*ready), containers=boxes)


ONE, TWO, THREE = replica(0), replica(1), replica(2)
STOPPED = replica(0, ReplicaState.STOPPED, id="before", finished_at=NOW - 50, ready_at=NOW - 60)
NO_IMAGE = ExitCause(kind=ExitKind.IMAGE_UNAVAILABLE, message="no such image: model:1")
MEMORY = ExitCause(kind=ExitKind.OUT_OF_MEMORY, message="needed more than its memory limit")
OLD, NEW = replica(0), replica(0, STARTING, revision=2)
UPDATED = replica(0, revision=2)
SITUATIONS = {
    "nothing is there yet": (
        deployment(),
        observed(),
        (S.DEPLOYING, "starting", "Scheduling", (1, 0, 0)),
    ),
    "the first replica is being launched": (
        deployment(replica(state=PENDING)),
        observed(),
        (S.DEPLOYING, "starting", "Launching", (1, 0, 0)),
    ),
    "the first replica starts": (
        deployment(NEWEST := replica(state=STARTING)),
        observed(container(NEWEST)),
        (S.DEPLOYING, "starting", "Starting", (1, 0, 0)),
    ),
    "all replicas serve": (
        deployment(ONE, TWO, asked=2),
        healthy(ONE, TWO),
        (S.RUNNING, "healthy", "Running", (2, 2, 2)),
    ),
    "all serve while the engine is silent": (
        deployment(ONE),
        silent_engine(ONE),
        (S.RUNNING, "healthy", "Running", (1, 1, 1)),
    ),
    "the first try failed": (
        deployment(*row(1)),
        observed(),
        (S.DEPLOYING, "unhealthy", "Exited", (1, 0, 0)),
    ),
    "three tries failed": (
        deployment(*row(3)),
        observed(),
        (S.FAILED, "unhealthy", "Exited", (1, 0, 0)),
    ),
    "a fourth try starts": (
        deployment(*row(3), replica(state=STARTING)),
        observed(container(replica(state=STARTING))),
        (S.FAILED, "unhealthy", "Exited", (1, 0, 0)),
    ),
    "the image cannot be had": (
        deployment(failed(at=NOW, exit=NO_IMAGE)),
        observed(),
        (S.FAILED, "unhealthy", "ImageUnavailable", (1, 0, 0)),
    ),
    "no GPU": (
        deployment(resources=ONE_GPU),
        observed(),
        (S.DEPLOYING, "unhealthy", "Unplaceable", (1, 0, 0)),
    ),
    "no GPU for the second": (
        deployment(ONE, asked=2, resources=ONE_GPU),
        healthy(ONE),
        (S.DEGRADED, "degraded", "Unplaceable", (2, 1, 1)),
    ),
    "the second is on its way": (
        deployment(ONE, SECOND := replica(1, STARTING), asked=2),
        mixed(ONE, others=(SECOND,)),
        (S.SCALING, "healthy", "Starting", (2, 1, 1)),
    ),
    "the second failed": (
        deployment(ONE, *row(1, slot=1, exit=MEMORY), asked=2),
        healthy(ONE),
        (S.DEGRADED, "degraded", "OutOfMemory", (2, 1, 1)),
    ),
    "the second does not answer": (
        deployment(ONE, TWO, asked=2),
        mixed(ONE, others=(TWO,)),
        (S.DEGRADED, "degraded", "NotReady", (2, 1, 1)),
    ),
    "the only one does not answer": (
        deployment(ONE),
        observed(container(ONE)),
        (S.DEGRADED, "unhealthy", "NotReady", (1, 0, 0)),
    ),
    "one is missing and the engine is silent": (
        deployment(ONE, asked=2),
        silent_engine(ONE),
        (S.DEGRADED, "degraded", "EngineUnreachable", (2, 1, 1)),
    ),
    "scaled to zero": (
        deployment(STOPPED, asked=0),
        observed(),
        (S.IDLE, "unknown", "ScaledToZero", (0, 0, 0)),
    ),
    "on the way to zero": (
        deployment(replica(state=DRAINING), asked=0),
        observed(container(ONE), in_flight={ONE.id: 1}),
        (S.SCALING, "unknown", "Draining", (0, 0, 0)),
    ),
    "back from zero": (
        deployment(STOPPED, replica(state=PENDING)),
        observed(),
        (S.SCALING, "starting", "Launching", (1, 0, 0)),
    ),
    "one too many": (
        deployment(ONE, TWO, asked=1),
        healthy(ONE, TWO),
        (S.SCALING, "healthy", "Draining", (1, 1, 1)),
    ),
    "an update under way": (
        deployment(OLD, NEW, revision=2),
        mixed(OLD, others=(NEW,)),
        (S.UPDATING, "healthy", "Updating", (1, 0, 1)),
    ),
    "an update that fails": (
        deployment(OLD, *row(3, revision=2), revision=2),
        healthy(OLD),
        (S.DEGRADED, "degraded", "Exited", (1, 0, 1)),
    ),
    "the end of an update": (
        deployment(changed(OLD, state=DRAINING), UPDATED, revision=2),
        mixed(UPDATED, others=(OLD,)),
        (S.SCALING, "healthy", "Draining", (1, 1, 1)),
    ),
    "being deleted": (
        deployment(ONE, deleting=True),
        healthy(ONE),
        (S.DELETING, "unknown", "Deleting", (0, 0, 0)),
    ),
}


@pytest.mark.parametrize(("item", "sees", "told"), SITUATIONS.values(), ids=SITUATIONS.keys())
def test_each_situation_has_its_status_health_reason_and_counts(item, sees, told):
    assert brief(item, sees) == told


@pytest.mark.parametrize(("item", "sees", "told"), SITUATIONS.values(), ids=SITUATIONS.keys())
def test_every_status_says_something_in_words_and_one_word(item, sees, told):
    found = view(item, sees)
    assert found.message.strip()
    assert found.reason.isalpha()
    assert found.reason[0].isupper()
    for condition in found.conditions:
        assert condition.message.strip()
        assert condition.reason.isalpha()


@pytest.mark.parametrize(("item", "sees", "told"), SITUATIONS.values(), ids=SITUATIONS.keys())
def test_conditions_agree_with_the_counts(item, sees, told):
    found = view(item, sees)
    conditions = {condition.type: condition.status for condition in found.conditions}
    assert list(conditions) == [
        "Available",
        "Progressing",
        "Placed",
        "RolledOut",
        "EngineReachable",
    ]
    assert conditions["Available"] == (found.available_replicas > 0)
    assert conditions["EngineReachable"] == (sees.containers is not None)
    assert conditions["Placed"] == (found.reason != "Unplaceable")
    if found.status in {S.RUNNING, S.IDLE, S.FAILED}:
        assert not conditions["Progressing"]


def test_the_message_passes_on_why_nothing_fits():
    message = view(deployment(asked=2, resources=ONE_GPU), observed()).message
    assert message == (
        "0 of 2 replicas can serve. "
        "slots 0, 1: insufficient resources: GPUs (node: there is no GPU)"
    )


def test_the_message_passes_on_how_it_ended_and_that_it_is_tried_again():
    message = view(deployment(*row(3)), observed()).message
    assert message == (
        "0 of 1 replicas can serve. slot 0: failed 3 times in a row, last: exited with code 3;"
        " it is tried again after a pause"
    )


def test_the_message_keeps_the_last_cause_while_the_next_try_starts():
    one = replica(state=STARTING)
    probes = {one.id: Probe(ready=False, last_error="connection refused")}
    sees = observed(container(one), probes=probes)
    message = view(deployment(*row(1), one), sees).message
    assert message == (
        f"0 of 1 replicas can serve. replica {one.id} is starting and not ready yet:"
        " connection refused. failed once, last: exited with code 3"
    )


def test_the_message_names_old_revisions_that_stand_in():
    message = view(*SITUATIONS["an update under way"][:2]).message
    assert message.startswith("1 of 1 replicas can serve. 1 of an earlier revision stand in. ")


def test_the_message_says_when_the_engine_is_silent_although_all_is_served():
    message = view(deployment(ONE), silent_engine(ONE)).message
    assert message.endswith("the container engine does not answer; what runs is left as it is")


def test_a_failure_in_a_slot_that_is_no_longer_wanted_does_not_degrade():
    item = deployment(ONE, *row(5, slot=4))
    assert view(item, healthy(ONE)).status is S.RUNNING


def test_what_other_deployments_wait_for_does_not_matter():
    others = Hold(deployment_id="deploy_other", slot=0, kind="unplaceable", reason="theirs")
    assert view(deployment(ONE), healthy(ONE), [others]).status is S.RUNNING


def test_a_failure_without_a_noted_cause_is_still_told():
    found = view(deployment(*row(1, exit=None)), observed(), Plan().holds)
    assert found.reason == "Failed"
    assert "for an unknown reason" in found.message
