"""API keys: make (shown once), list, change, rotate, revoke. What changes counts at once."""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

from prsmd.core.apikey import ID_LENGTH, SECRET_LENGTH, format_key, is_key_id
from prsmd.core.delegation import held_to
from prsmd.domain.access import ApiKey, Permission, Principal
from prsmd.domain.errors import ConflictError, NotFoundError, PrsmdError
from prsmd.domain.ids import random_id
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.quota_ledger import refuse_one_more
from prsmd.service.access import KeyRing
from prsmd.service.caller import Caller, require_recorded
from prsmd.service.registrar import Ask, Done, Registrar
from prsmd.service.roles import refuse_unknown_role
from prsmd.store import deployments, keys
from prsmd.store.db import Tx

log = logging.getLogger(__name__)
_KEPT_ENDED = 1000  # keys of an organization that were revoked or have expired


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What a new key may do, for how long (seconds; None: until revoked) and what it is held to."""

    name: str
    role: str
    organization: str | None = None
    expires_in_seconds: float | None = None
    models: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    requests_per_day: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who a caller is: the models that their roles on single ones are on, and their key."""

    principal: Principal
    models: Mapping[str, str]  # model ids by deployment id
    key: ApiKey | None


class Keys:
    """Use cases on API keys."""

    def __init__(self, registrar: Registrar, ring: KeyRing) -> None:
        self._registrar = registrar
        self._ring = ring

    async def create(self, caller: Caller, request: KeyRequest) -> tuple[ApiKey, str]:
        """Return the new key's row and its text, which nobody can show again.

        A key that makes another one gives it no more time, networks or rate than it has itself.
        Those of the organization that ended longest ago are forgotten.
        """
        secret, forgotten = _new_secret(), list[str]()

        def take_over(made: tuple[ApiKey, str]) -> None:
            self._take_over(made)
            self._registrar.directory.drop_keys(forgotten)
            self._registrar.directory.end_expired(time.time(), made[0].organization)

        async def write(tx: Tx) -> Done[tuple[ApiKey, str]]:
            organization = self._registrar.place(caller, request.organization)
            refuse_unknown_role(self._registrar, organization, request.role, "role")
            key = self._inherited(caller, self._new(caller, request, organization, secret))
            self._refuse_excess(caller, key, "create")
            await refuse_one_more(tx, organization, Dimension.KEYS)
            forgotten[:] = await keys.forget_ended(tx, organization, _KEPT_ENDED, time.time())
            await keys.add(tx, key)
            made = key, format_key(key.id, secret)
            return Done(
                result=made,
                organization=organization,
                subject=f"key:{key.id}",
                details=_details(key),
            )

        ask = Ask(Permission.KEYS_MANAGE, "keys.create", f"key:{request.name}")
        return await self._registrar.carry_out(caller, ask, write, take_over)

    async def page(self, caller: Caller, limit: int, offset: int) -> tuple[list[ApiKey], int]:
        """Return some keys of the caller's scope, oldest first, and how many there are."""
        database = self._registrar.database
        await require_recorded(database, caller, Permission.KEYS_MANAGE, "keys")
        async with database.read() as tx:
            found, total = await keys.page(tx, caller.scope, limit, offset)
        return [self._as_used(key) for key in found], total

    async def get(self, caller: Caller, key_id: str) -> ApiKey:
        """Return a key. NotFoundError for one outside the caller's scope."""
        database = self._registrar.database
        await require_recorded(database, caller, Permission.KEYS_MANAGE, _subject(key_id))
        async with database.read() as tx:
            return self._as_used(await _known(tx, caller, key_id))

    async def change(self, caller: Caller, key_id: str, changes: Mapping[str, Any]) -> ApiKey:
        """Change fields of a key; those of `changes` are `ApiKey`'s own. They count at once."""

        async def write(tx: Tx) -> Done[ApiKey]:
            known = await _known(tx, caller, key_id)
            _refuse_revoked(known, "changed")
            changed = dataclasses.replace(known, **changes)
            refuse_unknown_role(self._registrar, known.organization, changed.role, "role")
            self._refuse_beyond(caller, known, "change")
            self._refuse_excess(caller, changed, "change", known)
            if _expired(known) and not _expired(changed):
                await refuse_one_more(tx, known.organization, Dimension.KEYS)
            await keys.put(tx, changed)
            details = {"fields": sorted(changes), **_details(changed)}
            return Done(
                result=changed,
                organization=known.organization,
                details=details,
                changed=changed != known,
            )

        return await self._carry_out(caller, "update", key_id, write)

    async def rotate(
        self, caller: Caller, key_id: str, overlap_seconds: float
    ) -> tuple[ApiKey, str]:
        """Give a key a new secret; the old one is good for `overlap_seconds` more."""
        secret = _new_secret()

        async def write(tx: Tx) -> Done[tuple[ApiKey, str]]:
            known = await _known(tx, caller, key_id)
            _refuse_revoked(known, "rotated")
            self._refuse_excess(caller, known, "rotate")
            now = time.time()
            rotated = dataclasses.replace(
                known,
                digest=self._ring.digest(secret),
                rotated_at=now,
                previous_digest=known.digest if overlap_seconds else None,
                previous_until=now + overlap_seconds if overlap_seconds else None,
            )
            await keys.put(tx, rotated)
            made = rotated, format_key(rotated.id, secret)
            return Done(
                result=made,
                organization=known.organization,
                details={"overlap_seconds": overlap_seconds},
            )

        ask = Ask(Permission.KEYS_MANAGE, "keys.rotate", _subject(key_id))
        return await self._registrar.carry_out(caller, ask, write, self._take_over)

    async def revoke(self, caller: Caller, key_id: str) -> ApiKey:
        """Refuse a key from now on, and end what it began. NotFoundError outside the scope."""

        async def write(tx: Tx) -> Done[ApiKey]:
            known = await _known(tx, caller, key_id)
            self._refuse_beyond(caller, known, "revoke")
            now = time.time()
            changed = await keys.revoke(tx, key_id, now)
            revoked = dataclasses.replace(known, revoked_at=now) if changed else known
            return Done(result=revoked, organization=known.organization, changed=changed)

        return await self._carry_out(caller, "revoke", key_id, write)

    async def who(self, caller: Caller) -> Who:
        """Return who the caller is."""
        own, models = self._own(caller), dict[str, str]()
        if caller.principal.on_models:
            async with self._registrar.database.read() as tx:
                models = await deployments.model_ids(tx, caller.principal.on_models)
        key = None if own is None else self._as_used(own)
        return Who(principal=caller.principal, models=models, key=key)

    async def flush_used(self) -> None:
        """Store when keys were used since this was last called."""
        used = self._ring.used()
        if used:
            await self._registrar.database.write(lambda tx: keys.note_used(tx, used))

    async def run(self, interval_seconds: float) -> None:
        """Flush when keys were used, every so often and at the end."""
        try:
            while True:
                await asyncio.sleep(interval_seconds)
                try:
                    await self.flush_used()
                except PrsmdError as error:
                    log.warning("when keys were used could not be stored: %s", error.message)
        finally:
            with contextlib.suppress(PrsmdError):
                await self.flush_used()

    async def _carry_out(self, caller: Caller, verb: str, key_id: str, write: Any) -> ApiKey:
        ask = Ask(Permission.KEYS_MANAGE, f"keys.{verb}", _subject(key_id))
        done: ApiKey = await self._registrar.carry_out(
            caller, ask, write, self._registrar.directory.put_key
        )
        return done

    def _take_over(self, made: tuple[ApiKey, str]) -> None:
        self._registrar.directory.put_key(made[0])

    def _as_used(self, key: ApiKey) -> ApiKey:
        return dataclasses.replace(key, last_used_at=self._ring.last_used(key))

    def _new(self, caller: Caller, request: KeyRequest, organization: str, secret: str) -> ApiKey:
        now, lifetime = time.time(), request.expires_in_seconds
        return ApiKey(
            id=random_id("", ID_LENGTH).removeprefix("_"),
            organization=organization,
            role=request.role,
            name=request.name,
            digest=self._ring.digest(secret),
            created_at=now,
            created_by=caller.principal.id,
            expires_at=None if lifetime is None else now + lifetime,
            models=request.models,
            networks=request.networks,
            requests_per_minute=request.requests_per_minute,
            requests_per_day=request.requests_per_day,
        )

    def _inherited(self, caller: Caller, key: ApiKey) -> ApiKey:
        """Return the key, held to what its maker is held to where nothing was wished."""
        bounds = held_to(key.bounds, caller.principal.bounds)
        return dataclasses.replace(
            key,
            expires_at=bounds.expires_at,
            networks=bounds.networks,
            requests_per_minute=bounds.requests_per_minute,
            requests_per_day=bounds.requests_per_day,
        )

    def _refuse_beyond(self, caller: Caller, key: ApiKey, verb: str) -> None:
        other = self._registrar.directory.would_be(key)
        self._registrar.refuse_beyond(caller, other, _what(key, verb))

    def _refuse_excess(
        self, caller: Caller, key: ApiKey, verb: str, before: ApiKey | None = None
    ) -> None:
        would_be = self._registrar.directory.would_be
        known = None if before is None else would_be(before)
        self._registrar.refuse_excess(caller, would_be(key), _what(key, verb), known)

    def _own(self, caller: Caller) -> ApiKey | None:
        key_id = caller.principal.key_id
        return None if key_id is None else self._registrar.directory.key(key_id)


def _what(key: ApiKey, verb: str) -> str:
    return f"{verb} a key with role {key.role} in {key.organization}"


async def _known(tx: Tx, caller: Caller, key_id: str) -> ApiKey:
    key = await keys.get(tx, key_id, caller.scope)
    if key is None:
        raise NotFoundError("There is no such API key; a key's id is its part after prsm_.")
    return key


def _refuse_revoked(key: ApiKey, verb: str) -> None:
    if key.revoked_at is not None:
        raise ConflictError(f"Key {key.id} was revoked and cannot be {verb}; make another one.")


def _expired(key: ApiKey) -> bool:
    return key.expires_at is not None and key.expires_at <= time.time()


def _subject(key_id: str) -> str:
    return f"key:{key_id}" if is_key_id(key_id) else "key:unknown"


def _new_secret() -> str:
    return random_id("", SECRET_LENGTH).removeprefix("_")


def _details(key: ApiKey) -> dict[str, Any]:
    """Return what the audit log keeps of a key."""
    return {
        "role": key.role,
        "expires_at": key.expires_at,
        "models": None if key.models is None else list(key.models),
        "networks": None if key.networks is None else list(key.networks),
        "requests_per_minute": key.requests_per_minute,
        "requests_per_day": key.requests_per_day,
    }
