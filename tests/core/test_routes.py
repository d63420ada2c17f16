"""Who gets traffic, and what a request waits for where nobody does."""

import pytest

from prsmd.core.plan import Drain, Fail, Hold, Plan, Probe, Stop
from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.routes import RouteTarget, RoutingTable, routes
from prsmd.domain.replica import Endpoint, ExitCause, ExitKind, ReplicaState
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
DRAINING = ReplicaState.DRAINING


def route(item, sees, plan=None):
    plan = reconcile([item], sees, NOW, Policy()) if plan is None else plan
    return routes([item], sees, plan).routes[item.deployment.id]


def served(item, sees, plan=None):
    return [target.replica_id for target in route(item, sees, plan).targets]


def test_ready_replicas_get_traffic_at_their_address():
    one, two = replica(0), replica(1)
    found = route(deployment(one, two, asked=2), healthy(one, two))
    spoken = {"revision": 1, "version": "1.0.0", "serving": found.serving}
    assert found.targets == (
        RouteTarget(replica_id=one.id, endpoint=one.endpoint, **spoken),
        RouteTarget(replica_id=two.id, endpoint=two.endpoint, **spoken),
    )
    assert (found.waiting_for, found.hopeless) == ("", False)


def test_a_route_carries_what_the_data_path_needs():
    one = replica(0)
    item = deployment(one)
    found = route(item, healthy(one))
    assert (found.organization, found.model_id, found.model_name) == ("org", "custom_m", "m")
    assert (found.model_type, found.version, found.revision) == ("text", "1.0.0", 1)
    assert found.serving == item.revision.spec.serving


@pytest.mark.parametrize("state", [PENDING, STARTING, DRAINING])
def test_only_replicas_in_service_get_traffic(state):
    one = replica(state=state)
    assert served(deployment(one), healthy(one), Plan()) == []


def test_a_replica_whose_probe_is_bad_gets_none():
    one = replica()
    sees = observed(container(one), probes={one.id: Probe(ready=False)})
    assert served(deployment(one), sees) == []
    assert served(deployment(one), observed(container(one))) == []


def test_a_replica_whose_container_ended_gets_none_although_its_last_probe_was_good():
    one = replica()
    good = {one.id: Probe(ready=True)}
    ended = observed(container(one, running=False), probes=good)
    assert served(deployment(one), ended, Plan()) == []
    assert served(deployment(one), observed(probes=good), Plan()) == []


@pytest.mark.parametrize(
    "action",
    [
        lambda one: Drain(replica=one, reason="r"),
        lambda one: Stop(replica=one, reason="r"),
        lambda one: Fail(replica=one, cause=ExitCause(kind=ExitKind.EXITED, message="m")),
    ],
)
def test_what_the_plan_ends_gets_no_more_traffic(action):
    one, two = replica(0), replica(1)
    item = deployment(one, two, asked=2)
    assert served(item, healthy(one, two), Plan(actions=(action(one),))) == [two.id]


def test_the_engines_address_wins_over_the_one_in_the_row():
    one = replica()
    moved = Endpoint("10.0.0.9", 1)
    sees = changed(healthy(one), containers=(changed(container(one), endpoint=moved),))
    assert route(deployment(one), sees).targets[0].endpoint == moved


def test_without_any_address_there_is_no_target():
    one = replica(endpoint=None)
    assert served(deployment(one), healthy(one)) == []


def test_the_current_revision_goes_first_and_the_old_one_only_stands_in():
    old, new = replica(0), replica(0, revision=2)
    item = deployment(old, new, revision=2, asked=2)
    assert served(item, healthy(old, new)) == [new.id]
    sees = changed(healthy(old), containers=(container(old), container(new)))
    assert served(item, sees) == [old.id]


def test_inference_goes_on_while_the_engine_is_silent():
    one, sick = replica(0), replica(1)
    assert served(deployment(one, sick, asked=2), silent_engine(one)) == [one.id]


def test_a_deployment_that_is_deleted_has_no_route():
    one = replica()
    item = deployment(one, deleting=True)
    assert routes([item], healthy(one), Plan()) == RoutingTable(routes={})


# What a request waits for.


def test_a_model_scaled_to_zero_waits_for_a_start_and_there_is_hope():
    found = route(deployment(asked=0), observed())
    assert found.waiting_for == "the model is scaled to zero; a replica has to be started"
    assert not found.hopeless


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (PENDING, "is being launched (image pull and container start)"),
        (STARTING, "is starting and not ready yet: connection refused"),
        (ReplicaState.RUNNING, "is not ready: connection refused"),
    ],
)
def test_a_replica_on_its_way_is_waited_for(state, words):
    one = replica(state=state)
    probes = {one.id: Probe(ready=False, last_error="connection refused")}
    found = route(deployment(one), observed(container(one), probes=probes), Plan())
    assert found.waiting_for == f"replica {one.id} {words}"
    assert not found.hopeless


def test_a_launch_that_is_just_decided_is_waited_for():
    found = route(deployment(), observed())
    assert (found.waiting_for, found.hopeless) == ("a replica has to be launched", False)


def test_what_fits_nowhere_is_hopeless_and_says_why():
    found = route(deployment(asked=2, resources=ONE_GPU), observed())
    assert found.hopeless
    assert found.waiting_for == ("slots 0, 1: insufficient resources: GPUs (node: there is no GPU)")


@pytest.mark.parametrize(("count", "hopeless"), [(1, False), (2, False), (3, True), (9, True)])
def test_failing_is_hopeless_from_the_third_time_in_a_row(count, hopeless):
    row = [failed(number=number, at=NOW) for number in range(count)]
    found = route(deployment(*row), observed())
    assert found.hopeless is hopeless
    assert "exited with code 3" in found.waiting_for


def test_an_image_that_cannot_be_had_is_hopeless_at_once():
    cause = ExitCause(kind=ExitKind.IMAGE_UNAVAILABLE, message="no such image: model:1")
    found = route(deployment(failed(at=NOW, exit=cause)), observed())
    assert found.hopeless
    assert "no such image: model:1" in found.waiting_for


def test_one_slot_with_hope_is_hope():
    row = [failed(0, number=number, at=NOW) for number in range(5)]
    item = deployment(*row, failed(1, at=NOW), asked=2)
    assert not route(item, observed()).hopeless


def test_a_further_try_that_is_under_way_is_hope():
    row = [failed(0, number=number, at=NOW) for number in range(5)]
    one = replica(state=STARTING)
    assert not route(deployment(*row, one), observed(container(one))).hopeless


def test_a_silent_engine_is_waited_for():
    found = route(deployment(), silent_engine())
    assert not found.hopeless
    assert "the container engine does not answer" in found.waiting_for


def test_the_holds_of_other_deployments_do_not_matter():
    others = Hold(deployment_id="deploy_other", slot=0, kind="unplaceable", reason="theirs")
    found = route(deployment(), observed(), Plan(holds=(others,)))
    assert (found.waiting_for, found.hopeless) == ("a replica has to be launched", False)
