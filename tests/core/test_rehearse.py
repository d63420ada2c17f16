"""Rehearsals say beforehand what plans would do; nothing they are given is changed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prsmd.core.plan import Observed, Probe
from prsmd.core.policy import Policy
from prsmd.core.rehearse import NOTHING, rehearse
from prsmd.core.trial import Reading, TrialReading
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import Placement
from prsmd.domain.rollout import Gate, Rollout, RolloutOptions, RolloutStrategy
from prsmd.domain.spec import Resources
from tests.core.cases import (
    HALF_GPU,
    NOW,
    ONE_GPU,
    SMALL,
    changed,
    deployment,
    failed,
    gpu,
    healthy,
    node,
    replica,
    silent_engine,
)
from tests.core.world import POLICY, Fate, World

TWO_GPUS = Resources(cpu_millis=1000, memory_bytes=GIB, gpu_millis=2000)
STRATEGIES = [
    RolloutStrategy.AUTO,
    RolloutStrategy.SURGE,
    RolloutStrategy.BUFFERED_SWAP,
    RolloutStrategy.RECREATE,
]


def on_gpu(slot=0, *uuids):
    placed = Placement(
        node="here",
        cpu_millis=1000,
        memory_bytes=GIB,
        gpu_uuids=uuids or (f"GPU-{slot}",),
        gpu_millis=1000,
        gpu_memory_bytes=15 * GIB,
    )
    return replica(slot, placement=placed)


def updated(*replicas, resources=SMALL, before=None, strategy="auto", **options):
    """Return a deployment whose second revision has just been asked for."""
    item = deployment(*replicas, asked=len(replicas), resources=before or resources)
    spec = changed(item.revision.spec, image="model:2", resources=resources)
    rollout = Rollout(
        deployment_id="deploy_a",
        number=1,
        from_revision=1,
        to_revision=2,
        options=RolloutOptions(strategy=RolloutStrategy(strategy), **options),
        started_at=NOW,
        started_by="someone",
    )
    return changed(
        item,
        deployment=changed(item.deployment, revision=2),
        revision=changed(item.revision, number=2, spec=spec),
        others=(item.revision,),
        rollout=rollout,
    )


def play(*items, observed=None):
    """Rehearse the first deployment; by default everything that is there is well."""
    rows = [row for item in items for row in item.replicas if row.active]
    seen = observed if observed is not None else healthy(*rows)
    return rehearse(items, seen, NOW, POLICY, items[0].deployment.id)


def told(found):
    """Return the steps in short: `launch r2 s0`."""
    return [
        f"{step.kind} r{step.revision}" + ("" if step.slot is None else f" s{step.slot}")
        for step in found.steps
    ]


def test_a_new_model_is_launched_and_gets_ready():
    found = play(deployment(asked=2, stable_revision=None))
    assert told(found) == ["launch r1 s0", "launch r1 s1", "ready r1 s0", "ready r1 s1"]
    assert (found.strategy, found.lowest_ready, found.reaches_goal) == ("launch", 0, True)
    assert found.steps[0].placement == Placement(node="here", cpu_millis=1000, memory_bytes=GIB)
    assert found.steps[0].replica_id is None, "it is not there yet: nobody can look it up"
    assert found.holds == ()


def test_an_update_that_fits_beside_what_runs_is_a_surge():
    found = play(updated(replica(0), replica(1), max_surge=1))
    assert told(found) == [
        "prepare r2",
        "launch r2 s0",
        "ready r2 s0",
        "drain r1 s1",
        "launch r2 s1",
        "stop r1 s1",
        "ready r2 s1",
        "drain r1 s0",
        "stop r1 s0",
        "rolled_out r2",
    ]
    assert (found.strategy, found.lowest_ready, found.reaches_goal) == ("surge", 2, True)
    drained = next(step for step in found.steps if step.kind == "drain")
    assert drained.replica_id == "deploy_a-r1-s1"
    assert drained.reason == "revision 2 has taken its place"
    assert found.steps[0].reason == "image model:2 is brought here; nothing is touched before"


@pytest.mark.parametrize("count", [1, 2])
def test_an_update_on_full_gpus_is_a_buffered_swap_one_after_the_other(count):
    rows = [on_gpu(slot) for slot in range(count)]
    here = node(*(gpu(index) for index in range(count)))
    found = play(updated(*rows, resources=ONE_GPU), observed=healthy(*rows, here=here))
    assert (found.strategy, found.lowest_ready) == ("buffered swap", count - 1)
    assert found.reaches_goal
    assert told(found)[:5] == [
        "prepare r2",
        "drain r1 s0",
        "stop r1 s0",
        "launch r2 s0",
        "ready r2 s0",
    ]
    assert found.steps[1].reason == ("makes room for revision 2, which does not fit beside it")
    assert found.steps[3].placement.gpu_uuids == ("GPU-0",)


def test_an_update_that_fits_only_where_all_have_gone_is_told_as_recreate():
    rows = [on_gpu(0), on_gpu(1)]
    item = updated(*rows, resources=TWO_GPUS, before=ONE_GPU)
    found = play(item, observed=healthy(*rows, here=node(gpu(0), gpu(1))))
    assert (found.strategy, found.lowest_ready) == ("recreate", 0)
    assert [step.kind for step in found.steps].count("drain") == 2
    assert [hold.slot for hold in found.holds] == [1], "two of them never fit"
    assert not found.reaches_goal


def test_a_strategy_that_was_asked_for_is_told_by_its_name():
    rows = [replica(0)]
    for name in ("surge", "buffered_swap", "recreate"):
        found = play(updated(*rows, strategy=name))
        assert found.strategy == name.replace("_", " ")
        assert found.reaches_goal
        assert found.lowest_ready == (1 if name == "surge" else 0)


def test_what_cannot_come_beside_the_old_is_held_with_the_reason_of_every_gpu():
    row = on_gpu(0)
    item = updated(row, resources=ONE_GPU, strategy="surge")
    found = play(item, observed=healthy(row, here=node(gpu(0))))
    assert (found.strategy, found.reaches_goal, found.lowest_ready) == ("surge", False, 1)
    (hold,) = found.holds
    assert hold.kind == "unplaceable"
    assert any("GPU-0" in reason for reason in hold.details)
    assert found.waits_for == "0 of 1 replicas have taken over"


def test_a_canary_takes_its_steps_and_no_measure_is_made_up():
    rows = [replica(slot) for slot in range(4)]
    gate = Gate(max_error_rate=0.01, max_latency_ratio=1.5, min_requests=50)
    item = updated(*rows, strategy="canary", steps=(25, 50), gate=gate, bake_seconds=3600.0)
    found = play(item)
    traffic = [step.reason for step in found.steps if step.kind == "traffic"]
    assert traffic == [
        "25 % of the traffic goes to revision 2 (1 ready); it bakes 3600 s",
        "50 % of the traffic goes to revision 2 (2 ready); it bakes 3600 s",
    ]
    promoted = next(step for step in found.steps if step.kind == "promoted")
    assert promoted.reason == (
        "revision 2 takes over once its gate has held: at most 1.0% errors and 1.5 times the"
        " stable latency, over at least 50 requests"
    )
    assert (found.strategy, found.reaches_goal, found.lowest_ready) == (
        "canary, then surge",
        True,
        4,
    )


@pytest.mark.parametrize("name", ["blue_green", "shadow"])
def test_other_trials_are_carried_through_too(name):
    found = play(updated(replica(0), strategy=name))
    kinds = [step.kind for step in found.steps]
    assert kinds.index("traffic") < kinds.index("promoted") < kinds.index("rolled_out")
    assert found.strategy == name.replace("_", " ")
    assert (found.lowest_ready, found.reaches_goal) == (1, True)


def test_a_trial_that_a_person_promotes_ends_where_the_person_is_waited_for():
    found = play(updated(replica(0), strategy="blue_green", promote_by_hand=True))
    assert found.waits_for == "it has passed; promote or abort it"
    assert not found.reaches_goal
    assert found.settled
    assert told(found)[-1] == "traffic r2"


def test_a_paused_rollout_is_waited_for():
    item = updated(replica(0))
    found = play(changed(item, rollout=changed(item.rollout, paused=True)))
    assert (told(found), found.waits_for) == (["prepare r2"], "paused; its image is here")
    assert (found.strategy, found.reaches_goal) == (NOTHING, False)


def test_what_runs_the_same_container_needs_no_step():
    row = replica(0)
    item = deployment(row)
    spec = changed(item.revision.spec, scaling=changed(item.revision.spec.scaling, max_replicas=5))
    wanted = changed(
        item,
        deployment=changed(item.deployment, revision=2),
        revision=changed(item.revision, number=2, spec=spec),
        others=(item.revision,),
    )
    found = play(wanted)
    assert (found.steps, found.strategy, found.reaches_goal) == ((), NOTHING, True)
    assert found.lowest_ready == 1


def test_more_replicas_than_fit_are_launched_as_far_as_they_fit():
    row = on_gpu(0)
    item = deployment(row, asked=3, resources=ONE_GPU)
    found = play(item, observed=healthy(row, here=node(gpu(0), gpu(1))))
    assert told(found) == ["launch r1 s1", "ready r1 s1"]
    assert found.steps[0].placement.gpu_uuids == ("GPU-1",)
    assert [(hold.slot, hold.kind) for hold in found.holds] == [(2, "unplaceable")]
    assert not found.reaches_goal


def test_fewer_replicas_are_drained():
    found = play(deployment(replica(0), replica(1), asked=1))
    assert told(found) == ["drain r1 s1", "stop r1 s1"]
    assert found.steps[0].reason == "only 1 replicas are wanted"
    assert (found.strategy, found.lowest_ready, found.reaches_goal) == ("drain", 1, True)


def test_gradual_scaling_takes_its_first_step_and_says_what_the_next_waits_for():
    item = deployment(
        replica(0), asked=3, gradual_level=2, scaling_strategy=ScalingStrategy.GRADUAL
    )
    found = play(item)
    assert told(found) == ["launch r1 s1", "ready r1 s1"]
    assert [hold.kind for hold in found.holds] == ["gradual"]
    assert not found.reaches_goal


def test_gradual_scaling_goes_as_far_as_the_load_justifies():
    row = replica(0)
    item = deployment(row, asked=3, gradual_level=2, scaling_strategy=ScalingStrategy.GRADUAL)
    found = play(item, observed=changed(healthy(row), demand={"deploy_a": 2.0}))
    assert [step.kind for step in found.steps if step.kind in {"launch", "scale"}] == [
        "launch",
        "scale",
        "launch",
    ]
    assert found.reaches_goal


def test_a_silent_engine_is_what_everything_waits_for():
    row = replica(0)
    found = play(deployment(row, asked=2), observed=silent_engine(row))
    assert [hold.kind for hold in found.holds] == ["engine"]
    assert (found.steps, found.reaches_goal) == ((), False)


def test_a_slot_that_backs_off_is_filled_once_its_time_has_come():
    item = deployment(failed(0))
    found = play(item, observed=healthy())
    assert told(found) == ["launch r1 s0", "ready r1 s0"]
    assert found.steps[0].reason == "replaces failed-s0-0"
    assert found.reaches_goal


def test_a_replica_whose_container_is_gone_is_told_as_failed():
    row = replica(0)
    found = play(deployment(row), observed=healthy())
    assert told(found)[:2] == ["fail r1 s0", "launch r1 s0"]
    assert found.steps[0].replica_id == row.id


def test_what_others_hold_counts_and_what_they_give_up_too():
    theirs = replica(0, deployment_id="deploy_b", placement=on_gpu(0).placement)
    other = deployment(theirs, id="deploy_b", resources=ONE_GPU)
    mine = deployment(asked=1, resources=ONE_GPU)
    seen = healthy(theirs, here=node(gpu(0)))
    assert not play(mine, other, observed=seen).reaches_goal
    leaving = changed(other, deployment=changed(other.deployment, deleting=True))
    found = play(mine, leaving, observed=seen)
    assert (told(found), found.reaches_goal) == (["launch r1 s0", "ready r1 s0"], True)


def test_what_others_do_meanwhile_is_not_told():
    mine = deployment(replica(0), asked=1)
    other = deployment(asked=2, id="deploy_b")
    assert play(mine, other).steps == ()


def test_another_trial_that_bakes_for_days_is_not_waited_for():
    mine = deployment(asked=1)
    theirs = replica(0, deployment_id="deploy_b")
    other = updated(theirs, strategy="canary", bake_seconds=7 * 86400.0)
    other = changed(
        other,
        deployment=changed(other.deployment, id="deploy_b"),
        rollout=changed(other.rollout, deployment_id="deploy_b"),
    )
    found = play(mine, other)
    assert found.reaches_goal
    assert found.end.replicas[0].ready_at < NOW + 60


def test_what_the_executor_is_doing_now_is_taken_to_end_well():
    coming = replica(0, state=replica(0).state.PENDING)
    seen = changed(healthy(), working=frozenset({coming.id}))
    found = play(deployment(coming), observed=seen)
    assert (told(found), found.reaches_goal) == (["ready r1 s0"], True)


def test_a_container_that_came_up_while_one_looked_is_not_lost():
    started = replica(0, state=replica(0).state.STARTING)
    seen = changed(healthy(), working=frozenset({started.id}))
    found = play(deployment(started), observed=seen)
    assert (told(found), found.reaches_goal) == (["ready r1 s0"], True)


def test_a_trial_under_way_is_judged_by_no_older_measure():
    row = replica(0)
    item = updated(row, strategy="blue_green")
    bad = TrialReading(key="another", trial=Reading(requests=99, errors=99))
    found = play(item, observed=changed(healthy(row), trials={"deploy_a": bad}))
    assert found.reaches_goal


def test_nothing_that_is_given_is_changed():
    row = replica(0)
    item, seen = updated(row), healthy(row)
    probes = dict(seen.probes)
    play(item, observed=seen)
    assert item == updated(row)
    assert seen.probes == probes == {row.id: Probe(ready=True)}


def many(count):
    """Return an update of so many replicas, one after the other, and what is observed of them."""
    rows = [replica(slot) for slot in range(count)]
    item = updated(*rows, max_surge=1)
    scaling = changed(item.revision.spec.scaling, max_replicas=1000)
    spec = changed(item.revision.spec, scaling=scaling)
    item = changed(item, revision=changed(item.revision, spec=spec))
    here = node(cpu=(count + 1) * 1000, memory=(count + 1) * GIB)
    return item, healthy(*rows, here=here)


def test_an_update_of_many_replicas_is_rehearsed_to_its_end():
    item, seen = many(30)
    found = play(item, observed=seen)
    assert (found.settled, found.reaches_goal) == (True, True)
    assert sum(step.kind == "launch" for step in found.steps) == 30


def test_a_rehearsal_that_takes_too_long_is_cut_off_and_says_so(monkeypatch):
    item, seen = many(10)
    monkeypatch.setattr("prsmd.core.rehearse.MOST_LOOKS", 200)
    found = play(item, observed=seen)
    assert (found.settled, found.reaches_goal) == (False, False)
    assert 0 < sum(step.kind == "launch" for step in found.steps) < 10


def outcome(item):
    """Return what a deployment has come to: its replicas with their places, and its rollout."""
    rows = [row for row in item.replicas if row.active]
    return (
        sorted((row.revision, row.slot, row.state.value) for row in rows),
        sorted(uuid for row in rows for uuid in row.placement.gpu_uuids),
        item.rollout and item.rollout.phase,
        item.revision.number,
    )


CHANGES = st.one_of(
    st.tuples(st.just("deploy"), st.sampled_from([SMALL, ONE_GPU, HALF_GPU]), st.integers(0, 3)),
    st.tuples(st.just("scale"), st.integers(0, 4), st.integers(0, 3)),
    st.tuples(st.just("update"), st.sampled_from(STRATEGIES), st.integers(0, 3)),
)


def change(world, what, value, number):
    """Ask for a change; return the deployment that it is about."""
    if what == "deploy" or not world.desired:
        resources = value if isinstance(value, Resources) else SMALL
        return world.deploy(resources=resources, asked=number)
    id_ = sorted(world.desired)[number % len(world.desired)]
    if what == "scale":
        world.change(id_, asked_replicas=value)
    else:
        world.update(id_, Fate.READY, strategy=value)
    return id_


@given(st.lists(CHANGES, min_size=1, max_size=5), st.integers(0, 3), st.integers(1, 3))
@settings(deadline=None)
def test_a_rehearsal_ends_where_the_world_does_when_nothing_goes_wrong(changes, ticks, gpus):
    world = World(gpus=gpus)
    for one in changes[:-1]:
        change(world, *one)
        for _ in range(ticks):
            world.tick()
    if ticks == 3:
        world.settle()
    id_ = change(world, *changes[-1])
    desired, observed = world.snapshot()
    found = rehearse(desired, observed, world.now, POLICY, id_)
    assert found.settled
    world.settle()
    desired, _ = world.snapshot()
    (item,) = (item for item in desired if item.deployment.id == id_)
    assert outcome(found.end) == outcome(item)
    held = {(h.kind, h.revision, h.slot) for h in world.plan.holds if h.deployment_id == id_}
    assert {(hold.kind, hold.revision, hold.slot) for hold in found.holds} == held
    assert found.lowest_ready <= world.available()[id_]


@given(st.integers(1, 3), st.sampled_from(STRATEGIES), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_the_lowest_number_of_serving_replicas_is_the_one_that_the_world_sees(
    asked, strategy, gpus
):
    world = World(gpus=gpus)
    id_ = world.deploy(resources=ONE_GPU, asked=asked)
    world.settle()
    world.update(id_, Fate.READY, strategy=strategy)
    desired, observed = world.snapshot()
    found = rehearse(desired, observed, world.now, POLICY, id_)
    seen = [world.available()[id_]]
    for _ in range(40):
        world.tick()
        seen.append(world.available()[id_])
    assert found.lowest_ready == min(seen)


def test_a_rehearsal_of_an_empty_world_says_that_there_is_nothing_to_do():
    found = rehearse(
        [deployment(asked=0)], Observed(node=node(), containers=()), NOW, Policy(), "deploy_a"
    )
    assert (found.steps, found.strategy, found.reaches_goal) == ((), NOTHING, True)
