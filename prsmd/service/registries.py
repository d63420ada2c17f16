"""Logins to image registries: each organization's own, used for its pulls alone, never shown."""

import dataclasses
import time

from prsmd.domain.access import Permission
from prsmd.domain.errors import InvalidInputError, NotFoundError
from prsmd.domain.image import is_server, server_name
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.quota_ledger import refuse_one_more
from prsmd.service.caller import Caller, require_recorded
from prsmd.store import audit, registries
from prsmd.store.db import Database, Tx
from prsmd.store.registries import StoredLogin
from prsmd.store.sealing import Sealer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoginRequest:
    """A login to keep. `organization` None: the caller's own."""

    server: str
    username: str
    password: str = dataclasses.field(repr=False)
    organization: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SavedLogin:
    """A login that was kept; `created` is False where it took the place of another."""

    login: StoredLogin
    created: bool


class Registries:
    """Use cases on logins to registries."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def save(self, caller: Caller, request: LoginRequest) -> SavedLogin:
        """Keep a login, in place of an earlier one for the same server."""
        organization, server = await self._place(caller, request.organization, request.server)
        now = time.time()
        record = caller.record(
            "registries.save", f"registry:{server}", "allowed", None, organization
        )

        async def write(tx: Tx) -> SavedLogin:
            known = await registries.get(tx, organization, server)
            if known is None:
                await refuse_one_more(tx, organization, Dimension.REGISTRIES)
            stored = StoredLogin(
                organization=organization,
                server=server,
                username=request.username,
                created_at=now if known is None else known.created_at,
                updated_at=now,
                updated_by=caller.principal.id,
            )
            created = await registries.save(tx, stored, request.password, self._sealer)
            saved = SavedLogin(login=stored, created=created)
            await audit.append(tx, record)
            await caller.remember(tx, saved)
            return saved

        return await self._database.write(write)

    async def list(self, caller: Caller) -> list[StoredLogin]:
        """Return the logins of the caller's scope, without passwords."""
        await require_recorded(self._database, caller, Permission.SECRETS_MANAGE, "registries")
        async with self._database.read() as tx:
            return await registries.list_for(tx, caller.scope)

    async def remove(self, caller: Caller, server: str, organization: str | None) -> StoredLogin:
        """Forget a login. Images that it pulled stay with the organization that pulled them."""
        organization, server = await self._place(caller, organization, server)
        record = caller.record(
            "registries.remove", f"registry:{server}", "allowed", None, organization
        )

        async def write(tx: Tx) -> StoredLogin:
            known = await registries.get(tx, organization, server)
            if known is None:
                raise NotFoundError(f"There is no login of {organization} for {server}.")
            await registries.remove(tx, organization, server)
            await audit.append(tx, record)
            await caller.remember(tx, known)
            return known

        return await self._database.write(write)

    async def _place(
        self, caller: Caller, organization: str | None, server: str
    ) -> tuple[str, str]:
        """Return whose login for which server is meant, if the caller may touch it."""
        name = server_name(server)
        subject = f"registry:{name[:100]}"
        await require_recorded(self._database, caller, Permission.SECRETS_MANAGE, subject)
        if not is_server(name):
            raise InvalidInputError.field(
                "server", "must be a host, or host:port, such as registry.example.com:5000"
            )
        wanted = organization or caller.principal.organization
        if caller.scope not in {None, wanted}:
            raise NotFoundError(f"There is no organization {wanted} that you may act for.")
        return wanted, name
