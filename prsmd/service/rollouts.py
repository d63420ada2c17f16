"""Rollouts: how an update goes, and the hand that pauses, promotes, aborts or divides its traffic.

The loop moves rollouts by itself; what a person asks for is one compare-and-set on the same row.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping

from prsmd.core.rollout import traffic
from prsmd.core.trial import TrialReading
from prsmd.domain.access import Permission
from prsmd.domain.deployment import Deployment, Revision
from prsmd.domain.errors import ConflictError, NotFoundError
from prsmd.domain.events import Event
from prsmd.domain.rollout import Rollout, RolloutPhase, RolloutStrategy
from prsmd.engine.recorder import Recorder
from prsmd.service.caller import Caller
from prsmd.service.deployments import event_of, find_changeable, find_inside
from prsmd.service.precondition import Expected, refuse_stale
from prsmd.service.succession import Situation, ended, exchange, note, situation_of
from prsmd.store import audit, deployments, revisions, rollouts
from prsmd.store.db import Database, Tx

_WHOLE = 100  # percent
_DIVIDED = {RolloutStrategy.CANARY, RolloutStrategy.BLUE_GREEN}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolloutReport:
    """A rollout with the revisions that it leads from and to.

    `measured` is what the data path counted of a trial that flows now.
    """

    rollout: Rollout
    stable: Revision
    coming: Revision
    measured: TrialReading | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """What became of a rollout by hand. `changed` is False where it was so already."""

    deployment: Deployment
    report: RolloutReport
    changed: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrafficShare:
    """One live revision's part of the traffic in percent; None: as its replicas' load allows."""

    revision: Revision
    weight: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """How traffic divides now. `report` is the rollout under way, if any."""

    deployment: Deployment
    shares: tuple[TrafficShare, ...]
    report: RolloutReport | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What a hand does to a rollout: which row comes of it (None: it is so), and what is said."""

    verb: str
    after: Rollout | None
    reason: str
    message: str


class Rollouts:
    """Use cases on rollouts."""

    def __init__(self, database: Database, recorder: Recorder, wake: Callable[[], None]) -> None:
        self._database = database
        self._recorder = recorder
        self._wake = wake

    async def get(self, caller: Caller, model: str) -> tuple[Deployment, RolloutReport]:
        """Return a model's latest rollout, under way or ended. NotFoundError: there was none."""
        async with self._database.read() as tx:
            found = await find_inside(tx, caller, model)
            report = await report_of(tx, found.id)
        if report is None:
            raise NotFoundError(
                f"Model {found.model_id} has had no rollout: it was never updated, or only in"
                " place.",
                model_id=found.model_id,
            )
        return found, report

    async def pause(self, caller: Caller, model: str, expected: Expected = None) -> Steered:
        """Let a rollout take no further step. What runs goes on; a broken gate still rolls back."""
        return await self._steer(caller, model, expected, _pause)

    async def resume(self, caller: Caller, model: str, expected: Expected = None) -> Steered:
        """Let a paused rollout go on."""
        return await self._steer(caller, model, expected, _resume)

    async def promote(self, caller: Caller, model: str, expected: Expected = None) -> Steered:
        """End a trial well, whatever its gate says yet: the new revision takes over."""
        return await self._steer(caller, model, expected, _promote)

    async def abort(self, caller: Caller, model: str, expected: Expected = None) -> Steered:
        """End a rollout: the revision that it was to replace is wanted again."""
        return await self._steer(caller, model, expected, _abort)

    async def set_traffic(
        self, caller: Caller, model: str, weights: Mapping[int, int], expected: Expected = None
    ) -> Divided:
        """Divide the traffic by hand: percents by revision, which sum to 100.

        ConflictError when a revision that is named is not live; those that are, are named.
        """
        found = await find_changeable(self._database, caller, model, Permission.MODELS_UPDATE)
        shares = ", ".join(f"{weight} % to revision {number}" for number, weight in weights.items())
        event = event_of(found, "TrafficSet", f"divided by hand: {shares}")

        async def write(tx: Tx) -> Divided:
            situation = await situation_of(tx, found.id, "changed")
            refuse_stale(situation.deployment, expected)
            live = live_revisions(situation)
            _refuse_dead(situation, weights, live)
            rollout = situation.rollout
            if rollout is not None and len(live) > 1:
                weight = weights.get(rollout.to_revision, 0)
                await exchange(tx, rollout, dataclasses.replace(rollout, weight=weight))
            await note(tx, event)
            details = {"weights": {str(number): weight for number, weight in weights.items()}}
            await audit.append(
                tx,
                caller.record("models.traffic", found.id, "allowed", details, found.organization),
            )
            report = await report_of(tx, found.id) if rollout is not None else None
            done = Divided(
                deployment=situation.deployment,
                shares=shares_of(situation.current, report),
                report=report,
            )
            await caller.remember(tx, done)
            return done

        done = await self._database.write(write)
        self._wake()
        self._recorder.announce(event)
        return done

    async def _steer(
        self,
        caller: Caller,
        model: str,
        expected: Expected,
        step_of: Callable[[Rollout, float], _Step],
    ) -> Steered:
        found = await find_changeable(self._database, caller, model, Permission.MODELS_UPDATE)

        async def write(tx: Tx) -> tuple[Steered, list[Event]]:
            situation = await situation_of(tx, found.id, "changed")
            refuse_stale(situation.deployment, expected)
            rollout = await _under_way(tx, situation)
            step = step_of(rollout, time.time())
            happened = []
            if step.after is not None:
                await exchange(tx, rollout, step.after)
                happened.append(event_of(found, step.reason, step.message))
            await note(tx, *happened)
            action, details = f"models.rollout.{step.verb}", {"rollout": rollout.number}
            await audit.append(
                tx, caller.record(action, found.id, "allowed", details, found.organization)
            )
            done = await _steered(tx, found.id, changed=step.after is not None)
            await caller.remember(tx, done)
            return done, happened

        done, happened = await self._database.write(write)
        self._wake()
        self._recorder.announce(*happened)
        return done


async def report_of(tx: Tx, deployment_id: str) -> RolloutReport | None:
    """Return a deployment's latest rollout with its two revisions, or None."""
    latest = await rollouts.latest(tx, deployment_id)
    if latest is None:
        return None
    stable = await revisions.get(tx, deployment_id, latest.from_revision)
    coming = await revisions.get(tx, deployment_id, latest.to_revision)
    assert stable is not None  # noqa: S101 - a rollout's revisions are kept with it
    assert coming is not None  # noqa: S101 - a rollout's revisions are kept with it
    return RolloutReport(rollout=latest, stable=stable, coming=coming)


def shares_of(wanted: Revision, report: RolloutReport | None) -> tuple[TrafficShare, ...]:
    """Return how a deployment's traffic divides; `report` is its latest rollout."""
    if report is None or not report.rollout.active:
        return (TrafficShare(revision=wanted, weight=_WHOLE),)
    stable, coming, trial = report.stable, report.coming, traffic(report.rollout)
    if report.rollout.phase is RolloutPhase.REPLACING:
        return (
            TrafficShare(revision=coming, weight=None),
            TrafficShare(revision=stable, weight=None),
        )
    weight = trial.weight if trial is not None else 0
    return (
        TrafficShare(revision=coming, weight=weight),
        TrafficShare(revision=stable, weight=_WHOLE - weight),
    )


def live_revisions(situation: Situation) -> tuple[int, ...]:
    """Return the revisions that traffic can be given to; none while it moves by itself."""
    rollout = situation.rollout
    if rollout is None:
        return (situation.current.number,)
    if rollout.phase is RolloutPhase.REPLACING:
        return ()
    if rollout.phase is RolloutPhase.TRYING and rollout.options.strategy in _DIVIDED:
        return (rollout.from_revision, rollout.to_revision)
    return (rollout.from_revision,)


def _refuse_dead(situation: Situation, weights: Mapping[int, int], live: tuple[int, ...]) -> None:
    """Raise ConflictError for traffic to what cannot take it, saying what can."""
    dead = [number for number in weights if number not in live]
    if not dead:
        return
    rollout, model = situation.rollout, situation.deployment.model_id
    if rollout is not None and not live:
        why = (
            f"revision {rollout.to_revision} is replacing revision {rollout.from_revision}, and"
            " traffic follows the replicas; abort the rollout to go back"
        )
    else:
        words = " and ".join(str(number) for number in live)
        phase = f" (the rollout is {rollout.phase.value})" if rollout is not None else ""
        why = f"live is revision {words}" if len(live) == 1 else f"live are revisions {words}"
        why += phase
    raise ConflictError(
        f"Revision {dead[0]} of {model} cannot be given traffic now: {why}.",
        model_id=model,
        live_revisions=list(live),
    )


async def _under_way(tx: Tx, situation: Situation) -> Rollout:
    if situation.rollout is not None:
        return situation.rollout
    model = situation.deployment.model_id
    latest = await rollouts.latest(tx, situation.deployment.id)
    last = "" if latest is None else f"; the last one was {latest.phase.value}: {latest.outcome}"
    raise ConflictError(f"No rollout of {model} is under way{last}.", model_id=model)


async def _steered(tx: Tx, deployment_id: str, *, changed: bool) -> Steered:
    deployment = await deployments.get(tx, deployment_id)
    report = await report_of(tx, deployment_id)
    assert deployment is not None  # noqa: S101 - it was steered in this transaction
    assert report is not None  # noqa: S101 - it was steered in this transaction
    return Steered(deployment=deployment, report=report, changed=changed)


def _pause(rollout: Rollout, _now: float) -> _Step:
    after = None if rollout.paused else dataclasses.replace(rollout, paused=True)
    message = f"the rollout of revision {rollout.to_revision} is paused ({rollout.phase.value})"
    return _Step(verb="pause", after=after, reason="RolloutPaused", message=message)


def _resume(rollout: Rollout, _now: float) -> _Step:
    after = dataclasses.replace(rollout, paused=False) if rollout.paused else None
    message = f"the rollout of revision {rollout.to_revision} goes on ({rollout.phase.value})"
    return _Step(verb="resume", after=after, reason="RolloutResumed", message=message)


def _promote(rollout: Rollout, _now: float) -> _Step:
    if rollout.phase is not RolloutPhase.TRYING:
        raise ConflictError(
            f"Revision {rollout.to_revision} is not on trial and cannot be promoted: the rollout"
            f" ({rollout.options.strategy.value}) is {rollout.phase.value}.",
            phase=rollout.phase.value,
        )
    after = dataclasses.replace(
        rollout, phase=RolloutPhase.REPLACING, step_since=None, weight=None, paused=False
    )
    message = f"revision {rollout.to_revision} was promoted by hand and takes over"
    return _Step(verb="promote", after=after, reason="Promoted", message=message)


def _abort(rollout: Rollout, now: float) -> _Step:
    after = ended(rollout, RolloutPhase.ABORTED, f"aborted by hand ({rollout.phase.value})", now)
    message = (
        f"the rollout of revision {rollout.to_revision} was aborted by hand while"
        f" {rollout.phase.value}; revision {rollout.from_revision} is wanted again"
    )
    return _Step(verb="abort", after=after, reason="RolloutAborted", message=message)
