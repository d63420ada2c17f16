"""API keys: create (shown once), list, revoke."""

import dataclasses
import time

from prsmd.core.apikey import ID_LENGTH, SECRET_LENGTH, format_key, is_key_id
from prsmd.domain.access import ROLES, ApiKey, Permission
from prsmd.domain.errors import NotFoundError, PermissionDeniedError
from prsmd.domain.ids import random_id
from prsmd.service.access import KeyRing
from prsmd.service.caller import Caller, require_recorded
from prsmd.store import audit, keys
from prsmd.store.db import Database, Tx


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What a new key may do and for how long (seconds; None: until revoked)."""

    name: str
    role: str
    organization: str | None = None
    expires_in_seconds: float | None = None


class Keys:
    """Use cases on API keys."""

    def __init__(self, database: Database, ring: KeyRing) -> None:
        self._database = database
        self._ring = ring

    async def create(self, caller: Caller, request: KeyRequest) -> tuple[ApiKey, str]:
        """Return the new key's row and its text, which nobody can show again."""
        await require_recorded(
            self._database, caller, Permission.KEYS_MANAGE, f"key:{request.name}"
        )
        organization = request.organization or caller.principal.organization
        await self._refuse_escalation(caller, request, organization)
        now = time.time()
        secret = random_id("", SECRET_LENGTH).removeprefix("_")
        lifetime = request.expires_in_seconds
        key = ApiKey(
            id=random_id("", ID_LENGTH).removeprefix("_"),
            organization=organization,
            role=request.role,
            name=request.name,
            digest=self._ring.digest(secret),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        made = key, format_key(key.id, secret)
        record = caller.record("keys.create", f"key:{key.id}", "allowed", {"role": key.role})

        async def write(tx: Tx) -> None:
            await keys.add(tx, key)
            await audit.append(tx, record)
            await caller.remember(tx, made)

        await self._database.write(write)
        self._ring.add(key)
        return made

    async def list(self, caller: Caller) -> list[ApiKey]:
        """Return the keys of the caller's scope, without anything secret."""
        await require_recorded(self._database, caller, Permission.KEYS_MANAGE, "keys")
        async with self._database.read() as tx:
            return await keys.list_for(tx, caller.scope)

    async def revoke(self, caller: Caller, key_id: str) -> ApiKey:
        """Refuse a key from now on. NotFoundError for one outside the caller's scope."""
        subject = f"key:{key_id}" if is_key_id(key_id) else "key:unknown"
        await require_recorded(self._database, caller, Permission.KEYS_MANAGE, subject)
        async with self._database.read() as tx:
            key = await keys.get(tx, key_id)
        if key is None or caller.scope not in {None, key.organization}:
            raise NotFoundError("There is no such API key; a key's id is its part after prsm_.")
        record = caller.record("keys.revoke", subject, "allowed")

        async def write(tx: Tx) -> ApiKey:
            if await keys.revoke(tx, key_id, time.time()):
                await audit.append(tx, record)
            revoked = await keys.get(tx, key_id)
            assert revoked is not None  # noqa: S101 - keys are never removed
            await caller.remember(tx, revoked)
            return revoked

        revoked = await self._database.write(write)
        self._ring.add(revoked)
        return revoked

    async def _refuse_escalation(
        self, caller: Caller, request: KeyRequest, organization: str
    ) -> None:
        """Nobody creates a key that may do more than they may, or acts elsewhere."""
        principal = caller.principal
        beyond = ROLES[request.role] - principal.permissions
        if caller.scope in {None, organization} and not beyond:
            return
        denied = caller.record("keys.create", f"key:{request.name}", "denied")
        await self._database.write(lambda tx: audit.append(tx, denied))
        raise PermissionDeniedError(
            f"Role {principal.role} in {principal.organization} cannot create a key with role"
            f" {request.role} in {organization}.",
            required_permissions=sorted(ROLES[request.role]),
            current_permissions=sorted(principal.permissions),
        )
