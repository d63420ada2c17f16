"""Revisions: a new one by update or by rollback.

What a change comes to is decided in `updates`; here it is checked, written and recorded at once.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

from prsmd.core.plan import Unplaceable
from prsmd.domain.access import Permission
from prsmd.domain.deployment import Deployment, Revision
from prsmd.domain.events import Event
from prsmd.domain.replica import Replica
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutStrategy
from prsmd.engine.provisions import Provisions
from prsmd.engine.recorder import Recorder
from prsmd.service.caller import Caller
from prsmd.service.clearance import refuse_uncleared
from prsmd.service.deployments import (
    event_of,
    find_changeable,
    refuse_unservable,
)
from prsmd.service.forecast import Forecaster
from prsmd.service.model_quota import forget_old_revisions, refuse_revision
from prsmd.service.precondition import Expected, refuse_stale
from prsmd.service.rollouts import RolloutReport
from prsmd.service.succession import (
    Beginning,
    Situation,
    Succession,
    exchange,
    note,
    situation_of,
    store,
)
from prsmd.service.updates import (
    Abortion,
    RollbackRequest,
    UpdateRequest,
    propose_rollback,
    propose_update,
)
from prsmd.store import audit, replicas
from prsmd.store.db import Database, Tx

_NAMED = 5  # fields that an event names
_ONLY_BESIDE = {RolloutStrategy.SURGE, RolloutStrategy.BLUE_GREEN, RolloutStrategy.SHADOW}

Decision = Succession | Abortion | None  # None: it is what is wanted already


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """What an update or a rollback came to. `revision` is the wanted one now.

    It is `previous` where nothing changed, and an earlier one where a rollout was aborted.
    `rollout` is what carries it out, or was aborted; None in place. `notes` say what the caller did
    not ask for; `refused` says why the revision cannot be placed now.
    """

    deployment: Deployment
    revision: Revision
    previous: Revision
    in_place: bool = False
    rollout: RolloutReport | None = None
    notes: tuple[str, ...] = ()
    refused: Unplaceable | None = None

    @property
    def unchanged(self) -> bool:
        """True when it was so already."""
        return self.revision.number == self.previous.number


class Revisions:
    """Use cases on revisions."""

    def __init__(
        self,
        *,
        database: Database,
        recorder: Recorder,
        forecaster: Forecaster,
        provisions: Provisions,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._recorder = recorder
        self._forecaster = forecaster
        self._provisions = provisions
        self._wake = wake

    async def update(self, caller: Caller, model: str, request: UpdateRequest) -> Updated:
        """Make a revision of a patch on the wanted one; it comes by a rollout, or in place."""

        def decide(situation: Situation, beginning: Beginning) -> Decision:
            return propose_update(situation, request, beginning)

        change = _Change(
            action="models.update",
            reason="Updated",
            decide=decide,
            options=request.options,
            expected=request.expected,
        )
        return await self._change(caller, model, change)

    async def rollback(self, caller: Caller, model: str, request: RollbackRequest) -> Updated:
        """Want an earlier revision's content again.

        A rollout under way that came from it is aborted. Anything else is a new revision with the
        old content and the old image.
        """

        def decide(situation: Situation, beginning: Beginning) -> Decision:
            return propose_rollback(situation, request, beginning)

        change = _Change(
            action="models.rollback",
            reason="RollbackRequested",
            decide=decide,
            options=request.options,
            expected=request.expected,
        )
        return await self._change(caller, model, change)

    async def _change(self, caller: Caller, model: str, change: "_Change") -> Updated:
        found = await find_changeable(self._database, caller, model, Permission.MODELS_UPDATE)
        beginning = Beginning(options=change.options, at=time.time(), by=caller.principal.id)

        async def write(tx: Tx) -> tuple[Updated, list[Event]]:
            situation = await situation_of(tx, found.id, "changed")
            refuse_stale(situation.deployment, change.expected)
            decision = change.decide(situation, beginning)
            await self.refuse_uncleared(tx, situation, decision)
            await refuse_revision(tx, situation, decision)
            done = self.outcome(situation, decision, await replicas.list_current(tx, 0))
            happened = told(done, decision, change.reason)
            await _carry_out(tx, decision)
            await forget_old_revisions(tx, situation.deployment)
            await note(tx, *happened)
            record = caller.record(
                change.action, found.id, "allowed", _details(done), found.organization
            )
            await audit.append(tx, record)
            await caller.remember(tx, done)
            return done, happened

        done, happened = await self._database.write(write)
        self._wake()
        self._recorder.announce(*happened)
        return done

    async def refuse_uncleared(self, tx: Tx, situation: Situation, decision: Decision) -> None:
        """Return if what begins may run here and has its secrets; see `clearance` for the errors.

        What goes on running is not asked.
        """
        if isinstance(decision, Succession) and decision.begun is not None:
            organization, spec = situation.deployment.organization, decision.revision.spec
            await refuse_uncleared(tx, self._provisions, organization, spec)

    def outcome(self, situation: Situation, decision: Decision, rows: Sequence[Replica]) -> Updated:
        """Return what a decision comes to, beside the replicas that there are. Writes nothing.

        Raises:
            InvalidInputError: no serving protocol here can serve it.
            ResourceUnavailableError: it would not fit even on the empty appliance.
        """
        if not isinstance(decision, Succession):
            return _settled(situation, decision)
        revision, rollout = decision.revision, decision.rollout
        refuse_unservable(revision.spec)
        refused = None
        if decision.begun is not None:
            self._forecaster.refuse_impossible(revision.spec.resources)
            there = _beside(decision.begun, rows)
            asker = situation.deployment.organization
            refused = self._forecaster.replicas(revision.spec.resources, 1, there, asker).refused
        return Updated(
            deployment=dataclasses.replace(situation.deployment, revision=revision.number),
            revision=revision,
            previous=decision.previous,
            in_place=decision.in_place,
            rollout=None if rollout is None else _report(situation, rollout, revision),
            notes=_notes(situation.deployment, decision),
            refused=refused,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """One kind of change of what is wanted, and how it goes on record."""

    action: str
    reason: str
    decide: Callable[[Situation, Beginning], Decision]
    options: RolloutOptions
    expected: Expected


def told(done: Updated, decision: Decision, reason: str) -> list[Event]:
    """Return the events of a decision."""
    if decision is None:
        return []
    number, deployment = done.revision.number, done.deployment
    if isinstance(decision, Abortion):
        message = f"{decision.after.outcome}: revision {decision.after.to_revision} is given up"
        return [event_of(deployment, "RolloutAborted", message)]
    version = done.revision.spec.metadata.version
    fields = [change.field.removeprefix("deployment_config.") for change in done.revision.diff]
    more = f" and {len(fields) - _NAMED} more" if len(fields) > _NAMED else ""
    what = ", ".join(fields[:_NAMED]) + more or "the image is resolved again"
    if decision.begun is None:
        message = f"revision {number} ({version}) applies to what runs: {what}"
        return [event_of(deployment, f"{reason}InPlace", message)]
    how = decision.begun.options.strategy.value
    message = f"revision {number} ({version}) is to replace {done.previous.number} ({how}): {what}"
    happened = [event_of(deployment, reason, message)]
    if decision.before is not None:
        message = f"revision {decision.before.to_revision} is given up for revision {number}"
        happened.insert(0, event_of(deployment, "RolloutSuperseded", message))
    return happened


def _report(situation: Situation, rollout: Rollout, coming: Revision) -> RolloutReport:
    stable = situation.revision(rollout.from_revision) or situation.current
    return RolloutReport(rollout=rollout, stable=stable, coming=coming)


def _settled(situation: Situation, decision: Abortion | None) -> Updated:
    current = situation.current
    if decision is None:
        return Updated(deployment=situation.deployment, revision=current, previous=current)
    stable = decision.stable
    return Updated(
        deployment=dataclasses.replace(situation.deployment, revision=stable.number),
        revision=stable,
        previous=current,
        rollout=RolloutReport(rollout=decision.after, stable=stable, coming=current),
        notes=(f"the rollout of revision {current.number} is aborted",),
    )


async def _carry_out(tx: Tx, decision: Decision) -> None:
    if isinstance(decision, Abortion):
        await exchange(tx, decision.before, decision.after)
    elif decision is not None:
        await store(tx, decision, decision.revision.created_at)


def _details(done: Updated) -> dict[str, object]:
    """Return what the audit log keeps: which fields changed, never to what."""
    if done.unchanged:
        return {"revision": done.revision.number, "unchanged": True}
    return {
        "revision": done.revision.number,
        "previous_revision": done.previous.number,
        "in_place": done.in_place,
        "fields": [change.field for change in done.revision.diff],
    }


def _beside(begun: Rollout, rows: Sequence[Replica]) -> Sequence[Replica]:
    """Return the replicas that the first new one has to find room beside."""
    mine = [row for row in rows if row.active and row.deployment_id == begun.deployment_id]
    strategy = begun.options.strategy
    if strategy in _ONLY_BESIDE or (strategy is RolloutStrategy.CANARY and len(mine) < 2):
        return rows
    leaving = mine if strategy is RolloutStrategy.RECREATE else mine[:1]
    return [row for row in rows if row not in leaving]


def _notes(deployment: Deployment, succession: Succession) -> tuple[str, ...]:
    revision, previous = succession.revision, succession.previous
    asked, scaling = deployment.asked_replicas, revision.spec.scaling
    low, high = scaling.min_replicas, scaling.max_replicas
    notes = []
    version, before = revision.spec.metadata.version, previous.spec.metadata.version
    if succession.named_here:
        notes.append(f"its version is {version}, after {before}")
    if not low <= asked <= high:
        allowed = f"min_replicas {low}" if asked < low else f"max_replicas {high}"
        notes.append(f"{asked} replicas were asked for; {allowed} holds now")
    if succession.begun is not None and succession.before is not None:
        notes.append(f"the rollout of revision {succession.before.to_revision} ends")
    return tuple(notes)
