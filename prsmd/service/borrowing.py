"""Models that others lend: which one is meant by a name, by which share, and for how long."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import ConflictError, DeploymentNotFoundError
from prsmd.domain.quota import Share
from prsmd.service.caller import Caller
from prsmd.store import deployments, shares
from prsmd.store.db import Tx

_LOOK_SECONDS = 0.5  # how long what is followed may go on after it was taken back


async def borrowed(tx: Tx, caller: Caller, model: str) -> Deployment | None:
    """Return the model of this id or name that was lent to the caller, or None.

    Raise ConflictError where several organizations lend one: none of them is meant more.
    """
    found = await shares.lent_as(tx, caller.principal, model, time.time())
    refuse_ambiguous(model, set(found))
    return await deployments.get(tx, found[0]) if found else None


async def shares_of(tx: Tx, caller: Caller, deployment: Deployment) -> Sequence[Share]:
    """Return the shares by which the caller may use another organization's deployment."""
    if deployment.organization == caller.principal.organization:
        return ()
    return await shares.reaching(tx, caller.principal, time.time(), deployment.id)


async def lent(tx: Tx, caller: Caller) -> dict[str, list[Share]]:
    """Return the shares by which others lend to the caller, by deployment."""
    found: dict[str, list[Share]] = {}
    for share in await shares.reaching(tx, caller.principal, time.time()):
        found.setdefault(share.deployment_id, []).append(share)
    return found


def refuse_ambiguous(model: str, deployment_ids: set[str]) -> None:
    """Raise ConflictError where a name means more than one model that was lent."""
    if len(deployment_ids) > 1:
        raise ConflictError(
            f"Several models {model[:100]} were lent to you; name one by its deployment id:"
            f" {', '.join(sorted(deployment_ids))}.",
            deployments=sorted(deployment_ids),
        )


@contextlib.asynccontextmanager
async def while_lent(deployment: Deployment, still: Callable[[], bool]) -> AsyncIterator[None]:
    """Let something go on for as long as the deployment is lent, as `still` tells.

    Raises:
        DeploymentNotFoundError: not any more; what went on inside was cancelled.
    """
    ending = asyncio.timeout(None)
    try:
        async with ending:
            looking = asyncio.create_task(_look(still, ending), name=f"lent:{deployment.id}")
            try:
                yield
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
    except TimeoutError:
        if not ending.expired():
            raise
        raise DeploymentNotFoundError(
            f"Deployment {deployment.id} is not lent to you any more.", deployment_id=deployment.id
        ) from None


async def _look(still: Callable[[], bool], ending: asyncio.Timeout) -> None:
    while True:
        if not still():
            ending.reschedule(asyncio.get_running_loop().time())
            return
        await asyncio.sleep(_LOOK_SECONDS)
