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
    preparing,
)
from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.rollout import traffic
from prsmd.core.routes import routes
from prsmd.core.status import derive
from prsmd.core.trial import Reading, TrialReading
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import TRANSITIONS, Endpoint, ReplicaState
from prsmd.domain.rollout import RolloutPhase
from tests.core import watch
from tests.core.cases import NOW, changed, gpu, node
from tests.core.people import People

STARTING, RUNNING = ReplicaState.STARTING, ReplicaState.RUNNING
DRAINING, STOPPED = ReplicaState.DRAINING, ReplicaState.STOPPED
FAILED = ReplicaState.FAILED
FOREIGN = "c-of-somebody-else"
KEPT_ENDED = 20
POLICY = Policy()
TICK_SECONDS = 5.0
ADDRESS = Endpoint("10.0.0.1", 80)
GHOST_BYTES = 8 * GIB


class Fate(enum.Enum):
    """What becomes of a container."""

    READY = "ready"
    CRASH = "crash"  # ends before it was ever ready
    NEVER = "never"
    DEAF = "deaf"  # was ready, then answers no probe any more
    LATER = "later"  # was ready, then ends
    WRONG = "wrong"  # is ready, and answers with errors
    NO_IMAGE = "no image"


@dataclasses.dataclass
class Box:
    """A container as the engine holds it; `age` counts ticks since its launch."""

    replica_id: str
    fate: Fate
    running: bool = True
    age: int = 0


@dataclasses.dataclass
class Task:
    """What the executor has begun on a replica, or on a rollout, and since when."""

    step: str
    since: float
    about: object = None


class World(People):
    """One appliance. Change it through its methods; `tick` observes, decides, checks, applies."""

    def __init__(self, gpus=2, cpu=8000):
        self.now = NOW
        self.node = node(*(gpu(index) for index in range(gpus)), cpu=cpu)
        self.desired = {}
        self.rows = {}
        self.boxes = {FOREIGN: Box("foreign", Fate.READY)}
        self.tasks = {}  # by replica id, or as `preparing` names it
        self.task_seconds = 0.0  # how long one takes
        self.engine_up = True
        self.fates = {}  # by deployment id and revision
        self.fate_of_all = Fate.READY
        self.tags = {}  # what an image's name means, where that is not its first meaning
        self.busy = set()  # replica ids that always have something in flight
        self.strangers = {}
        self.memory_lag = 0.0  # seconds for which the memory of what ended is still in use
        self.ghosts = []
        self.load = {}  # how many replicas' worth of work, by deployment id
        self.measured = {}  # what was measured of trials, by deployment id
        self.yielded = {}  # ids of ready replicas that gave way, by rollout
        self.plan = Plan()
        self.table = None
        self._count = 0
        self._rollouts = 0

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
        for place, (replica_id, task) in enumerate(sorted(self.tasks.items())):
            if task.step == "launch" and self.engine_up and place % 2:
                self._make_box(self.rows[replica_id])
        self.tasks.clear()
        self.measured.clear()

    # One tick of the daemon.

    def tick(self, seconds=TICK_SECONDS, *, killed_after=None):
        """Observe, decide, check and apply; `killed_after` is how many actions come before -9."""
        self.now += seconds
        self._age()
        self._measure()
        desired, observed = self.snapshot()
        self.plan = reconcile(desired, observed, self.now, POLICY)
        self.table = routes(desired, observed, self.plan)
        for item in desired:
            derive(item, observed, self.plan.holds)
        watch.check_plan(self, desired, observed)
        for number, action in enumerate(self.plan.actions):
            if number == killed_after:
                break
            self._apply(action)
        if killed_after is not None:
            self.kill_daemon()
        watch.check_rows(self)
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
            strangers=self._seen_strangers(),
            trials=dict(self.measured),
            demand=dict(self.load),
            at=self.now,
        )
        return [self._read(id_) for id_ in self.desired], observed

    def available(self):
        """Return how many replicas of each deployment can serve now."""
        counts = dict.fromkeys(self.desired, 0)
        for row in self.rows.values():
            if row.deployment_id in counts and self.serves(row):
                counts[row.deployment_id] += 1
        return counts

    def serves(self, row):
        box = self.boxes.get(f"c-{row.id}")
        return row.state is RUNNING and box is not None and box.running and _probe(box).ready

    def calm(self):
        """Everything that was wrong is over; only what was broken already stays broken."""
        self.engine_up = True
        self.busy.clear()
        self.strangers = {}
        self.memory_lag = self.task_seconds = 0.0
        self.fates.clear()
        for box in self.boxes.values():
            box.fate = Fate.READY if box.fate in {Fate.DEAF, Fate.LATER, Fate.WRONG} else box.fate

    def settle(self, limit=400):
        """Tick in a calm world until nothing is left to do or to wait for; fail if never."""
        for _ in range(limit):
            working = bool(self.tasks)  # what ends in this tick is seen in the next one
            self.tick(TICK_SECONDS if self.plan.actions or self._unripe() else 60.0)
            waits = any(hold.until is not None for hold in self.plan.holds)
            waits = waits or self.plan.until is not None or bool(self.ghosts)
            moving = any(row.active and row.state is not RUNNING for row in self.rows.values())
            working = working or bool(self.plan.actions or self.tasks)
            if not (working or waits or moving or self._unripe()):
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
            case Prepare(rollout=rollout, revision=revision):
                self.tasks[preparing(rollout)] = Task("prepare", self.now, (rollout, revision))
            case Advance(before=before, after=after):
                if self.desired[before.deployment_id].rollout == before:
                    self.store_rollout(after)
            case ScaleStep():
                self.change(action.deployment_id, gradual_level=action.replicas)
            case NoteGood():
                if self.desired[action.deployment_id].deployment.revision == action.revision:
                    self.change(action.deployment_id, stable_revision=action.revision)
            case _:
                return False
        return True

    def _carry_out(self, action):
        match action:
            case Launch(replica=row):
                assert row.id not in self.rows
                self.rows[row.id] = row
                self.tasks[row.id] = Task("launch", self.now)
            case Resume(replica=row):
                self.tasks[row.id] = Task("launch", self.now)
            case Adopt(replica=row):
                self._started(row, action.container_id)
            case MarkRunning(replica=row):
                self._move(row, RUNNING, ready_at=self.now)
            case Drain(replica=row):
                self.tasks.pop(row.id, None)
                self._move(row, DRAINING, draining_since=self.now)
            case Stop(replica=row):
                self.tasks[row.id] = Task("stop", self.now)
            case Fail(replica=row):
                self.rows[row.id] = changed(self.rows[row.id], exit=action.cause)
                self.tasks[row.id] = Task("fail", self.now)
            case RemoveOrphan():
                self.boxes.pop(action.container_id, None)

    def _finish_tasks(self):
        done = [id_ for id_, t in self.tasks.items() if self.now - t.since >= self.task_seconds]
        for id_ in done if self.engine_up else ():
            task = self.tasks.pop(id_)
            if task.step == "prepare":
                self._prepared(*task.about)
            elif task.step == "launch":
                self._resolve(self.revision(self.rows[id_].deployment_id, self.rows[id_].revision))
                self._make_box(self.rows[id_])
                self._started(self.rows[id_], f"c-{id_}")
            else:
                self._end(self.rows[id_], STOPPED if task.step == "stop" else FAILED)

    def _prepared(self, rollout, revision):
        """Note what became of a preparation, as the store has the rollout by now."""
        id_ = rollout.deployment_id
        stored = self.desired[id_].rollout if id_ in self.desired else None
        if stored is None or (stored.number, stored.phase) != (
            rollout.number,
            RolloutPhase.PREPARING,
        ):
            return
        if self.fates.get((id_, revision.number)) is Fate.NO_IMAGE:
            self.store_rollout(changed(stored, trouble="no such image"))
        else:
            self._resolve(revision)
            self.store_rollout(changed(stored, prepared=True))

    def _resolve(self, revision):
        """Note what an image's name means now, once and for ever."""
        item = self.desired.get(revision.deployment_id) if revision is not None else None
        if item is None or revision.image_digest is not None:
            return
        image = revision.spec.image
        pinned = changed(revision, image_digest=self.tags.get(image, f"sha of {image}"))
        others = tuple(pinned if one.number == pinned.number else one for one in item.others)
        wanted = pinned if item.revision.number == pinned.number else item.revision
        self.desired[item.deployment.id] = changed(item, revision=wanted, others=others)

    def _make_box(self, row):
        fate = self.fates.get((row.deployment_id, row.revision), self.fate_of_all)
        self.boxes.setdefault(f"c-{row.id}", Box(row.id, fate))

    def _end(self, row, state):
        if self.boxes.pop(f"c-{row.id}", None) is not None and self.memory_lag:
            until = self.now + self.memory_lag
            self.ghosts += [(uuid, until) for uuid in row.placement.gpu_uuids]
        self._move(row, state, finished_at=self.now)

    def _started(self, row, container_id):
        self._move(row, STARTING, started_at=self.now, container_id=container_id, endpoint=ADDRESS)

    def _move(self, row, state, **values):
        known = self.rows[row.id]
        assert state in TRANSITIONS[known.state], (known.state, state)
        self.rows[row.id] = changed(known, state=state, **values)

    def _age(self):
        self.ghosts = [(uuid, until) for uuid, until in self.ghosts if until > self.now]
        for box in self.boxes.values():
            box.age += 1
            ends_at = {Fate.CRASH: 2, Fate.LATER: 5}.get(box.fate)
            box.running = box.running and (ends_at is None or box.age < ends_at)

    def _measure(self):
        """Count what a trial's side and the stable one answered since the last tick."""
        for id_, item in self.desired.items():
            trial = traffic(item.rollout)
            known = self.measured.get(id_)
            if trial is None:
                self.measured.pop(id_, None)
                continue
            if known is None or known.key != trial.key:
                known = TrialReading(key=trial.key)
            new = [r for r in self.rows.values() if r.deployment_id == id_ and self.serves(r)]
            new = [r for r in new if r.revision == item.rollout.to_revision]
            wrong = any(self.boxes[f"c-{row.id}"].fate is Fate.WRONG for row in new)
            if new and self.load.get(id_) and (trial.weight or trial.shadow_percent):
                sofar = known.trial.requests + 10
                reading = Reading(requests=sofar, errors=sofar * wrong, mean_ms=5.0)
                known = changed(known, trial=reading, stable=Reading(requests=sofar, mean_ms=5.0))
            self.measured[id_] = known

    def _seen_strangers(self):
        seen = dict(self.strangers)
        for uuid, _ in self.ghosts:
            seen[uuid] = seen.get(uuid, 0) + GHOST_BYTES
        return seen

    def _unripe(self):
        """Tell whether a container has yet to show what becomes of it."""
        return any(box.age <= 3 for box in self.boxes.values())

    def _read(self, id_):
        """Return a deployment as it is loaded: with the revisions of the rows that matter."""
        item = self.desired[id_]
        rows = [row for row in self.rows.values() if row.deployment_id == id_]
        ended = [row for row in rows if not row.active]
        ended.sort(key=lambda row: row.finished_at)
        rows = (*ended[-KEPT_ENDED:], *(row for row in rows if row.active))
        numbers = {row.revision for row in rows} | {item.deployment.stable_revision}
        if self.under_way(id_) is not None:
            numbers.add(item.rollout.from_revision)
        others = tuple(one for one in item.others if one.number in numbers)
        return changed(item, replicas=rows, others=others)


def _probe(box):
    if not box.running:
        return Probe(ready=False, failures=9, last_error="nothing listens")
    if box.fate is Fate.DEAF and box.age > 4:
        return Probe(ready=False, failures=box.age - 4, last_error="no answer in time")
    if box.fate is Fate.NEVER or box.age < 2:
        return Probe(ready=False, last_error="/health answered 503")
    return Probe(ready=True)
