"""A model of the world in which everything goes well, for plans to be carried out on.

Holds rows and containers apart, as they are in reality. Decides nothing: it does what plans say,
and lets happen meanwhile what is hoped for.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from prsmd.core.plan import (
    Action,
    Adopt,
    Advance,
    DesiredDeployment,
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
from prsmd.core.rollout import traffic
from prsmd.core.sight import Sight
from prsmd.core.trial import Reading, TrialReading
from prsmd.domain.replica import Replica, ReplicaState
from prsmd.domain.rollout import Rollout, RolloutPhase

_READY = Probe(ready=True)
_TICK_SECONDS = 1.0


class Model:
    """The world, beginning as observed. `now` is seconds since the epoch.

    What the executor has begun is taken for not begun: it is decided upon again, alike.
    """

    def __init__(
        self, desired: Sequence[DesiredDeployment], observed: Observed, now: float
    ) -> None:
        self.now = now
        self._items = {item.deployment.id: item for item in desired}
        self._rows = {row.id: row for item in desired for row in item.replicas}
        self._silent = observed.containers is None
        self._boxes = {box.replica_id: box for box in observed.containers or ()}
        self._probes = dict(observed.probes)
        self._in_flight = dict(observed.in_flight)
        self._observed = observed
        for row in self._rows.values():
            if row.id in observed.working and row.state is ReplicaState.STARTING:
                self._boxes.setdefault(row.id, _box(row))  # it came up while we looked

    @property
    def size(self) -> int:
        """How many replicas there are and were."""
        return len(self._rows)

    def item(self, deployment_id: str) -> DesiredDeployment:
        """Return one deployment as it is now."""
        rows = tuple(row for row in self._rows.values() if row.deployment_id == deployment_id)
        return dataclasses.replace(self._items[deployment_id], replicas=rows)

    def desired(self) -> list[DesiredDeployment]:
        """Return every deployment as it is now."""
        return [self.item(id_) for id_ in self._items]

    def observed(self) -> Observed:
        """Return what would be seen now."""
        return dataclasses.replace(
            self._observed,
            containers=None if self._silent else tuple(self._boxes.values()),
            probes=self._probes,
            in_flight=self._in_flight,
            working=frozenset(),
            trials=self._passing(),
            at=self.now,
        )

    def ready(self, deployment_id: str) -> int:
        """Return how many replicas of a deployment can serve now."""
        sight = Sight.of(self.observed())
        return sum(sight.ready(row) for row in self.item(deployment_id).replicas)

    def let_time_pass(self) -> None:
        """Let a moment pass: what has come up answers."""
        self.now += _TICK_SECONDS
        self._come_up()

    def skip_time(self, plan: Plan) -> bool:
        """Go to where more may happen after a plan without actions. False: nothing ever will."""
        if self._come_up():
            self.now += _TICK_SECONDS
            return True
        ends = [hold.until for hold in plan.holds if hold.until is not None]
        ends += [plan.until] if plan.until is not None else []
        later = [end for end in ends if end > self.now]
        self.now = min(later, default=self.now)
        return bool(later)

    def carry_out(self, action: Action) -> None:
        """Do what a plan says, as it is hoped to go."""
        match action:
            case Launch(replica=row) | Resume(replica=row) | Adopt(replica=row):
                self._boxes[row.id] = _box(row)
                self._move(row, ReplicaState.STARTING, started_at=self.now)
            case MarkRunning(replica=row):
                self._move(row, ReplicaState.RUNNING, ready_at=self.now)
            case Drain(replica=row):
                self._in_flight.pop(row.id, None)
                self._move(row, ReplicaState.DRAINING, draining_since=self.now)
            case Stop(replica=row):
                self._end(row, ReplicaState.STOPPED)
            case Fail(replica=row, cause=cause):
                self._end(row, ReplicaState.FAILED, exit=cause)
            case RemoveOrphan(replica_id=replica_id):
                self._boxes.pop(replica_id, None)
            case _:
                self._move_on(action)

    def _move_on(self, action: Action) -> None:
        match action:
            case FinishDelete(deployment_id=id_):
                del self._items[id_]
            case Prepare(rollout=rollout):
                self._store(dataclasses.replace(rollout, prepared=True, trouble=None))
            case Advance(after=after):
                self._store(after)
            case ScaleStep(deployment_id=id_, replicas=count):
                self._change(id_, gradual_level=count)
            case NoteGood(deployment_id=id_, revision=number):
                self._change(id_, stable_revision=number)

    def _store(self, rollout: Rollout) -> None:
        """Note a rollout; the deployment goes where it ended."""
        id_ = rollout.deployment_id
        item = dataclasses.replace(self._items[id_], rollout=rollout)
        self._items[id_] = item
        if rollout.phase is RolloutPhase.COMPLETED:
            self._change(id_, stable_revision=item.deployment.revision)
        elif rollout.phase is RolloutPhase.ROLLED_BACK:
            known = (item.revision, *item.others)
            back = next(one for one in known if one.number == rollout.from_revision)
            others = tuple(one for one in known if one is not back)
            self._items[id_] = dataclasses.replace(item, revision=back, others=others)
            self._change(id_, revision=back.number)

    def _change(self, deployment_id: str, **changes: Any) -> None:
        item = self._items[deployment_id]
        deployment = dataclasses.replace(item.deployment, **changes)
        self._items[deployment_id] = dataclasses.replace(item, deployment=deployment)

    def _move(self, row: Replica, state: ReplicaState, **changes: Any) -> None:
        self._rows[row.id] = dataclasses.replace(row, state=state, **changes)

    def _end(self, row: Replica, state: ReplicaState, **changes: Any) -> None:
        self._boxes.pop(row.id, None)
        self._probes.pop(row.id, None)
        self._in_flight.pop(row.id, None)
        self._move(row, state, finished_at=self.now, **changes)

    def _come_up(self) -> bool:
        """Let every container that runs answer; return whether one did not before."""
        news = [
            box.replica_id
            for box in self._boxes.values()
            if box.running and self._probes.get(box.replica_id) != _READY
        ]
        self._probes |= dict.fromkeys(news, _READY)
        return bool(news)

    def _passing(self) -> dict[str, TrialReading]:
        """Return a measurement that holds its gate, for each trial."""
        found = {}
        for id_, item in self._items.items():
            trial = traffic(item.rollout)
            if item.rollout is not None and trial is not None:
                good = Reading(requests=item.rollout.options.gate.min_requests)
                found[id_] = TrialReading(key=trial.key, stable=good, trial=good)
        return found


def _box(row: Replica) -> ObservedContainer:
    return ObservedContainer(id=row.container_id or f"of {row.id}", replica_id=row.id, running=True)
