"""What deploys, updates, scales, rollbacks and secrets may ask for: an organization's bounds.

Asked in the transaction that writes, and by dry runs in the same words.
"""

from prsmd.core.container_size import Oversize, oversize
from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import InvalidInputError
from prsmd.domain.resource_quota import Dimension, Limits
from prsmd.domain.spec import Needs, Spec
from prsmd.engine.provisions import binary_words
from prsmd.engine.quota_ledger import Wanted, refuse_model
from prsmd.service.succession import Situation, Succession
from prsmd.service.updates import Abortion
from prsmd.store import resource_quotas, revisions, secrets
from prsmd.store.db import Tx
from prsmd.store.secrets import StoredSecret


async def refuse_new_model(tx: Tx, deployment: Deployment, spec: Spec) -> None:
    """Return if the organization may have this model beside those that it has.

    Raises:
        InvalidInputError: the spec is beyond what is allowed for each model.
        ResourceQuotaExceededError: the organization's quota does not allow it.
    """
    await _refuse_out_of_bounds(tx, deployment.organization, spec, None)
    wanted = Wanted(replicas=deployment.asked_replicas, needs=(_needs(spec),))
    await refuse_model(tx, deployment.organization, deployment.id, wanted, new=True)


async def refuse_scale(tx: Tx, situation: Situation, target: int) -> None:
    """Return if a model may have so many replicas; see `refuse_new_model` for the errors."""
    organization = situation.deployment.organization
    limits = await resource_quotas.limits(tx, organization)
    _refuse_replicas(limits, "target_replicas", target)
    needs = [_needs(situation.current.spec)]
    if situation.rollout is not None:
        earlier = situation.revision(situation.rollout.from_revision)
        needs += [] if earlier is None else [_needs(earlier.spec)]
    wanted = Wanted(replicas=target, needs=tuple(needs))
    await refuse_model(tx, organization, situation.deployment.id, wanted)


async def refuse_revision(
    tx: Tx, situation: Situation, decision: Succession | Abortion | None
) -> None:
    """Return if a model may become what was decided; see `refuse_new_model` for the errors.

    An abortion goes back to what counted all the time.
    """
    if not isinstance(decision, Succession):
        return
    deployment, spec = situation.deployment, decision.revision.spec
    await _refuse_out_of_bounds(tx, deployment.organization, spec, decision.previous.spec)
    needs = [_needs(spec)]
    if decision.rollout is not None:
        earlier = situation.revision(decision.rollout.from_revision)
        needs += [] if earlier is None else [_needs(earlier.spec)]
    thought = deployment.recommendation
    replicas = deployment.asked_replicas if thought is None else thought.replicas
    wanted = Wanted(replicas=replicas, needs=tuple(needs))
    await refuse_model(tx, deployment.organization, deployment.id, wanted)


async def refuse_unfit_secret(tx: Tx, stored: StoredSecret) -> None:
    """Return if every model that has this secret in a variable can be started with it as stored.

    Raises:
        InvalidInputError: it is too large for one of them, or binary.
    """
    organization = stored.organization
    limits = await resource_quotas.limits(tx, organization)
    for user in await secrets.users_of(tx, organization, stored.name):
        revision = await revisions.get(tx, user.deployment_id, user.revision)
        if revision is None or not _in_variable(revision.spec, stored.name):
            continue
        where = f"revision {user.revision} of {user.model_id} has it in a variable"
        if not stored.textual:
            raise InvalidInputError.field("value", f"{where}; {binary_words(stored.name)}")
        found = await _oversize(tx, organization, revision.spec, limits)
        if found is not None:
            raise InvalidInputError.field("value", f"{where}; {found.field}: {found.reason}")


def _in_variable(spec: Spec, secret: str) -> bool:
    return any(use.in_environment and use.name == secret for use in spec.secrets.values())


async def forget_old_revisions(tx: Tx, deployment: Deployment) -> None:
    """Forget what a model has of revisions beyond those that are kept of each."""
    limits = await resource_quotas.limits(tx, deployment.organization)
    keep = limits.get(Dimension.REVISIONS_PER_MODEL)
    if keep is not None and keep.hard is not None:
        await revisions.prune(tx, deployment.id, keep.hard)


async def _refuse_out_of_bounds(tx: Tx, organization: str, spec: Spec, before: Spec | None) -> None:
    """Raise InvalidInputError for what is beyond the bounds, unless it was so before."""
    limits = await resource_quotas.limits(tx, organization)
    scaling = spec.scaling
    for name in ("min_replicas", "max_replicas"):
        count = getattr(scaling, name)
        if before is None or count > getattr(before.scaling, name):
            _refuse_replicas(limits, f"deployment_config.scaling.{name}", count)
    found = await _oversize(tx, organization, spec, limits)
    if found is not None:
        raise InvalidInputError.field(found.field, found.reason)


async def _oversize(tx: Tx, organization: str, spec: Spec, limits: Limits) -> Oversize | None:
    sizes = {}
    for variable, use in spec.secrets.items():
        stored = await secrets.get(tx, organization, use.name) if use.in_environment else None
        if stored is not None:
            sizes[variable] = stored.size_bytes
    most = limits.get(Dimension.ENVIRONMENT_PER_MODEL)
    return oversize(spec, sizes, None if most is None else most.hard)


def _refuse_replicas(limits: Limits, field: str, count: int) -> None:
    limit = limits.get(Dimension.REPLICAS_PER_MODEL)
    if limit is not None and limit.hard is not None and count > limit.hard:
        raise InvalidInputError.field(
            field,
            f"must be at most {limit.hard}, which is the most replicas of one model here"
            " (quota.replicas_per_model); an administrator can raise it for an organization",
            count,
        )


def _needs(spec: Spec) -> Needs:
    return Needs(resources=spec.resources, scaling=spec.scaling)
