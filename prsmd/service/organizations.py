"""Organizations: make, change, disable, remove. Only the appliance's administrators do."""

import dataclasses
import time
from collections.abc import Iterable, Sequence

from prsmd.domain.access import Organization, Permission
from prsmd.domain.errors import ConflictError, NotFoundError
from prsmd.domain.events import AuditRecord, own_record
from prsmd.engine.recorder import Recorder
from prsmd.service.caller import Caller, require_recorded
from prsmd.service.leaving import Returned, Settling, give_back
from prsmd.service.lending import Lendings
from prsmd.service.registrar import Ask, Done, Registrar
from prsmd.store import audit, organizations
from prsmd.store.db import Database, Tx

_NAMED = 5  # models in a refusal


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OrganizationChange:
    """What is to be different; None: as it is."""

    display_name: str | None = None
    disabled: bool | None = None


class Organizations:
    """Use cases on organizations."""

    def __init__(self, registrar: Registrar, lendings: Lendings, recorder: Recorder) -> None:
        self._registrar = registrar
        self._lendings = lendings
        self._recorder = recorder

    async def create(self, caller: Caller, name: str, display_name: str) -> Organization:
        """Make an organization. ConflictError when its name is, or ever was, another's."""
        made = Organization(
            id=name,
            display_name=display_name or name,
            created_at=time.time(),
            created_by=caller.principal.id,
        )

        async def write(tx: Tx) -> Done[Organization]:
            known = await organizations.get(tx, name)
            if known is not None:
                raise ConflictError(_taken(known))
            await organizations.add(tx, made)
            return Done(result=made, organization=made.id)

        ask = _ask("create", name)
        return await self._registrar.carry_out(
            caller, ask, write, self._registrar.directory.put_organization
        )

    async def page(self, caller: Caller, limit: int, offset: int) -> tuple[list[Organization], int]:
        """Return some organizations that the caller may know of, by name, and how many there are.

        These are all of them, or their own.
        """
        await self._require_reading(caller, "organizations")
        async with self._registrar.database.read() as tx:
            return await organizations.page(tx, caller.scope, limit, offset)

    async def get(self, caller: Caller, name: str) -> Organization:
        """Return an organization. NotFoundError for one that the caller may not know of."""
        await self._require_reading(caller, f"organization:{name[:100]}")
        async with self._registrar.database.read() as tx:
            return await _known(tx, caller, name)

    async def change(self, caller: Caller, name: str, wanted: OrganizationChange) -> Organization:
        """Rename for people, disable or enable.

        Disabling refuses its callers and leaves the rest as it is: its models run on, and those to
        whom they are lent use them. ConflictError for the caller's own.
        """

        async def write(tx: Tx) -> Done[Organization]:
            known = await _known(tx, caller, name)
            changed = dataclasses.replace(
                known,
                display_name=wanted.display_name or known.display_name,
                disabled_at=_disabled_at(known, wanted),
            )
            if changed.disabled_at is not None and known.disabled_at is None:
                _refuse_own(caller, known, "disabled")
            await organizations.put(tx, changed)
            disabled = changed.disabled_at is not None
            details = {"display_name": changed.display_name, "disabled": disabled}
            return Done(
                result=changed,
                organization=known.id,
                details=details,
                changed=changed != known,
            )

        ask = _ask("update", name)
        return await self._registrar.carry_out(
            caller, ask, write, self._registrar.directory.put_organization
        )

    async def remove(self, caller: Caller, name: str) -> Organization:
        """Remove an organization with all it has: keys, members, roles, logins, secrets, shares.

        ConflictError while it has models. Its name is never given again.
        """
        returned: list[Returned] = []

        async def write(tx: Tx) -> Done[Organization]:
            known = await _known(tx, caller, name)
            _refuse_own(caller, known, "removed")
            await _refuse_models(tx, known)
            removed = dataclasses.replace(known, removed_at=time.time())
            await organizations.put(tx, removed)
            returned[:] = await give_back(tx, caller, name)
            details: dict[str, list[str]] = {"shares": [one.share.id for one in returned]}
            details |= await organizations.forget_belongings(tx, name, time.time())
            return Done(result=removed, organization=known.id, details=details)

        removed = await self._registrar.carry_out(
            caller,
            _ask("remove", name),
            write,
            self._registrar.directory.put_organization,
            Settling(self._registrar.database, self._lendings, returned),
        )
        self._recorder.announce(*(one.event for one in returned))
        return removed

    async def _require_reading(self, caller: Caller, subject: str) -> None:
        database = self._registrar.database
        await require_recorded(database, caller, Permission.MEMBERS_MANAGE, subject)


async def ensure(database: Database, names: Iterable[str]) -> Sequence[Organization]:
    """Have the organizations that the configuration names, and return those that were made.

    Writes nothing where all are there.
    """
    now = time.time()
    async with database.read() as tx:
        known = {one.id for one in await organizations.list_all(tx)}
    wanted = [
        Organization(id=name, display_name=name, created_at=now, created_by="configuration")
        for name in sorted(set(names) - known)
    ]
    if not wanted:
        return ()

    async def write(tx: Tx) -> Sequence[Organization]:
        made = [each for each in wanted if await organizations.ensure(tx, each)]
        for organization in made:
            await audit.append(tx, _configured(organization))
        return made

    return await database.write(write)


def _configured(made: Organization) -> AuditRecord:
    details, subject = {"named_by": made.created_by}, f"organization:{made.id}"
    return own_record(made.created_at, made.id, "organizations.create", subject, details)


def _ask(verb: str, name: str) -> Ask:
    subject = f"organization:{name[:100]}"
    return Ask(Permission.NODE_MANAGE, f"organizations.{verb}", subject)


async def _known(tx: Tx, caller: Caller, name: str) -> Organization:
    found = await organizations.get(tx, name) if caller.scope in {None, name} else None
    if found is None or not _visible(caller, found):
        raise NotFoundError(f"There is no organization {name[:100]}.")
    return found


def _visible(caller: Caller, organization: Organization) -> bool:
    return organization.removed_at is None and caller.scope in {None, organization.id}


def _disabled_at(known: Organization, wanted: OrganizationChange) -> float | None:
    if wanted.disabled is None or wanted.disabled == (known.disabled_at is not None):
        return known.disabled_at
    return time.time() if wanted.disabled else None


def _refuse_own(caller: Caller, known: Organization, verb: str) -> None:
    if known.id == caller.principal.organization:
        raise ConflictError(f"You act for organization {known.id} yourself; it cannot be {verb}.")


async def _refuse_models(tx: Tx, known: Organization) -> None:
    names, total = await organizations.models_of(tx, known.id, _NAMED)
    if total:
        more = f" and {total - len(names)} more" if total > len(names) else ""
        raise ConflictError(
            f"Organization {known.id} cannot be removed while it has models: {', '.join(names)}"
            f"{more}. Delete them first.",
            models=names,
            total=total,
        )


def _taken(known: Organization) -> str:
    if known.removed_at is None:
        return f"Organization {known.id} exists."
    return (
        f"An organization {known.id} was removed; its name is not given again, for what is in the"
        " audit log under it must not become another's."
    )
