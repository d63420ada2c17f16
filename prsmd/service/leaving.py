"""What an organization had borrowed goes back to its owners when it is removed.

A share that others have too goes on without it; one that only it had is revoked.
"""

import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prsmd.domain.deployment import Deployment
from prsmd.domain.events import Event
from prsmd.domain.quota import Share
from prsmd.service.caller import Caller
from prsmd.service.deployments import event_of, ref_of
from prsmd.service.lending import Lendings
from prsmd.store import audit, deployments, events, shares
from prsmd.store.db import Database, Tx

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A share that an organization had; `left` is what others still have of it, if any do."""

    share: Share
    left: Share | None
    deployment: Deployment
    event: Event


async def give_back(tx: Tx, caller: Caller, organization: str) -> list[Returned]:
    """Take back what was lent to an organization or its keys; tell and record it at its owners'."""
    returned = []
    for share, keys in await shares.lent_to(tx, organization):
        deployment = await deployments.get(tx, share.deployment_id)
        assert deployment is not None  # noqa: S101 - a share goes with its model
        one = _returned(share, organization, keys, deployment)
        if one.left is None:
            await shares.remove(tx, share.id)
        else:
            await shares.put(tx, one.left)
        await events.append(tx, one.event)
        action = "models.unshare" if one.left is None else "models.share"
        details = {"share": share.id, "removed_organization": organization, "keys": sorted(keys)}
        await audit.append(
            tx, caller.record(action, deployment.id, "allowed", details, share.organization)
        )
        returned.append(one)
    return returned


def publish(lendings: Lendings, returned: list[Returned]) -> None:
    """Have what was given back count in memory."""
    for one in returned:
        if one.left is None:
            lendings.drop(one.share)
        else:
            lendings.put(one.left, ref_of(one.deployment))


@dataclasses.dataclass(frozen=True, slots=True)
class Settling:
    """Has memory say what the store does of the shares that a transaction changes."""

    database: Database
    lendings: Lendings
    returned: list[Returned]

    async def write(self, transaction: Callable[[Tx], Awaitable[T]]) -> T:
        """Carry out a transaction that fills `returned`, and publish that."""
        return await self.database.write(
            transaction, lambda _: publish(self.lendings, self.returned)
        )


def _returned(
    share: Share, organization: str, keys: frozenset[str], deployment: Deployment
) -> Returned:
    organizations, others = share.organizations - {organization}, share.keys - keys
    left = dataclasses.replace(
        share, organizations=organizations, keys=others, updated_at=time.time()
    )
    if organizations or others:
        event = event_of(deployment, "ShareChanged", f"{share.id} lends it on other terms")
        return Returned(share=share, left=left, deployment=deployment, event=event)
    event = event_of(deployment, "ShareRevoked", f"{share.id} lends it no more")
    return Returned(share=share, left=None, deployment=deployment, event=event)
