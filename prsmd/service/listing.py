"""Which deployments belong in a caller's lists: exactly those that it may look at one by one."""

import asyncio
from collections.abc import Sequence

from prsmd.core.permit import Allow, permit
from prsmd.domain.access import ModelRef, Permission
from prsmd.domain.deployment import Deployment
from prsmd.domain.quota import Share
from prsmd.service.borrowing import lent
from prsmd.service.caller import Caller
from prsmd.store import deployments
from prsmd.store.db import Tx

_NOBODY = ""
_AT_ONCE = 200  # models that are looked at before others get their turn


async def listed(tx: Tx, caller: Caller, permission: Permission) -> tuple[str | None, list[str]]:
    """Return whose deployments belong in a list (None: everybody's), and which others beside.

    Who has the permission on single models only, or is held to some, sees these one by one.
    """
    principal = caller.principal
    by_deployment = await lent(tx, caller)
    granted = permission in principal.permissions
    borrowed = sorted(
        id_
        for id_, shares in by_deployment.items()
        if granted and any(permission in share.permissions for share in shares)
    )
    if granted and principal.only_models is None:
        return caller.scope, borrowed
    seen: list[str] = []
    candidates = await deployments.list_of(tx, caller.scope, borrowed)
    for number, found in enumerate(candidates, start=1):
        if _is_allowed(caller, permission, found, by_deployment.get(found.id, ())):
            seen.append(found.id)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return _NOBODY, seen


def _is_allowed(
    caller: Caller, permission: Permission, found: Deployment, lent: Sequence[Share]
) -> bool:
    ref = ModelRef(found.id, found.model_id, found.model_name)
    own = found.organization == caller.principal.organization
    verdict = permit(caller.principal, permission, found.organization, ref, () if own else lent)
    return isinstance(verdict, Allow)
