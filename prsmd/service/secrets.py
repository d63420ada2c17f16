"""An organization's secrets: set, list, remove; and the change of the key that seals them.

A value goes in and never comes out again, but into containers. What runs keeps the value it was
started with; replicas that start later get the new one.
"""

import asyncio
import dataclasses
import time
from typing import Protocol

from prsmd.domain.access import Permission
from prsmd.domain.errors import ConflictError, InvalidInputError, NotFoundError
from prsmd.domain.ids import is_name
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.provisions import is_textual
from prsmd.engine.quota_ledger import refuse_one_more
from prsmd.service.caller import Caller, require_recorded
from prsmd.service.model_quota import refuse_unfit_secret
from prsmd.store import audit, registries, secrets
from prsmd.store.db import Database, Tx
from prsmd.store.sealing import SealBrokenError, Sealer
from prsmd.store.secrets import StoredSecret


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SecretRequest:
    """A value to keep. `organization` None: the caller's own."""

    name: str
    value: bytes = dataclasses.field(repr=False)
    organization: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SecretReport:
    """What may be shown of a secret, and the ids of the models of which a live revision names it.

    `created`: there was none of this name before.
    """

    secret: StoredSecret
    used_by: tuple[str, ...] = ()
    created: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """What came of a change of the envelope key. `made_here`: the new key is the daemon's own."""

    key_id: str
    secrets: int
    registries: int
    made_here: bool


class EnvelopeFile(Protocol):
    """Where the envelope key is kept, if the daemon itself keeps it."""

    def prepare(self) -> bytes | None:
        """Make the next key and keep it beside the present one; None where an operator does."""
        ...

    def adopt(self) -> None:
        """Let the next key, if there is one, take the present one's place; put away former ones."""
        ...


class Secrets:
    """Use cases on secrets."""

    def __init__(self, database: Database, sealer: Sealer, envelope: EnvelopeFile) -> None:
        self._database = database
        self._sealer = sealer
        self._envelope = envelope
        self._rotating = asyncio.Lock()

    async def save(self, caller: Caller, request: SecretRequest) -> SecretReport:
        """Keep a value as the secret's next version.

        Raises:
            InvalidInputError: a model that has it in a variable could not be started with it.
            ResourceQuotaExceededError: the organization has as many secrets as it may.
        """
        name = request.name
        organization = await self._place(caller, request.organization, name)
        now, value = time.time(), request.value

        async def write(tx: Tx) -> SecretReport:
            known = await secrets.get(tx, organization, name)
            if known is None:
                await refuse_one_more(tx, organization, Dimension.SECRETS)
            stored = StoredSecret(
                organization=organization,
                name=name,
                version=1 if known is None else known.version + 1,
                size_bytes=len(value),
                textual=is_textual(value),
                key_id=self._sealer.key_id,
                created_at=now if known is None else known.created_at,
                updated_at=now,
                updated_by=caller.principal.id,
            )
            await secrets.save(tx, stored, value, self._sealer)
            if known is None or stored.size_bytes > known.size_bytes or not stored.textual:
                await refuse_unfit_secret(tx, stored)
            used_by = (await secrets.users(tx, organization)).get((organization, name), ())
            done = SecretReport(secret=stored, used_by=used_by, created=known is None)
            details = {"organization": organization, "version": stored.version}
            record = caller.record(
                "secrets.save", f"secret:{name}", "allowed", details, organization
            )
            await audit.append(tx, record)
            await caller.remember(tx, done)
            return done

        return await self._database.write(write)

    async def list(self, caller: Caller) -> list[SecretReport]:
        """Return the secrets of the caller's scope, without values."""
        await require_recorded(self._database, caller, Permission.SECRETS_MANAGE, "secrets")
        async with self._database.read() as tx:
            found = await secrets.list_for(tx, caller.scope)
            used = await secrets.users(tx, caller.scope) if found else {}
        return [
            SecretReport(secret=one, used_by=used.get((one.organization, one.name), ()))
            for one in found
        ]

    async def remove(
        self, caller: Caller, name: str, organization: str | None, *, force: bool
    ) -> SecretReport:
        """Forget a secret. ConflictError while a live revision names it, unless `force`."""
        organization = await self._place(caller, organization, name)

        async def write(tx: Tx) -> SecretReport:
            known = await secrets.get(tx, organization, name)
            if known is None:
                raise NotFoundError(f"{organization} has no secret {name}.")
            used_by = (await secrets.users(tx, organization)).get((organization, name), ())
            if used_by and not force:
                raise _in_use(name, used_by)
            await secrets.remove(tx, organization, name)
            done = SecretReport(secret=known, used_by=used_by)
            details = {"organization": organization, "used_by": [*used_by]}
            record = caller.record(
                "secrets.remove", f"secret:{name}", "allowed", details, organization
            )
            await audit.append(tx, record)
            await caller.remember(tx, done)
            return done

        return await self._database.write(write)

    async def rotate_key(self, caller: Caller) -> KeyRotation:
        """Seal everything anew with the next envelope key; all of it or nothing.

        The next key is on disk before anything is sealed with it, and takes the present one's
        place when nothing needs that any more. Cut off anywhere, both keys open what is there, and
        asking again, or the next start, finishes it.

        Raises:
            ConflictError: a value cannot be opened with the keys that there are.
        """
        subject = "envelope-key"
        await require_recorded(self._database, caller, Permission.NODE_MANAGE, subject)
        async with self._rotating:
            following = await asyncio.to_thread(self._envelope.prepare)
            if following is not None:
                self._sealer.turn_to(following)

            async def write(tx: Tx) -> KeyRotation:
                done = await resealed(tx, self._sealer, made_here=following is not None)
                details = {"key_id": done.key_id, "resealed": done.secrets + done.registries}
                record = caller.record("secrets.rotate_key", subject, "allowed", details)
                await audit.append(tx, record)
                await caller.remember(tx, done)
                return done

            done = await self._database.write(write)
            await asyncio.to_thread(self._envelope.adopt)
            self._sealer.forget_earlier()
        return done

    async def _place(self, caller: Caller, organization: str | None, name: str) -> str:
        """Return whose secret is meant, if the caller may touch it."""
        subject = f"secret:{name[:100]}"
        await require_recorded(self._database, caller, Permission.SECRETS_MANAGE, subject)
        if not is_name(name):
            raise InvalidInputError.field("name", "must be 1 to 63 of a-z, 0-9, '.', '_' and '-'")
        wanted = organization or caller.principal.organization
        if caller.scope not in {None, wanted}:
            raise NotFoundError(f"There is no organization {wanted} that you may act for.")
        return wanted


async def resealed(tx: Tx, sealer: Sealer, *, made_here: bool) -> KeyRotation:
    """Seal all that is stored with the present key. ConflictError for what cannot be opened."""
    try:
        return KeyRotation(
            key_id=sealer.key_id,
            secrets=await secrets.reseal(tx, sealer),
            registries=await registries.reseal(tx, sealer),
            made_here=made_here,
        )
    except SealBrokenError as error:
        raise ConflictError(f"Nothing was sealed anew: {error.message}") from None


def _in_use(name: str, used_by: tuple[str, ...]) -> ConflictError:
    return ConflictError(
        f"The secret {name} is used by {', '.join(used_by)}: their next replicas could not start."
        " Update or delete them first, or remove it all the same with force.",
        used_by=[*used_by],
    )
