"""Who gets traffic while one revision takes over from another, and what a client is told then."""

import pytest

from prsmd.core.plan import Plan, Probe
from prsmd.core.routes import routes
from prsmd.core.status import derive
from prsmd.domain.deployment import DeploymentStatus
from prsmd.domain.replica import ReplicaState
from prsmd.domain.rollout import RolloutPhase, RolloutStrategy
from tests.core.cases import NOW, ONE_GPU, changed, container, failed, gpu, healthy, node, replica
from tests.core.situations import (
    PREPARING,
    REPLACING,
    TRYING,
    new,
    on_gpu,
    plan,
    rolling,
    rollout,
)

S = RolloutStrategy
OLD, NEW = replica(0), new(0)


def route(item, sees):
    sees = changed(sees, at=NOW)
    return routes([item], sees, plan(item, sees=sees)).routes["deploy_a"]


def served(item, sees):
    return {(target.revision, target.on_trial) for target in route(item, sees).targets}


def gone_back(*rows, phase=RolloutPhase.ROLLED_BACK, **changes):
    """Return a deployment that wants revision 1 again."""
    item = rolling(*rows, now=rollout(phase, finished_at=NOW - 1, outcome="it was bad"), **changes)
    item = changed(item, revision=item.others[0], others=(item.revision,))
    return changed(item, deployment=changed(item.deployment, revision=1))


@pytest.mark.parametrize(
    ("item", "targets"),
    [
        (rolling(OLD, now=PREPARING), {(1, False)}),
        (rolling(OLD, NEW, asked=2), {(1, False), (2, False)}),
        (rolling(OLD, new(ready_at=NOW), asked=2), {(1, False)}),
        (rolling(OLD, NEW, now=rollout(TRYING, strategy=S.CANARY)), {(1, False), (2, True)}),
        (rolling(NEW, now=rollout(TRYING, strategy=S.CANARY)), {(2, True)}),
        (gone_back(OLD, NEW), {(1, False)}),
        (gone_back(NEW), {(2, False)}),
        (gone_back(OLD, NEW, phase=RolloutPhase.ABORTED, asked=2), {(1, False), (2, False)}),
        (gone_back(NEW, phase=RolloutPhase.ABORTED), {(2, False)}),
        (rolling(new(ready_at=NOW)), {(2, False)}),
    ],
    ids=[
        "preparing: the earlier one",
        "replacing: both",
        "replacing: the new one not before it has proven itself",
        "on trial: both, told apart",
        "on trial, with nothing else left",
        "rolled back: never the bad one",
        "rolled back: the bad one where there is nothing better",
        "aborted: both, neither is known to be bad",
        "aborted: what there is",
        "replacing: one that is not proven, where there is nothing else",
    ],
)
def test_each_moment_has_its_targets(item, targets):
    assert served(item, healthy(*item.replicas)) == targets


def test_after_a_rollback_what_was_superseded_goes_on_serving():
    """It is not the one that was bad."""
    between = new(1, id="between")
    item = gone_back(OLD, between, changed(new(2, id="bad"), revision=3), asked=2)
    third = changed(item.others[0], number=3, image_digest="sha-of-3")
    item = changed(item, others=(*item.others, third), rollout=changed(item.rollout, to_revision=3))
    found = route(item, healthy(*item.replicas))
    assert [target.replica_id for target in found.targets] == [OLD.id, "between"]


def test_traffic_is_divided_on_trial_only():
    canary = rollout(TRYING, strategy=S.CANARY, step_since=NOW)
    item = rolling(OLD, NEW, now=canary)
    assert route(item, healthy(OLD, NEW)).trial.weight == 10
    after = changed(item, rollout=changed(canary, phase=REPLACING))
    assert route(after, healthy(OLD, NEW)).trial is None


def test_while_room_is_made_requests_wait_and_there_is_hope():
    leaving = replica(0, ReplicaState.DRAINING, placement=on_gpu(0))
    item = rolling(leaving, resources=ONE_GPU)
    sees = healthy(leaving, here=node(gpu()), in_flight={leaving.id: 1})
    found = route(item, sees)
    assert (found.targets, found.hopeless) == ((), False)
    assert found.waiting_for == f"slot 0: waits for the room of {leaving.id}, which is draining"


def test_on_the_way_back_they_wait_too_although_the_memory_is_not_back_yet():
    crashed = failed(0, revision=2, at=NOW - 1, placement=on_gpu(0), created_at=NOW - 5)
    item = gone_back(crashed, resources=ONE_GPU)
    sees = healthy(here=node(gpu()), strangers={"GPU-0": 8 << 30})
    found = route(item, sees)
    assert (found.targets, found.hopeless) == ((), False)
    assert "waits until the room that was made for it is really free" in found.waiting_for


# What a client is told.


def view(item, sees):
    sees = changed(sees, at=NOW)
    return derive(item, sees, plan(item, sees=sees).holds)


STARTING = new(0, ReplicaState.STARTING, ready_at=None)
D = DeploymentStatus
TOLD = {
    "its image is brought here": (
        rolling(OLD, now=PREPARING),
        [OLD],
        D.UPDATING,
        "(auto, preparing): image m:2 is being brought here; nothing is touched before",
    ),
    "it takes over": (
        rolling(OLD, STARTING),
        [OLD],
        D.UPDATING,
        "revision 2 is being rolled out (auto, replacing): 0 of 1 replicas have taken over",
    ),
    "it is paused": (
        rolling(OLD, STARTING, now=rollout(paused=True)),
        [OLD],
        D.UPDATING,
        "paused; 0 of 1 replicas have taken over",
    ),
    "it is on trial": (
        rolling(OLD, NEW, now=rollout(TRYING, strategy=S.CANARY, step_since=NOW - 1)),
        [OLD, NEW],
        D.UPDATING,
        "10 % of the traffic goes to revision 2; it bakes",
    ),
    "it was rolled back": (
        gone_back(OLD),
        [OLD],
        D.RUNNING,
        "revision 2 was rolled back: it was bad",
    ),
}


@pytest.mark.parametrize(("item", "ready", "status", "words"), TOLD.values(), ids=TOLD.keys())
def test_each_moment_is_told(item, ready, status, words):
    sees = changed(healthy(*ready), containers=tuple(map(container, item.replicas)))
    found = view(item, sees)
    assert found.status is status
    assert words in found.message
    assert found.health_status == "healthy"
    rolled_out = next(one for one in found.conditions if one.type == "RolledOut")
    assert not rolled_out.status
    assert words in rolled_out.message
    assert rolled_out.reason == ("RolledBack" if status is D.RUNNING else "RollingOut")


def test_what_fits_nowhere_beside_it_is_told_with_the_reason_for_each_gpu():
    old = replica(0, placement=on_gpu(0))
    item = rolling(old, now=rollout(strategy=S.SURGE), resources=ONE_GPU)
    found = view(item, healthy(old, here=node(gpu())))
    assert (found.status, found.available_replicas) == (D.DEGRADED, 1)
    assert f"GPU-0 (NVIDIA T4): reserved whole by {old.id}" in found.message
    assert found.rollout_waits_for == "0 of 1 replicas have taken over"


def test_a_rollout_that_went_well_is_not_spoken_of():
    item = rolling(NEW, now=rollout(RolloutPhase.COMPLETED))
    found = view(item, healthy(NEW))
    assert found.message == "1 of 1 replicas can serve"
    assert next(one for one in found.conditions if one.type == "RolledOut").status


def test_a_deaf_replica_is_no_target_on_either_side():
    item = rolling(OLD, NEW, asked=2)
    sees = changed(healthy(OLD, NEW), probes={NEW.id: Probe(ready=True)}, at=NOW)
    targets = routes([item], sees, Plan()).routes["deploy_a"].targets
    assert [target.replica_id for target in targets] == [NEW.id]
