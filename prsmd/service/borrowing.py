"""Models that others lend: which one is meant by a name, and by which share."""

import time
from collections.abc import Sequence

from prsmd.domain.access import Permission
from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import ConflictError
from prsmd.domain.quota import Share
from prsmd.service.caller import Caller
from prsmd.store import deployments, shares
from prsmd.store.db import Tx


async def borrowed(tx: Tx, caller: Caller, model: str) -> Deployment | None:
    """Return the model of this id or name that was lent to the caller, or None.

    Raise ConflictError where several organizations lend one: none of them is meant more.
    """
    found = [
        deployment
        for share in await shares.reaching(tx, caller.principal, time.time())
        if (deployment := await deployments.get(tx, share.deployment_id)) is not None
        and model in {deployment.id, deployment.model_id, deployment.model_name}
    ]
    refuse_ambiguous(model, {deployment.id for deployment in found})
    return found[0] if found else None


async def shares_of(tx: Tx, caller: Caller, deployment: Deployment) -> Sequence[Share]:
    """Return the shares by which the caller may use another organization's deployment."""
    if deployment.organization == caller.principal.organization:
        return ()
    reaching = await shares.reaching(tx, caller.principal, time.time())
    return [share for share in reaching if share.deployment_id == deployment.id]


async def lent(tx: Tx, caller: Caller, permission: Permission) -> list[str]:
    """Return the deployments that others lend to the caller for this."""
    if permission not in caller.principal.permissions:
        return []
    reaching = await shares.reaching(tx, caller.principal, time.time())
    return sorted({share.deployment_id for share in reaching if permission in share.permissions})


def refuse_ambiguous(model: str, deployment_ids: set[str]) -> None:
    """Raise ConflictError where a name means more than one model that was lent."""
    if len(deployment_ids) > 1:
        raise ConflictError(
            f"Several models {model[:100]} were lent to you; name one by its deployment id:"
            f" {', '.join(sorted(deployment_ids))}.",
            deployments=sorted(deployment_ids),
        )
