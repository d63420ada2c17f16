"""Sharing: lend a model to organizations or keys within limits, change that, take it back."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any

from prsmd.core.apikey import is_key_id
from prsmd.core.blocks import TOTAL
from prsmd.core.delegation import lent
from prsmd.core.meter import DAY_SECONDS, Standing
from prsmd.domain.access import Permission, is_organization_name
from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import ConflictError, InvalidInputError, NotFoundError
from prsmd.domain.events import Event
from prsmd.domain.ids import random_id
from prsmd.domain.quota import Share, UsageLimits
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.quota_ledger import refuse_one_more
from prsmd.engine.recorder import Recorder
from prsmd.service.borrowing import while_lent
from prsmd.service.caller import Caller, denials_recorded
from prsmd.service.delegation import refuse_excess
from prsmd.service.deployments import (
    event_of,
    find_changeable,
    find_deployment,
    find_model,
    ref_of,
)
from prsmd.service.lending import Lendings
from prsmd.service.status import Page
from prsmd.store import audit, deployments, events, leases, shares
from prsmd.store.db import Database, Tx

SHAREABLE: Mapping[str, Permission] = {
    "read": Permission.MODELS_READ,
    "infer": Permission.MODELS_INFER,
    "logs": Permission.LOGS_READ,
    "usage": Permission.USAGE_READ,
}
Reserved = Mapping[str, Mapping[int, int]]
"""What the store has set aside, by account and day."""

_MOST_SHARES = 10_000  # of one model
_AT_ONCE = 20  # borrowers whose limits are looked at before others get their turn


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """Whom to lend a model to, for what, how much of it and until when (epoch seconds)."""

    organizations: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    permissions: frozenset[Permission]
    limits: UsageLimits = dataclasses.field(default_factory=UsageLimits)
    expires_at: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Lent:
    """A share as it is shown: of which model, and what is left to each borrower.

    Of a share that is given to an organization, `left` is by its name; else by the key's id.
    """

    share: Share
    model_id: str
    left: Mapping[str, Sequence[Standing]] = dataclasses.field(default_factory=dict)


class Shares:
    """Use cases on shares.

    Events say neither to whom nor on which terms: whoever may see the model reads them.
    """

    def __init__(self, database: Database, recorder: Recorder, lendings: Lendings) -> None:
        self._database = database
        self._recorder = recorder
        self._lendings = lendings

    async def create(self, caller: Caller, model: str, request: ShareRequest) -> Lent:
        """Lend a model. ConflictError where a borrower has a share of it already."""
        deployment = await self._shared(caller, model)
        now = time.time()
        share = Share(
            id=random_id("share"),
            deployment_id=deployment.id,
            organization=deployment.organization,
            organizations=request.organizations,
            keys=request.keys,
            permissions=request.permissions,
            limits=request.limits,
            expires_at=request.expires_at,
            created_at=now,
            created_by=caller.principal.id,
            updated_at=now,
        )
        _refuse_wrong(share, now)

        async def made(tx: Tx) -> Share:
            _refuse_more(caller, deployment, share)
            await refuse_one_more(tx, share.organization, Dimension.SHARES)
            await shares.add(tx, share)
            await _refuse_twice(tx, share)
            return share

        event = event_of(deployment, "Shared", f"{share.id} lends it")
        return await self._store(caller, deployment, made, event)

    async def page(self, caller: Caller, model: str, page: Page) -> tuple[list[Lent], int]:
        """Return some shares of a model, oldest first, and how many there are, expired ones too.

        Others have their turn after every few borrowers.
        """
        async with self._database.read() as tx:
            deployment = await find_model(tx, caller, model, Permission.MODELS_SHARE)
            found, total = await shares.page(tx, deployment.id, page.limit, page.offset)
            accounts = [account for share in found for account in _accounts(share).values()]
            reserved = await _reserved(tx, accounts)
        shown = []
        for share in found:
            left: dict[str, Sequence[Standing]] = {}
            every = [*_accounts(share).items()]
            for at in range(0, len(every), _AT_ONCE):
                left |= self._left(share, every[at : at + _AT_ONCE], reserved)
                await asyncio.sleep(0)
            shown.append(Lent(share, deployment.model_id, left))
        return shown, total

    async def change(
        self, caller: Caller, model: str, share_id: str, changes: Mapping[str, Any]
    ) -> Lent:
        """Change some fields of a share, its limits one by one; from the next request on."""
        deployment = await self._shared(caller, model)

        async def changed(tx: Tx) -> Share:
            known = await _of_model(tx, deployment, share_id)
            share = _changed(known, changes)
            _refuse_more(caller, deployment, share, known)
            await shares.put(tx, share)
            if _reaches_more(known, share):
                await _refuse_twice(tx, share)
            return share

        event = event_of(deployment, "ShareChanged", f"{share_id} lends it on other terms")
        return await self._store(caller, deployment, changed, event)

    async def revoke(self, caller: Caller, model: str, share_id: str) -> Lent:
        """Take a model back from the next request on."""
        deployment = await self._shared(caller, model)
        event = event_of(deployment, "ShareRevoked", f"{share_id} lends it no more")

        async def write(tx: Tx) -> Lent:
            share = await _of_model(tx, deployment, share_id)
            await shares.remove(tx, share.id)
            await events.append(tx, event)
            details = {"share": share.id}
            record = caller.record(
                "models.unshare", deployment.id, "allowed", details, deployment.organization
            )
            await audit.append(tx, record)
            done = Lent(share, deployment.model_id)
            await caller.remember(tx, done)
            return done

        done = await self._database.write(write, lambda done: self._lendings.drop(done.share))
        self._recorder.announce(event)
        return done

    async def borrowed(self, caller: Caller, deployments: Sequence[Deployment]) -> dict[str, Lent]:
        """Return the caller's own shares of others' deployments, with what is left to it."""
        principal = caller.principal
        found: list[tuple[Share, Deployment]] = []
        for deployment in deployments:
            reaching = self._lendings.of(principal, deployment.id)
            if reaching and caller.borrows(deployment.organization):
                found.append((reaching[0], deployment))
        if not found:
            return {}
        async with self._database.read() as tx:
            reserved = await _reserved(tx, [share.account(principal) for share, _ in found])
        lent = {}
        for share, of in found:
            account = share.account(principal)
            left = self._lendings.standings(share, account, reserved.get(account, {}))
            lent[of.id] = Lent(share, of.model_id, {principal.organization: left})
        return lent

    @contextlib.asynccontextmanager
    async def while_lent(
        self, caller: Caller, reference: str, permission: Permission
    ) -> AsyncIterator[None]:
        """Let what follows a deployment go on until it is taken back, where it is lent at all.

        Raises:
            DeploymentNotFoundError: it was taken back meanwhile.
        """
        async with self._database.read() as tx:
            found = await find_deployment(tx, caller, reference, permission)
        if not caller.borrows(found.organization):
            yield
            return

        def still() -> bool:
            reaching = self._lendings.of(caller.principal, found.id)
            return any(permission in share.permissions for share in reaching)

        async with while_lent(found, still):
            yield

    async def _shared(self, caller: Caller, model: str) -> Deployment:
        return await find_changeable(self._database, caller, model, Permission.MODELS_SHARE)

    async def _store(
        self,
        caller: Caller,
        deployment: Deployment,
        put: Callable[[Tx], Awaitable[Share]],
        event: Event,
    ) -> Lent:
        """Write a new or changed share by `put`, and publish it."""

        async def write(tx: Tx) -> Lent:
            if await deployments.get(tx, deployment.id) is None:
                raise NotFoundError(f"Model {deployment.model_id} is gone.")
            share = await put(tx)
            await events.append(tx, event)
            details = {"share": share.id, **_recorded(share)}
            await audit.append(
                tx,
                caller.record(
                    "models.share", deployment.id, "allowed", details, deployment.organization
                ),
            )
            accounts = _accounts(share)
            left = self._left(share, accounts.items(), await _reserved(tx, accounts.values()))
            done = Lent(share, deployment.model_id, left)
            await caller.remember(tx, done)
            return done

        async with denials_recorded(self._database, caller, "models.share", deployment.id):
            done = await self._database.write(
                write, lambda done: self._lendings.put(done.share, ref_of(deployment))
            )
        self._recorder.announce(event)
        return done

    def _left(
        self, share: Share, accounts: Iterable[tuple[str, str]], reserved: Reserved
    ) -> dict[str, Sequence[Standing]]:
        """Return what is left to borrowers, each with its account."""
        return {
            name: self._lendings.standings(share, account, reserved.get(account, {}))
            for name, account in accounts
        }


async def _of_model(tx: Tx, deployment: Deployment, share_id: str) -> Share:
    found = await shares.get(tx, share_id)
    if found is None or found.deployment_id != deployment.id:
        raise NotFoundError(f"Model {deployment.model_id} has no share {share_id[:100]}.")
    return found


def _changed(share: Share, changes: Mapping[str, Any]) -> Share:
    limits = dataclasses.replace(share.limits, **changes.get("limits", {}))
    after = dataclasses.replace(share, **{**changes, "limits": limits}, updated_at=time.time())
    _refuse_wrong(after, None if after.expires_at == share.expires_at else time.time())
    if bool(after.keys) != bool(share.keys):
        raise InvalidInputError.field("share_type", "cannot be changed; make another share")
    return after


def _reaches_more(before: Share, share: Share) -> bool:
    """Tell whether somebody may have a model by a share who had it not by that share before."""
    came = share.organizations - before.organizations or share.keys - before.keys
    return bool(came) or not before.in_force(time.time())


async def _refuse_twice(tx: Tx, share: Share) -> None:
    """Raise ConflictError where a borrower of this share has another one of the same model."""
    if await shares.count(tx, share.deployment_id) > _MOST_SHARES:
        raise ConflictError(f"A model has at most {_MOST_SHARES} shares; revoke some.")
    twice = await shares.lent_twice(tx, share, time.time())
    if twice is not None:
        other, names = twice
        raise ConflictError(
            f"{', '.join(names)} has {other} of this model already; change that one, or revoke it.",
            share_id=other,
        )


def _refuse_wrong(share: Share, now: float | None) -> None:
    """Raise InvalidInputError for borrowers that cannot be, and an end that has passed at `now`."""
    for name in sorted(share.organizations):
        if not is_organization_name(name):
            problem = "must be names of organizations: a-z, 0-9 and -"
            raise InvalidInputError.field("allowed_organizations", problem, name[:100])
        if name == share.organization:
            problem = "has the model already: it is its own"
            raise InvalidInputError.field("allowed_organizations", problem, name)
    for key in share.keys:
        if not is_key_id(key):
            problem = "must be ids of API keys: the part after prsm_"
            raise InvalidInputError.field("allowed_keys", problem)
    if now is not None and share.expires_at is not None and share.expires_at <= now:
        raise InvalidInputError.field("expires_at", "must be in the future")


def _refuse_more(
    caller: Caller, deployment: Deployment, share: Share, before: Share | None = None
) -> None:
    """Nobody lends more than they hold; a share that is only narrowed gives nothing."""
    giver, model = caller.principal, ref_of(deployment)
    known = None
    if before is not None and share.organizations <= before.organizations:
        known = lent(before, model, giver) if share.keys <= before.keys else None
    refuse_excess(giver, lent(share, model, giver), f"share {model.model_id} like this", known)


async def _reserved(tx: Tx, accounts: Collection[str]) -> Reserved:
    return await leases.reserved_of(tx, accounts, (TOTAL, int(time.time() // DAY_SECONDS)))


def _accounts(share: Share) -> dict[str, str]:
    """Return under which account each borrower's use of a share counts, by its name or key id."""
    by_organization = {name: share.account_of(name) for name in sorted(share.organizations)}
    return by_organization | {key: share.account_of(f"key:{key}") for key in sorted(share.keys)}


def _recorded(share: Share) -> dict[str, Any]:
    """Return what the audit log says of a share."""
    return {
        "organizations": sorted(share.organizations),
        "keys": sorted(share.keys),
        "permissions": sorted(each.value for each in share.permissions),
        "limits": {name: n for name, n in dataclasses.asdict(share.limits).items() if n},
        "expires_at": share.expires_at,
    }
