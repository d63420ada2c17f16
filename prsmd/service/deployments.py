"""Deploy, scale, delete: each is one transaction of desired state and audit, then a wake-up.

No engine call is made inside a request; what the engine does is seen in status and events.
"""

import dataclasses
import time
from collections.abc import Callable

from prsmd.core.plan import Unplaceable
from prsmd.core.steps import first_level
from prsmd.domain.access import ModelRef, Permission
from prsmd.domain.deployment import Deployment, Revision, ScalingStrategy
from prsmd.domain.errors import (
    ConflictError,
    DeploymentNotFoundError,
    InvalidInputError,
    ModelNotFoundError,
    PermissionDeniedError,
    PrsmdError,
)
from prsmd.domain.events import Event
from prsmd.domain.ids import model_id_for, random_id
from prsmd.domain.spec import Spec
from prsmd.engine.provisions import Provisions
from prsmd.engine.recorder import Recorder
from prsmd.protocols.registry import PROTOCOLS
from prsmd.service.borrowing import borrowed, shares_of
from prsmd.service.caller import Caller, record_denial, require, require_recorded
from prsmd.service.clearance import refuse_uncleared
from prsmd.service.forecast import Forecaster, expected_seconds
from prsmd.service.model_quota import refuse_new_model, refuse_scale
from prsmd.service.precondition import Expected, refuse_stale
from prsmd.service.succession import situation_of
from prsmd.store import audit, deployments, events, replicas, revisions
from prsmd.store.db import Database, Tx
from prsmd.store.specs import spec_hash


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What a deploy promises: the deployment, how long it should take, the GPU it will get."""

    deployment: Deployment
    spec: Spec
    expected_seconds: float | None
    gpu: str
    refused: Unplaceable | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What a scale asked for. `refused` says why not all of it fits now; what fits is started."""

    deployment: Deployment
    active_replicas: int
    target_replicas: int
    strategy: ScalingStrategy
    refused: Unplaceable | None


class Deployments:
    """Use cases that change deployments."""

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

    async def deploy(self, caller: Caller, model_name: str, spec: Spec) -> Deployed:
        """Store a new model with its first revision. It starts as soon as this returns."""
        deployment, revision = await self.draft(caller, model_name, spec)
        event = event_of(deployment, "Deployed", f"{model_name} {spec.metadata.version} accepted")

        async def write(tx: Tx) -> Deployed:
            await refuse_taken(tx, deployment)
            await refuse_uncleared(tx, self._provisions, deployment.organization, spec)
            await refuse_new_model(tx, deployment, spec)
            await deployments.add(tx, deployment)
            await revisions.add(tx, revision)
            await events.append(tx, event)
            details = {"model": deployment.model_id, "image": spec.image}
            await audit.append(
                tx, caller.record("models.deploy", deployment.id, "allowed", details)
            )
            done = await self._promised(tx, deployment, spec)
            await caller.remember(tx, done)
            return done

        done = await self._database.write(write)
        self._wake()
        self._recorder.announce(event)
        return done

    async def scale(
        self,
        caller: Caller,
        model: str,
        target: int,
        strategy: ScalingStrategy,
        expected: Expected = None,
    ) -> Scaled:
        """Set the replica count; the autoscaler goes on from there within the spec's bounds.

        PreconditionFailedError when the wanted revision is none of the `expected`.
        """
        deployment = await find_changeable(self._database, caller, model, Permission.MODELS_SCALE)
        event = event_of(deployment, "ScaleRequested", f"{target} replicas asked ({strategy})")
        details = {"target_replicas": target, "strategy": strategy.value}

        async def write(tx: Tx) -> Scaled:
            done, gradual_level = await self.scaling(tx, deployment, (target, strategy), expected)
            await deployments.set_asked(
                tx, deployment.id, target, strategy, time.time(), gradual_level
            )
            await events.append(tx, event)
            await audit.append(
                tx,
                caller.record(
                    "models.scale", deployment.id, "allowed", details, deployment.organization
                ),
            )
            await caller.remember(tx, done)
            return done

        done = await self._database.write(write)
        self._wake()
        self._recorder.announce(event)
        return done

    async def delete(self, caller: Caller, model: str, expected: Expected = None) -> Deployment:
        """Ask for a model to be drained, stopped and forgotten. Asking twice is not an error.

        PreconditionFailedError when the wanted revision is none of the `expected`.
        """
        deployment = await find_changeable(self._database, caller, model, Permission.MODELS_DELETE)
        event = event_of(deployment, "DeleteRequested", "draining and removing all replicas")
        deleted = dataclasses.replace(deployment, deleting=True)

        async def write(tx: Tx) -> None:
            stored = await deployments.get(tx, deployment.id)
            if stored is not None:
                refuse_stale(stored, expected)
            if await deployments.mark_deleting(tx, deployment.id, time.time()):
                await events.append(tx, event)
            whose = deployment.organization
            record = caller.record("models.delete", deployment.id, "allowed", None, whose)
            await audit.append(tx, record)
            await caller.remember(tx, deleted)

        await self._database.write(write)
        self._wake()
        self._recorder.announce(event)
        return deleted

    async def draft(
        self, caller: Caller, model_name: str, spec: Spec
    ) -> tuple[Deployment, Revision]:
        """Return a new model with its first revision, if it may be deployed. Stores neither.

        Raises:
            PermissionDeniedError: the caller may not, which is on record; or the operator's rules
                do not allow it.
            InvalidInputError: no serving protocol here can serve it.
            ResourceUnavailableError: it would not fit even on the empty appliance.
            ConflictError: a secret that it names is not there.
        """
        await require_recorded(self._database, caller, Permission.MODELS_DEPLOY, model_name)
        refuse_unservable(spec)
        async with self._database.read() as tx:
            await refuse_uncleared(tx, self._provisions, caller.principal.organization, spec)
        self._forecaster.refuse_impossible(spec.resources)
        now = time.time()
        deployment = _new_deployment(caller, model_name, spec, now)
        revision = Revision(
            deployment_id=deployment.id,
            number=1,
            spec=spec,
            spec_hash=spec_hash(spec),
            created_at=now,
            created_by=caller.principal.id,
        )
        return deployment, revision

    async def _promised(self, tx: Tx, deployment: Deployment, spec: Spec) -> Deployed:
        """Return what can be said at once of a deployment that has just been stored."""
        wanted = max(1, spec.scaling.min_replicas)
        active = await replicas.list_current(tx, 0)
        asker = deployment.organization
        forecast = self._forecaster.replicas(spec.resources, wanted, active, asker)
        return Deployed(
            deployment=deployment,
            spec=spec,
            expected_seconds=await expected_seconds(tx, asker, spec.image),
            gpu=self._forecaster.gpu_text(spec.resources, forecast.placements),
            refused=forecast.refused,
        )

    async def scaling(
        self,
        tx: Tx,
        deployment: Deployment,
        asked: tuple[int, ScalingStrategy],
        expected: Expected,
    ) -> tuple[Scaled, int | None]:
        """Return what a scale comes to, and how far it goes at once (None: all the way).

        Writes nothing. ConflictError, PreconditionFailedError and InvalidInputError say why not.
        """
        target, strategy = asked
        situation = await situation_of(tx, deployment.id, "scaled")
        refuse_stale(situation.deployment, expected)
        spec = situation.current.spec
        _refuse_out_of_bounds(spec, target)
        await refuse_scale(tx, situation, target)
        rows = await replicas.list_current(tx, 0)
        active = sum(row.deployment_id == deployment.id and row.active for row in rows)
        missing = max(0, target - active)
        done = Scaled(
            deployment=situation.deployment,
            active_replicas=active,
            target_replicas=target,
            strategy=strategy,
            refused=self._forecaster.replicas(
                spec.resources, missing, rows, situation.deployment.organization
            ).refused,
        )
        return done, first_level(strategy, active, target)


async def refuse_taken(tx: Tx, deployment: Deployment) -> None:
    """Raise ConflictError when a model of this name or id is there already."""
    for name in (deployment.model_name, deployment.model_id):
        taken = await deployments.find_model(tx, name, deployment.organization)
        if taken is not None:
            what = (
                "is being deleted; try again shortly"
                if taken.deleting
                else f"exists. To change it, update it: PUT /v1/custom-models/{taken.model_id},"
                f" or prsmctl update {taken.model_name}. For another one, choose another name"
            )
            raise ConflictError(
                f"Model {taken.model_id} {what}.",
                model_id=taken.model_id,
                deployment_id=taken.id,
            )


async def find_changeable(
    database: Database, caller: Caller, model: str, permission: Permission
) -> Deployment:
    """Return the model that the caller may change so; who may not is refused and on record."""
    await require_recorded(database, caller, permission, model[:100])
    try:
        async with database.read() as tx:
            return await find_model(tx, caller, model, permission)
    except ModelNotFoundError as error:  # it may be another organization's: that is a denial
        await record_denial(database, caller, permission.value, model[:100], error)
        raise


async def find_model(tx: Tx, caller: Caller, model: str, permission: Permission) -> Deployment:
    """Return the model that the caller may use so; ModelNotFoundError hides all others alike."""
    missing = ModelNotFoundError(f"There is no model {model[:100]}.", model_id=model[:100])
    return await _find(tx, caller, model, permission, missing)


async def find_inside(tx: Tx, caller: Caller, model: str) -> Deployment:
    """Return a model whose making the caller may look at: its revisions and rollouts.

    Raises:
        ModelNotFoundError: it does not exist for the caller.
        PermissionDeniedError: it is lent to the caller, and that no share gives.
    """
    found = await find_model(tx, caller, model, Permission.MODELS_READ)
    if caller.borrows(found.organization):
        raise PermissionDeniedError(
            f"Model {found.model_id} was lent to you, which does not show how it is made.",
            required_permissions=[Permission.MODELS_READ.value],
            current_permissions=sorted(caller.principal.permissions),
        )
    return found


async def find_deployment(
    tx: Tx, caller: Caller, reference: str, permission: Permission
) -> Deployment:
    """Return a deployment by its id, model id or model name, if the caller may use it so."""
    missing = DeploymentNotFoundError(
        f"There is no deployment {reference[:100]}.", deployment_id=reference[:100]
    )
    return await _find(tx, caller, reference, permission, missing)


def ref_of(deployment: Deployment) -> ModelRef:
    """Return the names by which a permission on a deployment's model is decided."""
    return ModelRef(deployment.id, deployment.model_id, deployment.model_name)


async def _find(
    tx: Tx, caller: Caller, reference: str, permission: Permission, missing: PrsmdError
) -> Deployment:
    """Return what a deployment's id, else a model's id or name, means to the caller."""
    found = await deployments.get(tx, reference, caller.scope)
    if found is None:
        found = await _named(tx, caller, reference) or await borrowed(tx, caller, reference)
    if found is None:
        raise missing
    shares = await shares_of(tx, caller, found)
    require(caller, permission, found.organization, missing, ref_of(found), shares)
    return found


async def _named(tx: Tx, caller: Caller, model: str) -> Deployment | None:
    """Return the caller's own model of that name; for an administrator else the only other one.

    Raise ConflictError where several organizations have it: none of them is meant more.
    """
    own = await deployments.find_model(tx, model, caller.principal.organization)
    if own is not None or caller.scope is not None:
        return own
    found = await deployments.list_named(tx, model)
    owners = sorted({one.organization for one in found})
    if len(owners) > 1:
        named = ", ".join(f"{one.id} of {one.organization}" for one in found)
        raise ConflictError(
            f"Several organizations have a model {model[:100]}; name one by its deployment id:"
            f" {named}.",
            organizations=owners,
            deployments=[one.id for one in found],
        )
    return await deployments.find_model(tx, model, owners[0]) if owners else None


def _new_deployment(caller: Caller, model_name: str, spec: Spec, now: float) -> Deployment:
    organization = caller.principal.organization
    return Deployment(
        id=random_id("deploy"),
        organization=organization,
        model_id=model_id_for(model_name, organization),
        model_name=model_name,
        revision=1,
        asked_replicas=spec.scaling.min_replicas,
        created_at=now,
        updated_at=now,
    )


def refuse_unservable(spec: Spec) -> None:
    """Raise InvalidInputError for a spec that no serving protocol here can serve."""
    field = "deployment_config.serving"
    protocol = PROTOCOLS.get(spec.serving.protocol)
    if protocol is None:
        known = ", ".join(sorted(PROTOCOLS))
        raise InvalidInputError.field(
            f"{field}.protocol", f"is not a serving protocol; known are {known}"
        )
    problem = protocol.problem(spec.serving)
    if problem is not None:
        raise InvalidInputError.field(field, problem)


def _refuse_out_of_bounds(spec: Spec, target: int) -> None:
    low, high = spec.scaling.min_replicas, spec.scaling.max_replicas
    if not low <= target <= high:
        raise InvalidInputError.field(
            "target_replicas",
            f"must be from min_replicas {low} to max_replicas {high} of this model",
            target,
        )


def event_of(deployment: Deployment, reason: str, message: str) -> Event:
    """Return an event of a deployment, as of now."""
    return Event(
        deployment_id=deployment.id,
        organization=deployment.organization,
        reason=reason,
        message=message,
        at=time.time(),
    )
