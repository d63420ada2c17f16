"""How one revision of a deployment follows another: in place, or by a rollout that begins here.

`succeed` decides from values; `store` writes what was decided, in the caller's transaction.
"""

import dataclasses
from collections.abc import Sequence

from prsmd.domain.deployment import Deployment, Revision, same_container
from prsmd.domain.errors import ConflictError
from prsmd.domain.events import Event
from prsmd.domain.replica import ReplicaState
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase
from prsmd.store import deployments, events, replicas, revisions, rollouts
from prsmd.store.db import Tx


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A deployment that can be changed now.

    `current` is the wanted revision, `history` all of them, oldest first. `rollout` is the one
    under way, or None; the next one will be `next_rollout`. `serving`: without a rollout, a replica
    of `current` has been ready, so that it is good, also when no tick has noted that yet.
    """

    deployment: Deployment
    current: Revision
    history: tuple[Revision, ...]
    rollout: Rollout | None
    next_rollout: int
    serving: bool = False

    @property
    def next_number(self) -> int:
        """The number that the next revision gets."""
        return self.history[-1].number + 1

    @property
    def fallback(self) -> int:
        """The revision that a rollout begun now goes back to: the last good one, if any was."""
        if self.rollout is not None:
            return self.rollout.from_revision
        if self.serving:
            return self.current.number
        return self.deployment.stable_revision or self.current.number

    def revision(self, number: int) -> Revision | None:
        """Return one revision of the history, or None."""
        return next((one for one in self.history if one.number == number), None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Who asks for a new revision, when, and how it is to be rolled out."""

    options: RolloutOptions
    at: float
    by: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """What becomes of a deployment when `revision` is wanted next; nothing of it is stored yet.

    `begun` is the rollout that carries it out, None when it applies in place. `before` is the
    rollout that was under way, if one was, and `after` what becomes of it. `previous_serves`: what
    comes before is good. `named_here`: its label was chosen for the caller, who gave none.
    """

    previous: Revision
    revision: Revision
    previous_serves: bool = False
    begun: Rollout | None = None
    before: Rollout | None = None
    after: Rollout | None = None
    named_here: bool = False

    @property
    def in_place(self) -> bool:
        """True when what runs goes on running."""
        return self.begun is None

    @property
    def rollout(self) -> Rollout | None:
        """The rollout under way afterwards, if any."""
        return self.begun or (self.after if self.after and self.after.active else None)


async def situation_of(tx: Tx, deployment_id: str, verb: str) -> Situation:
    """Return a deployment as stored. ConflictError when it is being deleted; `verb` is for it."""
    stored = await deployments.get(tx, deployment_id)
    if stored is None or stored.deleting:
        model = deployment_id if stored is None else f"Model {stored.model_id}"
        raise ConflictError(
            f"{model} is being deleted and cannot be {verb}.",
            model_id=stored and stored.model_id,
            deployment_id=deployment_id,
        )
    history = tuple(await revisions.list_for(tx, stored.id))
    current = next(one for one in history if one.number == stored.revision)
    latest = await rollouts.latest(tx, stored.id)
    under_way = latest if latest and latest.active else None
    return Situation(
        deployment=stored,
        current=current,
        history=history,
        rollout=under_way,
        next_rollout=await rollouts.next_number(tx, stored.id),
        serving=under_way is None and await _serves(tx, current, history),
    )


async def _serves(tx: Tx, current: Revision, history: Sequence[Revision]) -> bool:
    same = {one.number for one in history if same_container(one, current)}
    rows = await replicas.list_current(tx, 0, [current.deployment_id])
    return any(row.state is ReplicaState.RUNNING and row.revision in same for row in rows)


def succeed(situation: Situation, revision: Revision, beginning: Beginning) -> Succession:
    """Return what happens when `revision` is wanted next.

    One that runs the same container applies in place: a rollout under way then leads to it. Any
    other ends the rollout under way and begins its own, which goes back to the same revision.
    """
    under_way = situation.rollout
    if same_container(situation.current, revision):
        after = under_way and dataclasses.replace(under_way, to_revision=revision.number)
        return Succession(
            previous=situation.current,
            revision=revision,
            previous_serves=situation.serving,
            before=under_way,
            after=after,
        )
    begun = Rollout(
        deployment_id=situation.deployment.id,
        number=situation.next_rollout,
        from_revision=situation.fallback,
        to_revision=revision.number,
        options=beginning.options,
        started_at=beginning.at,
        started_by=beginning.by,
    )
    why = f"revision {revision.number} was asked for"
    after = under_way and ended(under_way, RolloutPhase.SUPERSEDED, why, beginning.at)
    return Succession(
        previous=situation.current,
        revision=revision,
        previous_serves=situation.serving,
        begun=begun,
        before=under_way,
        after=after,
    )


def ended(rollout: Rollout, phase: RolloutPhase, outcome: str, at: float) -> Rollout:
    """Return a rollout as it is once it has ended so."""
    return dataclasses.replace(rollout, phase=phase, outcome=outcome, finished_at=at)


async def store(tx: Tx, succession: Succession, at: float) -> None:
    """Write the new revision, what becomes of the rollout under way, and the one that begins.

    A previous revision that serves is noted as good: no tick notes that of one that is not wanted
    any more, and a rollback would pass it over.
    """
    revision, previous = succession.revision, succession.previous
    await revisions.add(tx, revision)
    if succession.previous_serves:
        await deployments.set_stable(tx, previous.deployment_id, previous.number)
        await revisions.note_good(tx, previous.deployment_id, previous.number, at)
    if succession.before is not None and succession.after is not None:
        await exchange(tx, succession.before, succession.after)
    if succession.begun is not None:
        await rollouts.add(tx, succession.begun)
    await deployments.set_revision(tx, revision.deployment_id, revision.number, at)


async def exchange(tx: Tx, before: Rollout, after: Rollout) -> None:
    """Write what becomes of a rollout; where that is its abortion, what it came from is wanted.

    Raises:
        ConflictError: it is no longer as it was decided upon.
    """
    if not await rollouts.replace(tx, before, after):
        raise ConflictError("The rollout has changed in this moment; look at it and try again.")
    if after.phase is RolloutPhase.ABORTED and after.finished_at is not None:
        at, number = after.finished_at, after.from_revision
        await deployments.set_revision(tx, after.deployment_id, number, at)


async def note(tx: Tx, *happened: Event) -> None:
    """Store events in the transaction of what they tell of."""
    for event in happened:
        await events.append(tx, event)
