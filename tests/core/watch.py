"""What must hold in every tick of the model of the world.

The floor of a rollout, in full: a serving replica is drained as surplus only while as many others
serve as are wanted, of the new revision only those that have settled. Beyond that one at a time
gives way, once everything new has settled, where the new one fits only then: never in vain.
"""

from prsmd.core.capacity import capacity_of, reserve
from prsmd.core.place import place
from prsmd.core.plan import (
    Drain,
    Fail,
    FinishDelete,
    Launch,
    MarkRunning,
    RemoveOrphan,
    ScaleStep,
    Stop,
    Unplaceable,
)
from prsmd.core.room import MAKES_ROOM, RECREATES, ROOM_BACK_SECONDS, without
from prsmd.domain.replica import ReplicaState
from prsmd.domain.rollout import RolloutPhase, RolloutStrategy

_WITHOUT_ENGINE = (Drain, FinishDelete, MarkRunning, ScaleStep)
_BESIDE_ONLY = {RolloutStrategy.SURGE, RolloutStrategy.BLUE_GREEN, RolloutStrategy.SHADOW}


def check_plan(world, desired, observed):
    actions, up = world.plan.actions, world.engine_up
    about = [action.replica.id for action in actions if hasattr(action, "replica")]
    assert len(set(about)) == len(about), "two actions for one replica"
    orphans = [action for action in actions if isinstance(action, RemoveOrphan)]
    assert all(action.container_id in world.boxes for action in orphans)
    for action in orphans:
        row = world.rows.get(action.replica_id)
        assert row is None or not row.active, "the container of an active replica removed"
        assert action.replica_id != "foreign", "a container of somebody else removed"
    assert up or all(isinstance(a, _WITHOUT_ENGINE) for a in actions)
    assert all(hold.reason for hold in world.plan.holds)
    for item in desired:
        if not item.deployment.deleting:
            _check_routes(world, item)
            _check_surplus(world, item)
            _check_yields(world, desired, item, observed)
    _check_theft(world, desired)


def check_rows(world):
    active = [row for row in world.rows.values() if row.active]
    slots = [(row.deployment_id, row.revision, row.slot) for row in active]
    assert len(set(slots)) == len(slots), "two active replicas in one slot"
    assert sum(row.placement.cpu_millis for row in active) <= world.node.cpu_millis
    assert sum(row.placement.memory_bytes for row in active) <= world.node.memory_bytes
    for card in world.node.gpus.gpus:
        here = [r.placement for r in active if card.uuid in r.placement.gpu_uuids]
        assert sum(placed.gpu_millis for placed in here) <= 1000
        assert sum(placed.gpu_memory_bytes for placed in here) <= card.memory_total_bytes
    assert any(box.replica_id == "foreign" for box in world.boxes.values())


def rolling(item):
    return item.rollout is not None and item.rollout.active


def settled(world, item, row):
    """Tell whether a serving replica counts: a new one has been ready for long enough."""
    if not world.serves(row):
        return False
    if not rolling(item) or row.revision not in item.current_numbers:
        return True
    rollout = item.rollout
    proven = world.now - row.ready_at >= rollout.options.min_ready_seconds
    return row.ready_at < rollout.started_at or proven


def drained(world, item):
    """Return the serving replicas that the plan drains, each with the reason."""
    return [
        (world.rows[action.replica.id], action.reason)
        for action in world.plan.actions
        if isinstance(action, Drain) and action.replica.deployment_id == item.deployment.id
        if world.serves(world.rows[action.replica.id])
    ]


def _check_routes(world, item):
    route = world.table.routes[item.deployment.id]
    ending = {a.replica.id for a in world.plan.actions if isinstance(a, Drain | Stop | Fail)}
    given_up = _given_up(item)
    can_serve = [r for r in item.replicas if world.serves(r) and r.id not in ending]
    for target in route.targets:
        assert target.replica_id not in ending
        row = world.rows[target.replica_id]
        assert world.serves(row)
        bad = row.revision in given_up
        assert not bad or all(r.revision in given_up for r in can_serve), "traffic to what is bad"
        trying = rolling(item) and item.rollout.phase is RolloutPhase.TRYING
        assert target.on_trial == (trying and row.revision in item.current_numbers)
    assert route.targets or not can_serve, "there is one to serve and it gets nothing"
    assert route.targets or route.waiting_for
    assert route.trial is None or item.rollout.phase is RolloutPhase.TRYING


def _given_up(item):
    if item.rollout is None or item.rollout.phase is not RolloutPhase.ROLLED_BACK:
        return set()
    return {item.rollout.to_revision} - item.current_numbers


def _check_surplus(world, item):
    lost = [(row, reason) for row, reason in drained(world, item) if MAKES_ROOM not in reason]
    good = [row for row, _ in lost if row.revision not in _given_up(item)]
    if not good:
        return
    gone = {row.id for row, _ in drained(world, item)}
    left = sum(settled(world, item, row) for row in item.replicas if row.id not in gone)
    assert left >= world.target(item.deployment.id), f"drained below the target: {lost}"


def _check_yields(world, desired, item, observed):
    lost = [(row, reason) for row, reason in drained(world, item) if MAKES_ROOM in reason]
    if not lost:
        return
    assert item.rollout is not None
    options = item.rollout.options
    current = [r for r in item.replicas if r.active and r.revision in item.current_numbers]
    launched = [a for a in world.plan.actions if isinstance(a, Launch)]
    mine = [a for a in launched if a.replica.deployment_id == item.deployment.id]
    active = rolling(item)
    recreates = all(reason.endswith(RECREATES) for _, reason in lost)
    assert len(lost) == 1 or recreates, "several gave way at once"
    if not (active and options.strategy is RolloutStrategy.RECREATE):
        assert all(settled(world, item, row) for row in current), "one gave way too early"
        assert not mine, "one gave way while another one comes"
    if active:
        assert not item.rollout.paused
        assert item.rollout.phase is not RolloutPhase.PREPARING, "something was touched too early"
        trying = item.rollout.phase is RolloutPhase.TRYING
        assert not trying or options.strategy is RolloutStrategy.CANARY
        replaces = item.rollout.phase is RolloutPhase.REPLACING
        assert options.strategy is not RolloutStrategy.SURGE or not replaces
        key = (item.deployment.id, item.rollout.number)
        given = world.yielded.setdefault(key, set())
        given |= {row.id for row, _ in lost}
        proven = [r for r in item.replicas if r.revision in item.current_numbers and r.ready_at]
        assert recreates or len(given) <= 1 + len(proven), "a bad revision takes good ones down"
    _check_not_in_vain(world, desired, item, observed)


def _check_not_in_vain(world, desired, item, observed):
    """The new one fits without those that give way, and only so, unless it was asked otherwise."""
    options = item.rollout.options
    ends = [a.replica for a in world.plan.actions if isinstance(a, Drain | Stop | Fail)]
    lost = [row for row in item.replicas if row.id in {one.id for one in ends}]
    free = capacity_of(observed, (row for one in desired for row in one.replicas))
    free = reserve(free, (a.replica for a in world.plan.actions if isinstance(a, Launch)))
    after = place(item.revision.spec.resources, without(free, lost))
    assert not isinstance(after, Unplaceable), "gave way in vain"
    one_first = options.max_surge == 0 or options.strategy in {
        RolloutStrategy.BUFFERED_SWAP,
        RolloutStrategy.RECREATE,
    }
    if not (rolling(item) and one_first) and not any(_claims_of_others(world, desired, item)):
        before = place(item.revision.spec.resources, free)
        assert isinstance(before, Unplaceable), "gave way although there was room beside it"


def _claims_of_others(world, desired, item):
    return [_owed(world, one) for one in desired if one is not item]


def _owed(world, item):
    """Return the whole GPUs that a rollout has given up and not taken again, and how many."""
    rollout = item.rollout
    back = {RolloutPhase.ROLLED_BACK, RolloutPhase.ABORTED}
    if rollout is None or rollout.base is None or not (rollout.active or rollout.phase in back):
        return set()
    if any(one.spec.resources != item.revision.spec.resources for one in item.others):
        return set()  # what the smaller one leaves over is anybody's
    active = [row for row in item.replicas if row.active]
    if len(active) >= min(world.target(item.deployment.id), rollout.base):
        return set()
    taken = {uuid for row in active for uuid in row.placement.gpu_uuids}
    return {
        uuid
        for row in item.replicas
        if not row.active and row.finished_at >= rollout.started_at
        if world.now - row.finished_at < ROOM_BACK_SECONDS
        if row.placement.gpu_millis == 1000
        for uuid in row.placement.gpu_uuids
    } - taken


def _check_theft(world, desired):
    """Nobody takes the room that a rollout gave up for its new revision, or needs to go back."""
    for item in desired:
        owed = _owed(world, item)
        lacking = min(world.target(item.deployment.id), item.rollout.base) if owed else 0
        lacking -= sum(row.active for row in item.replicas)
        thieves = [
            action.replica
            for action in world.plan.actions
            if isinstance(action, Launch)
            and action.replica.deployment_id != item.deployment.id
            and owed & set(action.replica.placement.gpu_uuids)
        ]
        free = owed - {uuid for one in thieves for uuid in one.placement.gpu_uuids}
        assert item.deployment.deleting or not thieves or len(free) >= lacking, "room was taken"


def at_rest(world):
    """Check what must hold when nothing is left to do or to wait for."""
    desired, _ = world.snapshot()
    assert not world.plan.actions
    held = {hold.deployment_id for hold in world.plan.holds}
    for item in desired:
        id_ = item.deployment.id
        active = [row for row in item.replicas if row.active]
        assert {row.state for row in active} <= {ReplicaState.RUNNING}
        assert not item.deployment.deleting
        live = item.current_numbers | (item.stable_numbers if rolling(item) else frozenset())
        strays = [row for row in active if row.revision not in live]
        assert not strays or rolling(item) or id_ in held, "what nobody wants is still there"
        if not rolling(item):
            assert len(active) == world.target(id_) or id_ in held
