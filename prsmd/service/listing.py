"""Which deployments belong in a caller's lists: exactly those that it may look at one by one."""

from prsmd.core.permit import Allow, permit
from prsmd.domain.access import ModelRef, Permission
from prsmd.domain.deployment import Deployment
from prsmd.service.borrowing import lent, shares_of
from prsmd.service.caller import Caller
from prsmd.store import deployments
from prsmd.store.db import Tx

_NOBODY = ""


async def listed(tx: Tx, caller: Caller, permission: Permission) -> tuple[str | None, list[str]]:
    """Return whose deployments belong in a list (None: everybody's), and which others beside.

    Who has the permission on single models only, or is held to some, sees these one by one.
    """
    principal = caller.principal
    borrowed = await lent(tx, caller, permission)
    if permission in principal.permissions and principal.only_models is None:
        return caller.scope, borrowed
    found = [
        deployment
        for deployment in await deployments.list_all(tx)
        if caller.scope in {None, deployment.organization} or deployment.id in borrowed
    ]
    return _NOBODY, [one.id for one in found if await _allowed(tx, caller, permission, one)]


async def _allowed(tx: Tx, caller: Caller, permission: Permission, found: Deployment) -> bool:
    ref = ModelRef(found.id, found.model_id, found.model_name)
    shares = await shares_of(tx, caller, found)
    verdict = permit(caller.principal, permission, found.organization, ref, shares)
    return isinstance(verdict, Allow)
