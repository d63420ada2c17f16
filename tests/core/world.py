"""A model of the world that carries plans out as the daemon would, and can go wrong as it can.

Rows, containers and tasks in progress are kept apart, as they are in reality: a daemon that dies
loses its tasks, keeps its rows and leaves the containers running. Every tick checks what must hold.
"""

import dataclasses
import enum

from prsmd.core.plan import (
    Adopt,
    Advance,
    Drain,
    Fail,
    FinishDelete,
    Launch,
    MarkRunning,
    NoteGood,
    Observed,
    ObservedContainer,
    Plan,
    Prepare,
    Probe,
    RemoveOrphan,
    Resume,
    ScaleStep,
    Stop,
)
from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.routes import routes
from prsmd.core.status import derive
from prsmd.domain.replica import TRANSITIONS, Endpoint, ReplicaState
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase
from tests.core.cases import NOW, changed, deployment, gpu, node

PENDING, STARTING = ReplicaState.PENDING, ReplicaState.STARTING
RUNNING, DRAINING = ReplicaState.RUNNING, ReplicaState.DRAINING
STOPPED, FAILED = ReplicaState.STOPPED, ReplicaState.FAILED
COMPLETED, ABORTED = RolloutPhase.COMPLETED, RolloutPhase.ABORTED
ROLLED_BACK = RolloutPhase.ROLLED_BACK
FOREIGN = "c-of-somebody-else"
KEPT_ENDED = 20
POLICY = Policy()
TICK_SECONDS = 5.0
ADDRESS = Endpoint("10.0.0.1", 80)


class Fate(enum.Enum):
    """What becomes of a container."""

    READY = "ready"
    CRASH = "crash"  # ends before it was ever ready
    NEVER = "never"
    DEAF = "deaf"  # was ready, then answers no probe any more


@dataclasses.dataclass
class Box:
    """A container as the engine holds it; `age` counts ticks since its launch."""

    replica_id: str
    fate: Fate
    running: bool = True
    age: int = 0


class World:
    """One appliance. Change it through its methods; `tick` observes, decides, checks, applies."""

    def __init__(self, gpus=2, cpu=8000):
        self.now = NOW
        self.node = node(*(gpu(index) for index in range(gpus)), cpu=cpu)
        self.desired = {}
        self.rows = {}
        self.boxes = {FOREIGN: Box("foreign", Fate.READY)}
        self.tasks = {}  # by replica id: what the executor has begun and not finished
        self.engine_up = True
        self.fates = {}  # by deployment id and revision
        self.busy = set()  # replica ids that always have something in flight
        self.strangers = {}
        self.plan = Plan()
        self.table = None
        self._count = 0
        self._rollouts = 0

    # What people do.

    def deploy(self, **spec):
        self._count += 1
        item = deployment(id=f"deploy_{self._count}", created_at=float(self._count), **spec)
        self.desired[item.deployment.id] = item
        return item.deployment.id

    def change(self, id_, **values):
        item = self.desired[id_]
        self.desired[id_] = changed(item, deployment=changed(item.deployment, **values))

    def update(self, id_, fate, **options):
        """Ask for a new revision, as the service does: what was good is what it goes back to."""
        item = self.desired[id_]
        number = max(one.number for one in (item.revision, *item.others)) + 1
        stable = item.deployment.stable_revision
        goes_back_to = item.deployment.revision if stable is None else stable
        revision = changed(
            item.revision, number=number, spec=changed(item.revision.spec, image=f"model:{number}")
        )
        self._rollouts += 1
        rollout = Rollout(
            deployment_id=id_,
            number=self._rollouts,
            from_revision=goes_back_to,
            to_revision=number,
            options=RolloutOptions(**options),
            started_at=self.now,
            started_by="someone",
        )
        self.fates[id_, number] = fate
        self.change(id_, revision=number)
        self.desired[id_] = changed(
            self.desired[id_],
            revision=revision,
            others=(*item.others, item.revision),
            rollout=rollout,
        )

    def abort(self, id_):
        """Give a rollout up, as a person does."""
        item = self.desired[id_]
        if item.rollout is not None and item.rollout.active:
            self._store_rollout(changed(item.rollout, phase=ABORTED, finished_at=self.now))

    def _store_rollout(self, after):
        """Store a rollout; where it goes back, its deployment does too."""
        id_ = after.deployment_id
        item = changed(self.desired[id_], rollout=after)
        self.desired[id_] = item
        if after.phase is COMPLETED:
            self.change(id_, stable_revision=item.deployment.revision)
        elif after.phase in {ROLLED_BACK, ABORTED}:
            known = (item.revision, *item.others)
            back = next(one for one in known if one.number == after.from_revision)
            others = tuple(one for one in known if one is not back)
            self.desired[id_] = changed(item, revision=back, others=others)
            self.change(id_, revision=back.number)

    # What happens to them.

    def crash_container(self, number):
        running = [id_ for id_, box in self.boxes.items() if box.running and id_ != FOREIGN]
        if running:
            self.boxes[running[number % len(running)]].running = False

    def remove_container(self, number):
        known = [id_ for id_ in self.boxes if id_ != FOREIGN]
        if known:
            del self.boxes[known[number % len(known)]]

    def kill_daemon(self):
        """All tasks are lost half-way: a launch may have made its container or not."""
        for place, (replica_id, step) in enumerate(sorted(self.tasks.items())):
            if step == "launch" and self.engine_up and place % 2:
                self._make_box(self.rows[replica_id])
        self.tasks.clear()

    # One tick of the daemon.

    def tick(self, seconds=TICK_SECONDS, *, killed_after=None):
        """Observe, decide, check and apply; `killed_after` is how many actions come before -9."""
        self.now += seconds
        self._age()
        before = self.available()
        desired, observed = self.snapshot()
        self.plan = reconcile(desired, observed, self.now, POLICY)
        self.table = routes(desired, observed, self.plan)
        for item in desired:
            derive(item, observed, self.plan.holds)
        self._check_plan(before)
        for number, action in enumerate(self.plan.actions):
            if number == killed_after:
                break
            self._apply(action)
        if killed_after is not None:
            self.kill_daemon()
        self._check_rows()
        self._finish_tasks()

    def snapshot(self):
        """Return desired and observed state as the daemon reads them: rows after containers."""
        boxes = {id_: box for id_, box in self.boxes.items() if id_ != FOREIGN}
        seen = tuple(
            ObservedContainer(
                id=id_,
                replica_id=box.replica_id,
                running=box.running,
                endpoint=ADDRESS if box.running else None,
                exit_code=None if box.running else 1,
            )
            for id_, box in boxes.items()
        )
        observed = Observed(
            node=self.node,
            containers=seen if self.engine_up else None,
            probes={box.replica_id: _probe(box) for box in boxes.values()},
            in_flight=dict.fromkeys(self.busy, 1),
            working=frozenset(self.tasks),
            strangers=self.strangers,
            at=self.now,
        )
        desired = [changed(item, replicas=self._rows_of(id_)) for id_, item in self.desired.items()]
        return desired, observed

    def available(self):
        """Return how many replicas of each deployment can serve now."""
        counts = dict.fromkeys(self.desired, 0)
        for row in self.rows.values():
            if row.deployment_id in counts and self.serves(row):
                counts[row.deployment_id] += 1
        return counts

    def serves(self, row):
        box = self._box_of(row)
        return row.state is RUNNING and box is not None and box.running and _probe(box).ready

    def calm(self):
        """Everything that was wrong is over; only what was broken already stays broken."""
        self.engine_up = True
        self.busy.clear()
        self.strangers = {}
        self.fates.clear()
        for box in self.boxes.values():
            box.fate = Fate.READY if box.fate is Fate.DEAF else box.fate

    def settle(self, limit=300):
        """Tick in a calm world until nothing is left to do or to wait for; fail if never."""
        for _ in range(limit):
            self.tick(TICK_SECONDS if self.plan.actions or self._unripe() else 60.0)
            waits = any(hold.until is not None for hold in self.plan.holds)
            moving = any(row.active and row.state is not RUNNING for row in self.rows.values())
            if not (self.plan.actions or self.tasks or waits or moving or self._unripe()):
                return
        raise AssertionError(f"no fixed point: {self.plan}")

    # How plans are carried out.

    def _apply(self, action):
        if not self._move_on(action):
            self._carry_out(action)

    def _move_on(self, action):
        """Do what concerns a deployment; return whether it was that."""
        match action:
            case FinishDelete():
                del self.desired[action.deployment_id]
            case Prepare(rollout=rollout):
                self._store_rollout(changed(rollout, prepared=True))
            case Advance(after=after):
                self._store_rollout(after)
            case ScaleStep():
                self.change(action.deployment_id, gradual_level=action.replicas)
            case NoteGood():
                self.change(action.deployment_id, stable_revision=action.revision)
            case _:
                return False
        return True

    def _carry_out(self, action):
        match action:
            case Launch(replica=row):
                assert row.id not in self.rows
                self.rows[row.id] = row
                self.tasks[row.id] = "launch"
            case Resume(replica=row):
                self.tasks[row.id] = "launch"
            case Adopt(replica=row):
                self._started(row, action.container_id)
            case MarkRunning(replica=row):
                self._move(row, RUNNING, ready_at=self.now)
            case Drain(replica=row):
                self.tasks.pop(row.id, None)
                self._move(row, DRAINING, draining_since=self.now)
            case Stop(replica=row):
                self.tasks[row.id] = "stop"
            case Fail(replica=row):
                self.rows[row.id] = changed(self.rows[row.id], exit=action.cause)
                self.tasks[row.id] = "fail"
            case RemoveOrphan():
                self.boxes.pop(action.container_id, None)

    def _finish_tasks(self):
        if not self.engine_up:
            return
        for replica_id, step in list(self.tasks.items()):
            row = self.rows[replica_id]
            if step == "launch":
                self._make_box(row)
                self._started(row, f"c-{row.id}")
            else:
                self.boxes.pop(f"c-{row.id}", None)
                self._move(row, STOPPED if step == "stop" else FAILED, finished_at=self.now)
            del self.tasks[replica_id]

    def _make_box(self, row):
        fate = self.fates.get((row.deployment_id, row.revision), Fate.READY)
        self.boxes.setdefault(f"c-{row.id}", Box(row.id, fate))

    def _started(self, row, container_id):
        self._move(row, STARTING, started_at=self.now, container_id=container_id, endpoint=ADDRESS)

    def _move(self, row, state, **values):
        known = self.rows[row.id]
        assert state in TRANSITIONS[known.state], (known.state, state)
        self.rows[row.id] = changed(known, state=state, **values)

    def _age(self):
        for box in self.boxes.values():
            box.age += 1
            if box.fate is Fate.CRASH and box.age >= 2:
                box.running = False

    def _unripe(self):
        """Tell whether a container has yet to show what becomes of it."""
        return any(box.age <= 3 for box in self.boxes.values())

    def _box_of(self, row):
        return self.boxes.get(f"c-{row.id}")

    def _rows_of(self, id_):
        rows = [row for row in self.rows.values() if row.deployment_id == id_]
        ended = [row for row in rows if not row.active]
        ended.sort(key=lambda row: row.finished_at)
        return (*(row for row in rows if row.active), *ended[-KEPT_ENDED:])

    # What must hold in every tick.

    def _check_plan(self, before):
        about = [action.replica.id for action in self.plan.actions if hasattr(action, "replica")]
        assert len(set(about)) == len(about), "two actions for one replica"
        orphans = [action for action in self.plan.actions if isinstance(action, RemoveOrphan)]
        assert all(action.container_id in self.boxes for action in orphans)
        assert all(action.container_id != FOREIGN for action in orphans)
        for action in orphans:
            row = self.rows.get(action.replica_id)
            assert row is None or not row.active, "the container of an active replica removed"
        if not self.engine_up:
            assert all(isinstance(a, Drain | MarkRunning | FinishDelete) for a in self.plan.actions)
        assert all(hold.reason for hold in self.plan.holds)
        self._check_routes()
        self._check_floor(before)

    def _check_routes(self):
        ending = {a.replica.id for a in self.plan.actions if isinstance(a, Drain | Stop | Fail)}
        for route in self.table.routes.values():
            for target in route.targets:
                assert target.replica_id not in ending
                assert self.serves(self.rows[target.replica_id])
            assert route.targets or route.waiting_for

    def _check_floor(self, before):
        """Only as many serving replicas are drained as the target does not need.

        Beyond that one gives way at a time where a new one fits nowhere beside it.
        """
        drains = {a.replica.id: a.reason for a in self.plan.actions if isinstance(a, Drain)}
        for id_, item in self.desired.items():
            lost = [
                drains[row.id]
                for row in self.rows.values()
                if row.id in drains and row.deployment_id == id_ and self.serves(row)
            ]
            if item.deployment.deleting or not lost:
                continue
            yielded = [reason for reason in lost if reason.startswith("makes room")]
            assert len(yielded) <= 1 or "recreate" in yielded[0], "several gave way at once"
            plain = len(lost) - len(yielded)
            assert not plain or before[id_] - plain >= self.target(id_), "drained below the target"

    def target(self, id_):
        item = self.desired[id_]
        scaling = item.revision.spec.scaling
        asked = item.deployment.asked_replicas
        return max(scaling.min_replicas, min(asked, scaling.max_replicas))

    def _check_rows(self):
        active = [row for row in self.rows.values() if row.active]
        slots = [(row.deployment_id, row.revision, row.slot) for row in active]
        assert len(set(slots)) == len(slots), "two active replicas in one slot"
        assert sum(row.placement.cpu_millis for row in active) <= self.node.cpu_millis
        assert sum(row.placement.memory_bytes for row in active) <= self.node.memory_bytes
        for card in self.node.gpus.gpus:
            here = [r.placement for r in active if card.uuid in r.placement.gpu_uuids]
            assert sum(placed.gpu_millis for placed in here) <= 1000
            assert sum(placed.gpu_memory_bytes for placed in here) <= card.memory_total_bytes
        assert FOREIGN in self.boxes, "a container of somebody else was touched"


def _probe(box):
    if not box.running:
        return Probe(ready=False, failures=9, last_error="nothing listens")
    if box.fate is Fate.DEAF and box.age > 4:
        return Probe(ready=False, failures=box.age - 4, last_error="no answer in time")
    if box.fate is Fate.NEVER or box.age < 2:
        return Probe(ready=False, last_error="/health answered 503")
    return Probe(ready=True)
