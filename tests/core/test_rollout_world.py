"""Rollouts in a world that goes wrong, with people who change their minds at any moment.

The checks of every single tick are in `watch`: the floor, the routes, whose room it is. Here is how
such a world is made and where it ends up.
"""

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.rollout import course
from prsmd.core.sight import Sight
from prsmd.core.slots import lay_out
from prsmd.core.status import derive
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.quantity import GIB
from prsmd.domain.rollout import RolloutPhase, RolloutStrategy
from prsmd.domain.spec import Resources
from tests.core import watch
from tests.core.cases import HALF_GPU, ONE_GPU, SMALL
from tests.core.world import Fate, World
from tests.support.examples import examples

TWO_GPUS = Resources(cpu_millis=1000, memory_bytes=GIB, gpu_millis=2000)
MUCH_CPU = Resources(cpu_millis=3000, memory_bytes=GIB)
SIZES = st.sampled_from([SMALL, ONE_GPU, ONE_GPU, HALF_GPU, TWO_GPUS, MUCH_CPU])
NUMBERS = st.integers(0, 3)
OPTIONS = st.fixed_dictionaries(
    {"strategy": st.sampled_from(RolloutStrategy)},
    optional={
        "max_surge": st.integers(0, 3),
        "min_ready_seconds": st.sampled_from([0.0, 10.0]),
        "bake_seconds": st.sampled_from([0.0, 10.0, 60.0]),
        "steps": st.sampled_from([(10,), (10, 50), (50, 100)]),
        "promote_by_hand": st.booleans(),
    },
)
UPDATES = st.fixed_dictionaries(
    {"options": OPTIONS, "fate": st.sampled_from([Fate.READY, Fate.READY, *Fate])},
    optional={"resources": SIZES, "tag": st.sampled_from(["same", "moved"])},
)


def event(name, *values):
    return st.tuples(st.just(name), NUMBERS, *values)


DEPLOYS = event("deploy", st.tuples(SIZES, st.integers(0, 3)))
CHANGES = st.one_of(
    event("update", UPDATES),
    event("update", UPDATES),
    event("update", UPDATES),
    event("in place", st.none()),
    event("roll back", OPTIONS),
    event("abort", st.none()),
    event("pause", st.booleans()),
    event("promote", st.none()),
    event("weigh", st.sampled_from([0, 30, 100])),
    event("scale", st.integers(0, 4)),
    event("gradual", st.integers(0, 4)),
    event("delete", st.none()),
    event("load", st.sampled_from([0.0, 0.5, 3.0])),
)
MISHAPS = st.one_of(
    DEPLOYS,
    event("crash", st.integers(0, 9)),
    event("lose", st.integers(0, 9)),
    event("kill", st.integers(0, 5)),
    event("engine", st.booleans()),
    event("busy", st.integers(0, 9)),
    event("strangers", st.sampled_from([0, 4 * GIB, 14 * GIB])),
    event("lag", st.sampled_from([0.0, 12.0, 90.0])),
    event("slow", st.sampled_from([0.0, 12.0])),
)
WAITS = event("wait", st.tuples(st.sampled_from([1, 5.0, 40.0]), st.integers(1, 6)))
HISTORIES = st.builds(
    lambda gpus, deploys, steps: (gpus, [*deploys, *(one for step in steps for one in step)]),
    st.integers(1, 3),
    st.lists(st.tuples(DEPLOYS, WAITS).map(list), min_size=1, max_size=2).map(
        lambda pairs: [one for pair in pairs for one in pair]
    ),
    st.lists(
        st.tuples(st.one_of(CHANGES, CHANGES, MISHAPS), WAITS), min_size=1, max_size=14
    ),
)  # fmt: skip


def happen(world, what, number, value):
    if what in MISHAPPENS:
        MISHAPPENS[what](world, number, value)
        return
    known = [id_ for id_, item in world.desired.items() if not item.deployment.deleting]
    if known:
        ASKED[what](world, known[number % len(known)], value)


def wait(world, _, value):
    seconds, ticks = value
    for _ in range(ticks):
        world.tick(seconds)


def deploy(world, _, value):
    resources, asked = value
    world.deploy(resources=resources, asked=asked, startup_timeout=60.0)


def keep_busy(world, _, place):
    world.busy |= set(sorted(world.rows)[place : place + 1])


def roll_back(world, id_, options):
    earlier = [one.number for one in world.desired[id_].others]
    if earlier:
        world.roll_back(id_, min(earlier), **options)


MISHAPPENS = {
    "wait": wait,
    "deploy": deploy,
    "kill": lambda world, _, actions: world.tick(killed_after=actions),
    "crash": lambda world, _, which: world.crash_container(which),
    "lose": lambda world, _, which: world.remove_container(which),
    "engine": lambda world, _, up: setattr(world, "engine_up", up),
    "busy": keep_busy,
    "strangers": lambda world, card, held: setattr(world, "strangers", {f"GPU-{card}": held}),
    "lag": lambda world, _, seconds: setattr(world, "memory_lag", seconds),
    "slow": lambda world, _, seconds: setattr(world, "task_seconds", seconds),
}
ASKED = {
    "update": lambda world, id_, value: update(world, id_, **value),
    "in place": lambda world, id_, _: world.update_in_place(id_),
    "roll back": roll_back,
    "abort": lambda world, id_, _: world.abort(id_),
    "pause": lambda world, id_, paused: world.pause(id_, paused=paused),
    "promote": lambda world, id_, _: world.promote(id_),
    "weigh": lambda world, id_, weight: world.weigh(id_, weight),
    "scale": lambda world, id_, count: world.scale(id_, count),
    "gradual": lambda world, id_, count: world.scale(id_, count, ScalingStrategy.GRADUAL),
    "delete": lambda world, id_, _: world.change(id_, deleting=True),
    "load": lambda world, id_, work: world.load.update({id_: work}),
}


def update(world, id_, *, options, fate, resources=None, tag=None):
    image = world.desired[id_].revision.spec.image if tag is not None else None
    if tag == "moved":
        world.tags[image] = f"moved at {world.now}"
    world.update(id_, fate, resources=resources, image=image, **options)


def play(history):
    gpus, events = history
    world = World(gpus=gpus)
    for one in events:
        happen(world, *one)
    return world


def seen(world, id_):
    """Return a deployment as it is now, with its layout and what it is seen in."""
    desired, observed = world.snapshot()
    item = next(one for one in desired if one.deployment.id == id_)
    sight = Sight.of(observed)
    return item, lay_out(item, sight), sight


@given(HISTORIES)
@examples(150)
def test_whatever_happens_a_calm_world_comes_to_rest_and_says_what_it_waits_for(history):
    world = play(history)
    world.calm()
    world.settle()
    watch.at_rest(world)
    for id_ in world.desired:
        item, layout, sight = seen(world, id_)
        held = [hold for hold in world.plan.holds if hold.deployment_id == id_]
        onward = course(item, layout, sight)
        assert onward.action is None
        view = derive(item, sight.observed, world.plan.holds)
        if watch.rolling(item):
            assert onward.waiting_for
            assert held or waits_for_somebody(item, onward.waiting_for), onward.waiting_for
            assert onward.waiting_for in view.message or not layout.target
        elif not held:
            assert view.available_replicas == layout.target


def waits_for_somebody(item, words):
    trying = item.rollout.phase is RolloutPhase.TRYING
    idle = "scaled to zero" in words
    return item.rollout.paused or trying or idle


@given(HISTORIES)
@examples(60)
def test_whatever_happens_to_updates_all_of_them_end_once_people_let_them(history):
    """Load comes, everyone is patient, trials are promoted: no rollout goes on for ever."""
    world = play(history)
    world.calm()
    for _ in range(6):
        for id_, item in world.desired.items():
            world.load[id_] = 5.0
            world.pause(id_, paused=False)
            world.promote(id_)
            if not item.deployment.asked_replicas:
                world.scale(id_, 1)
        world.settle()
    for hold in world.plan.holds:
        assert hold.kind in {"unplaceable", "surge", "swap", "gradual"}
    held = {hold.deployment_id for hold in world.plan.holds}
    assert all(world.under_way(id_) is None or id_ in held for id_ in world.desired)
