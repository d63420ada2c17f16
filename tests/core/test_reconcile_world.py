"""Plans carried out again and again, in a world that goes wrong: what must hold always holds.

The checks of every single tick are in `world.World`; here is where a world ends up.
"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prsmd.core.reconcile import reconcile
from prsmd.core.sight import Sight
from prsmd.core.slots import lay_out
from prsmd.domain.deployment import DeploymentStatus, ScalingStrategy
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import ReplicaState
from tests.core.cases import HALF_GPU, ONE_GPU, SMALL, changed
from tests.core.world import FOREIGN, POLICY, Fate, World, derive
from tests.support.examples import examples

NUMBERS = st.integers(0, 3)
DEPLOYS = st.tuples(
    st.just("deploy"),
    st.tuples(st.sampled_from([SMALL, ONE_GPU, HALF_GPU]), NUMBERS, st.sampled_from(Fate)),
)
TICKS = st.tuples(st.just("tick"), st.integers(1, 6))
MISHAPS = st.one_of(
    DEPLOYS,
    TICKS,
    st.tuples(st.just("pause"), st.sampled_from([1.0, 40.0, 700.0])),
    st.tuples(st.just("scale"), st.tuples(NUMBERS, st.integers(0, 4))),
    st.tuples(st.just("gradual"), NUMBERS),
    st.tuples(st.just("update"), st.tuples(NUMBERS, st.sampled_from(Fate))),
    st.tuples(st.just("delete"), NUMBERS),
    st.tuples(st.just("crash"), st.integers(0, 9)),
    st.tuples(st.just("lose"), st.integers(0, 9)),
    st.tuples(st.just("kill"), st.integers(0, 4)),
    st.tuples(st.just("engine"), st.booleans()),
    st.tuples(st.just("busy"), st.integers(0, 9)),
    st.tuples(st.just("strangers"), st.integers(0, 16)),
)
# A mishap proves little in an empty world or one that stands still: deploy first, tick in between.
HISTORIES = st.builds(
    lambda deploys, steps: [*deploys, *(event for step in steps for event in step)],
    st.lists(DEPLOYS, min_size=1, max_size=3),
    st.lists(st.tuples(MISHAPS, TICKS), min_size=1, max_size=20),
)


def live(world, number):
    """Return a deployment that is not being deleted, or None."""
    known = [id_ for id_, item in world.desired.items() if not item.deployment.deleting]
    return known[number % len(known)] if known else None


def happen(world, what, value):
    match what:
        case "tick":
            for _ in range(value):
                world.tick()
        case "pause":
            world.tick(value)
        case "deploy":
            resources, asked, fate = value
            id_ = world.deploy(resources=resources, asked=asked, startup_timeout=60.0)
            world.fates[id_, 1] = fate
        case "scale" | "update" | "delete" | "gradual":
            change(world, what, value)
        case _:
            go_wrong(world, what, value)


def go_wrong(world, what, value):
    match what:
        case "kill":
            world.tick(killed_after=value)
        case "crash":
            world.crash_container(value)
        case "lose":
            world.remove_container(value)
        case "engine":
            world.engine_up = value
        case "busy":
            world.busy |= set(sorted(world.rows)[value : value + 1])
        case "strangers":
            world.strangers = {"GPU-0": value * GIB}


def change(world, what, value):
    number = value[0] if isinstance(value, tuple) else value
    id_ = live(world, number)
    if id_ is None:
        return
    match what:
        case "scale":
            world.change(id_, asked_replicas=value[1])
        case "update":
            world.update(id_, value[1])
        case "gradual":
            world.change(id_, scaling_strategy=ScalingStrategy.GRADUAL)
        case "delete":
            world.change(id_, deleting=True)


def play(history):
    world = World()
    for what, value in history:
        happen(world, what, value)
    return world


@given(HISTORIES)
@examples(150)
def test_whatever_happened_a_calm_world_comes_to_rest_as_it_was_asked_for(history):
    world = play(history)
    world.calm()
    world.settle()
    held = {hold.deployment_id for hold in world.plan.holds}
    assert {hold.kind for hold in world.plan.holds} <= {"unplaceable"}
    available = world.available()
    for id_, item in world.desired.items():
        assert not item.deployment.deleting
        asked = item.deployment.asked_replicas
        assert available[id_] == asked or id_ in held
        assert available[id_] <= asked


@given(HISTORIES)
@settings(deadline=None)
def test_at_rest_there_is_no_orphan_and_every_active_replica_has_its_container(history):
    world = play(history)
    world.calm()
    world.settle()
    active = {row.id for row in world.rows.values() if row.active}
    assert {box.replica_id for box in world.boxes.values()} == active | {"foreign"}
    assert {row.state for row in world.rows.values() if row.active} <= {ReplicaState.RUNNING}
    assert {row.deployment_id for row in world.rows.values() if row.active} <= set(world.desired)


@given(HISTORIES)
@settings(deadline=None)
def test_the_same_state_at_the_same_moment_gives_the_same_plan_in_any_order(history):
    world = play(history)
    desired, observed = world.snapshot()
    plan = reconcile(desired, observed, world.now, POLICY)
    again = reconcile(desired[::-1], observed, world.now, POLICY)
    assert plan.holds == again.holds
    assert sorted(map(repr, plan.actions)) == sorted(map(repr, again.actions))


@given(HISTORIES)
@settings(deadline=None)
def test_every_empty_slot_is_launched_or_held_with_a_reason(history):
    world = play(history)
    desired, observed = world.snapshot()
    plan = reconcile(desired, observed, world.now, POLICY)
    for item in desired:
        if item.deployment.deleting:
            continue
        launched = [a for a in plan.actions if type(a).__name__ == "Launch"
                    and a.replica.deployment_id == item.deployment.id]  # fmt: skip
        holds = [hold for hold in plan.holds if hold.deployment_id == item.deployment.id]
        found = lay_out(item, Sight.of(changed(observed, at=world.now)))
        missing = (*found.empty, *found.withheld, *found.refilled)
        assert len(launched) + len(holds) == len(missing)


@given(st.integers(0, 6), st.integers(0, 6))
@settings(deadline=None)
def test_a_daemon_killed_at_any_point_of_a_deploy_finishes_it(actions, ticks):
    world = World()
    id_ = world.deploy(asked=3)
    for _ in range(ticks):
        world.tick()
    world.tick(killed_after=actions)
    world.settle()
    assert world.available()[id_] == 3
    assert len(world.rows) == 3, "nothing was launched twice"


@pytest.mark.parametrize("fate", [Fate.CRASH, Fate.NEVER])
def test_a_bad_update_never_takes_the_good_revision_down(fate):
    world = World()
    id_ = world.deploy(asked=2, startup_timeout=60.0)
    world.settle()
    world.update(id_, fate)
    for _ in range(100):
        world.tick(20.0)
        assert world.available()[id_] == 2
        assert len(world.table.routes[id_].targets) == 2
    desired, observed = world.snapshot()
    view = derive(desired[0], observed, world.plan.holds)
    assert view.status is DeploymentStatus.RUNNING
    assert "was rolled back" in view.message


def test_a_good_update_replaces_everything_without_a_gap():
    world = World()
    id_ = world.deploy(asked=3)
    world.settle()
    world.update(id_, Fate.READY)
    for _ in range(20):
        world.tick()
        assert world.available()[id_] >= 3
        assert world.table.routes[id_].targets
    assert {row.revision for row in world.rows.values() if row.active} == {2}


def test_a_replica_that_always_crashes_is_tried_less_and_less_often():
    world = World()
    id_ = world.deploy()
    world.fates[id_, 1] = Fate.CRASH
    launched = []
    for _ in range(2000):
        world.tick(2.0)
        launched += [world.now for action in world.plan.actions if hasattr(action, "replica")
                     and type(action).__name__ == "Launch"]  # fmt: skip
    gaps = [later - before for before, later in itertools.pairwise(launched)]
    assert 10 <= len(launched) <= 25, "4000 s hold about seven doublings and then one in 5 min"
    assert max(gaps) <= 300 * 1.2 + 20
    assert gaps[7] > 10 * gaps[0]


def test_a_deaf_replica_is_replaced():
    world = World()
    id_ = world.deploy()
    world.fates[id_, 1] = Fate.DEAF
    world.tick()
    world.fates.clear()
    for _ in range(12):
        world.tick()
    world.settle()
    assert world.available()[id_] == 1
    assert [row.exit.kind.value for row in world.rows.values() if row.exit] == ["liveness_failed"]


def test_an_engine_outage_changes_nothing_and_ends_without_a_trace():
    world = World()
    id_ = world.deploy(asked=2)
    world.settle()
    rows = dict(world.rows)
    world.engine_up = False
    for _ in range(50):
        world.tick()
        assert len(world.table.routes[id_].targets) == 2
    world.engine_up = True
    world.tick()
    assert (world.rows, world.plan.actions) == (rows, ())


def test_a_replica_with_work_in_flight_is_drained_before_it_goes_and_only_so_long():
    world = World()
    id_ = world.deploy()
    world.settle()
    (row,) = world.rows
    world.busy.add(row)
    world.change(id_, asked_replicas=0)
    for _ in range(6):
        world.tick()
        assert f"c-{row}" in world.boxes
    world.tick()
    assert f"c-{row}" not in world.boxes
    assert world.rows[row].state is ReplicaState.STOPPED


def test_more_than_fits_is_held_and_placed_as_soon_as_there_is_room():
    world = World(gpus=2)
    first = world.deploy(resources=ONE_GPU, asked=2)
    second = world.deploy(resources=ONE_GPU, asked=1)
    world.settle()
    assert [hold.deployment_id for hold in world.plan.holds] == [second]
    world.change(first, deleting=True)
    world.settle()
    assert list(world.desired) == [second]
    assert world.available() == {second: 1}
    assert FOREIGN in world.boxes
