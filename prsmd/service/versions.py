"""Versions: the revisions that a model has had, what became of them, and how they differ."""

import dataclasses
from collections.abc import Sequence

from prsmd.domain.body import differences
from prsmd.domain.deployment import Deployment, FieldChange, Revision
from prsmd.domain.rollout import Rollout, RolloutPhase
from prsmd.service.caller import Caller
from prsmd.service.deployments import find_inside
from prsmd.service.updates import numbered
from prsmd.store import revisions, rollouts
from prsmd.store.db import Database

_ALL_ROLLOUTS = 1000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RevisionReport:
    """One revision and what it is now. `why` it was made and `reason` are in words."""

    revision: Revision
    why: str
    state: str
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How one revision differs from another."""

    deployment: Deployment
    before: Revision
    after: Revision
    changes: tuple[FieldChange, ...]


class Versions:
    """Use cases that look at revisions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, caller: Caller, model: str, limit: int, offset: int
    ) -> tuple[list[RevisionReport], int]:
        """Return some of a model's revisions, newest first, and how many there are."""
        async with self._database.read() as tx:
            found = await find_inside(tx, caller, model)
            history = await revisions.list_for(tx, found.id)
            past = await rollouts.list_for(tx, found.id, _ALL_ROLLOUTS)
        shown = history[::-1][offset : offset + limit]
        return [reported(found, one, history, past) for one in shown], len(history)

    async def compare(
        self, caller: Caller, model: str, before: int | None, after: int | None
    ) -> Comparison:
        """Return how two revisions differ: by default the wanted one from the one before it."""
        async with self._database.read() as tx:
            found = await find_inside(tx, caller, model)
            history = await revisions.list_for(tx, found.id)
        new = numbered(history, found.revision if after is None else after, found.model_id)
        earlier = [one.number for one in history if one.number < new.number]
        default = earlier[-1] if earlier else new.number
        old = numbered(history, default if before is None else before, found.model_id)
        changes = differences(old.spec, new.spec)
        if (
            None not in {old.image_digest, new.image_digest}
            and old.image_digest != new.image_digest
        ):
            pinned = FieldChange(
                field="image_digest", before=old.image_digest, after=new.image_digest
            )
            changes = (*changes, pinned)
        return Comparison(deployment=found, before=old, after=new, changes=changes)


def reported(
    deployment: Deployment,
    revision: Revision,
    history: Sequence[Revision],
    past: Sequence[Rollout],
) -> RevisionReport:
    """Return a revision with why it was made and what it is now. `past` is newest first."""
    latest = next((one for one in past if one.to_revision == revision.number), None)
    active = next((one for one in past if one.active), None)
    state, reason = "replaced", ""
    if active is not None and revision.number == active.to_revision:
        state, reason = "rolling_out", f"{active.options.strategy.value}: {active.phase.value}"
    elif revision.number == deployment.revision:
        state = "current"
    elif active is not None and revision.number == active.from_revision:
        state = "stable"
    elif latest is not None and latest.phase is not RolloutPhase.COMPLETED:
        state, reason = latest.phase.value, latest.outcome
    return RevisionReport(
        revision=revision, why=_why(revision, history), state=state, reason=reason
    )


def _why(revision: Revision, history: Sequence[Revision]) -> str:
    if revision.number == history[0].number:
        return "deployed"
    twins = [
        one.number
        for one in history
        if one.number < revision.number and one.spec_hash == revision.spec_hash
    ]
    if twins and revision.diff:
        return f"rollback to {twins[-1]}"
    return "updated" if revision.diff else "updated: the image was resolved again"
