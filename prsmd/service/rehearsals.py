"""Dry runs: what a deploy, an update, a scale or a rollback would do, without doing any of it.

Each refuses what the use case itself would refuse, in the same words. Nothing is written but the
record of a denial.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence

from prsmd.core.fair_queue import Slots
from prsmd.core.plan import DesiredDeployment, Observed
from prsmd.core.rehearse import NOTHING, Rehearsal
from prsmd.domain.access import Permission
from prsmd.domain.body import contents
from prsmd.domain.deployment import Deployment, FieldChange, Revision, ScalingStrategy
from prsmd.domain.errors import PrsmdError
from prsmd.domain.rollout import RolloutOptions
from prsmd.domain.spec import Spec
from prsmd.engine.observer import Observer
from prsmd.engine.reconciler import Reconciler
from prsmd.engine.rows import load_desired
from prsmd.engine.stock import Stock
from prsmd.service.caller import Caller
from prsmd.service.deployments import Deployments, find_changeable, refuse_taken
from prsmd.service.model_quota import refuse_new_model, refuse_revision
from prsmd.service.precondition import Expected, refuse_stale
from prsmd.service.revisions import Decision, Revisions
from prsmd.service.succession import Beginning, Situation, Succession, situation_of
from prsmd.service.updates import (
    Abortion,
    RollbackRequest,
    UpdateRequest,
    propose_rollback,
    propose_update,
)
from prsmd.store import replicas, resource_quotas
from prsmd.store.asking import asker
from prsmd.store.db import Database
from prsmd.store.fair_semaphore import FairSemaphore

_REGISTRY_SECONDS = 10.0
_ONE_AT_A_TIME = Slots(total=1, per_organization=1, waiting=64)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutlook:
    """Which content an image's name means, as far as that can be told without bringing it."""

    reference: str
    digest: str | None
    here: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """What a request would come to. `action` is the request's verb.

    `revision` would be the wanted one; `previous` is it now, None for a new model. `notes` say what
    the caller did not ask for.
    """

    action: str
    deployment: Deployment
    revision: Revision
    previous: Revision | None
    changes: tuple[FieldChange, ...]
    image: ImageOutlook
    rehearsal: Rehearsal
    strategy: str
    in_place: bool = False
    notes: tuple[str, ...] = ()

    @property
    def unchanged(self) -> bool:
        """True when the request asks for what is wanted already."""
        same = self.previous is not None and self.previous.number == self.revision.number
        return same and not self.changes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A request on a model that is there."""

    action: str
    decide: Callable[[Situation, Beginning], Decision]
    options: RolloutOptions
    expected: Expected


class Rehearsals:
    """Dry runs of the use cases that change what runs. One is worked out at a time."""

    def __init__(
        self,
        *,
        database: Database,
        observer: Observer,
        reconciler: Reconciler,
        stock: Stock,
        deployments: Deployments,
        revisions: Revisions,
    ) -> None:
        self._database = database
        self._observer = observer
        self._reconciler = reconciler
        self._stock = stock
        self._deployments = deployments
        self._revisions = revisions
        self._turn = FairSemaphore(_ONE_AT_A_TIME, "dry run")

    async def deploy(self, caller: Caller, model_name: str, spec: Spec) -> Foretold:
        """Return what deploying a new model would do."""
        deployment, revision = await self._deployments.draft(caller, model_name, spec)
        observed = await self._observer.snapshot()
        async with self._database.read() as tx:
            await refuse_taken(tx, deployment)
            await refuse_new_model(tx, deployment, spec)
            desired = await load_desired(tx)
            limits = await resource_quotas.limits(tx, deployment.organization)
        image, known = await self._image(deployment, revision)
        new = DesiredDeployment(deployment=deployment, revision=known, replicas=(), limits=limits)
        desired.append(new)
        rehearsal = await self._rehearse(desired, observed, deployment.id)
        return Foretold(
            action="deploy",
            deployment=deployment,
            revision=revision,
            previous=None,
            changes=contents(spec),
            image=image,
            rehearsal=rehearsal,
            strategy=rehearsal.strategy,
        )

    async def update(self, caller: Caller, model: str, request: UpdateRequest) -> Foretold:
        """Return what an update would do."""

        def decide(situation: Situation, beginning: Beginning) -> Decision:
            return propose_update(situation, request, beginning)

        change = _Change(
            action="update", decide=decide, options=request.options, expected=request.expected
        )
        return await self._change(caller, model, change)

    async def rollback(self, caller: Caller, model: str, request: RollbackRequest) -> Foretold:
        """Return what a rollback would do."""

        def decide(situation: Situation, beginning: Beginning) -> Decision:
            return propose_rollback(situation, request, beginning)

        change = _Change(
            action="rollback", decide=decide, options=request.options, expected=request.expected
        )
        return await self._change(caller, model, change)

    async def scale(
        self,
        caller: Caller,
        model: str,
        target: int,
        strategy: ScalingStrategy,
        expected: Expected = None,
    ) -> Foretold:
        """Return what a scale would do."""
        found = await find_changeable(self._database, caller, model, Permission.MODELS_SCALE)
        observed = await self._observer.snapshot()
        async with self._database.read() as tx:
            asked = (target, strategy)
            _, level = await self._deployments.scaling(tx, found, asked, expected)
            desired = await load_desired(tx)
        item = _item(desired, found.id)
        scaled = dataclasses.replace(
            item.deployment,
            asked_replicas=target,
            scaling_strategy=strategy,
            gradual_level=level,
            recommendation=None,
        )
        image, _ = await self._image(found, item.revision)
        wanted = _exchanged(desired, dataclasses.replace(item, deployment=scaled))
        rehearsal = await self._rehearse(wanted, observed, found.id)
        return Foretold(
            action="scale",
            deployment=scaled,
            revision=item.revision,
            previous=item.revision,
            changes=_scale_changes(item.deployment, scaled),
            image=image,
            rehearsal=rehearsal,
            strategy=rehearsal.strategy,
            in_place=True,
        )

    async def _change(self, caller: Caller, model: str, change: _Change) -> Foretold:
        found = await find_changeable(self._database, caller, model, Permission.MODELS_UPDATE)
        beginning = Beginning(options=change.options, at=time.time(), by=caller.principal.id)
        observed = await self._observer.snapshot()
        async with self._database.read() as tx:
            situation = await situation_of(tx, found.id, "changed")
            refuse_stale(situation.deployment, change.expected)
            decision = change.decide(situation, beginning)
            await self._revisions.refuse_uncleared(tx, situation, decision)
            await refuse_revision(tx, situation, decision)
            rows = await replicas.list_current(tx, 0)
            done = self._revisions.outcome(situation, decision, rows)
            desired = await load_desired(tx)
        image, known = await self._image(done.deployment, done.revision)
        item = _changed(_item(desired, found.id), decision, known)
        rehearsal = await self._rehearse(_exchanged(desired, item), observed, found.id)
        return Foretold(
            action=change.action,
            deployment=done.deployment,
            revision=done.revision,
            previous=done.previous,
            changes=done.revision.diff if isinstance(decision, Succession) else (),
            image=image,
            rehearsal=rehearsal,
            strategy=_words(rehearsal, in_place=done.in_place),
            in_place=done.in_place,
            notes=done.notes,
        )

    async def _image(
        self, deployment: Deployment, revision: Revision
    ) -> tuple[ImageOutlook, Revision]:
        """Return what a revision's image is, and the revision pinned to it where it is known.

        Nothing is pulled; an engine or a registry that does not answer leaves it unknown.
        """
        reference, digest = revision.spec.image, revision.image_digest
        organization, stock = deployment.organization, self._stock
        here = False
        try:
            async with asyncio.timeout(_REGISTRY_SECONDS):
                image = digest and await stock.resolve_pinned(digest)
                image = image or await stock.here(organization, reference)
                if image is not None and digest in {None, image.digest}:
                    digest, here = image.digest, True
                elif digest is None:
                    digest = await stock.remote_digest(organization, reference)
        except (PrsmdError, TimeoutError):
            pass
        outlook = ImageOutlook(reference=reference, digest=digest, here=here)
        return outlook, dataclasses.replace(revision, image_digest=digest)

    async def _rehearse(
        self, desired: Sequence[DesiredDeployment], observed: Observed, deployment_id: str
    ) -> Rehearsal:
        """Work it out in a thread: with many replicas it takes longer than requests may wait.

        Raises:
            ResourceUnavailableError: too many of the caller's dry runs wait already.
        """
        async with self._turn.slot(asker()):
            return await asyncio.to_thread(
                self._reconciler.rehearse, desired, observed, deployment_id
            )


def _item(desired: Sequence[DesiredDeployment], deployment_id: str) -> DesiredDeployment:
    return next(item for item in desired if item.deployment.id == deployment_id)


def _exchanged(
    desired: Sequence[DesiredDeployment], changed: DesiredDeployment
) -> list[DesiredDeployment]:
    """Return all deployments with this one in place of what it was."""
    id_ = changed.deployment.id
    return [changed if item.deployment.id == id_ else item for item in desired]


def _changed(item: DesiredDeployment, decision: Decision, wanted: Revision) -> DesiredDeployment:
    """Return a deployment as it would be stored; `wanted` is its revision with what is known."""
    if decision is None:
        return item
    rollout = decision.after if isinstance(decision, Abortion) else decision.rollout
    others = [one for one in (*item.others, item.revision) if one.number != wanted.number]
    return dataclasses.replace(
        item,
        deployment=dataclasses.replace(item.deployment, revision=wanted.number),
        revision=wanted,
        others=tuple(others),
        rollout=rollout or item.rollout,
    )


def _words(rehearsal: Rehearsal, *, in_place: bool) -> str:
    if not in_place:
        return rehearsal.strategy
    moves = rehearsal.strategy != NOTHING
    return f"in place, then {rehearsal.strategy}" if moves else "in place"


def _scale_changes(before: Deployment, after: Deployment) -> tuple[FieldChange, ...]:
    """Return what a scale changes; a count that the load had brought about is what was there."""
    recommended = before.recommendation
    was = before.asked_replicas if recommended is None else recommended.replicas
    pairs = (
        ("target_replicas", was, after.asked_replicas),
        ("scaling_strategy", before.scaling_strategy.value, after.scaling_strategy.value),
    )
    return tuple(FieldChange(field=f, before=a, after=b) for f, a, b in pairs if a != b)
