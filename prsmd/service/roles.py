"""Roles: the built-in ones to look at, an organization's own ones to make, change and remove."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable, Collection, Iterator

from prsmd.core.principals import OwnRoles, permissions_of, principal_of
from prsmd.domain.access import (
    APPLIANCE_ROLE,
    OWNER_ROLE,
    ROLES,
    Binding,
    Permission,
    Principal,
    Role,
    is_role_name,
)
from prsmd.domain.errors import ConflictError, InvalidInputError, NotFoundError
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.quota_ledger import refuse_one_more
from prsmd.service.caller import Caller, require_recorded
from prsmd.service.registrar import Ask, Done, Registrar
from prsmd.store import roles
from prsmd.store.db import Tx

_NAMED = 5  # holders in a refusal
_AT_ONCE = 5  # holders that are looked at before others get their turn


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RoleWish:
    """How an organization's own role should be. None: as it is, or empty for a new one."""

    name: str
    organization: str | None = None
    permissions: frozenset[Permission] | None = None
    description: str | None = None


class Roles:
    """Use cases on roles.

    `ruled` returns the organizations and roles that the settings give by rule to whoever a rule
    fits: of those nobody is known before they come, and no bounds hold them.
    """

    def __init__(
        self, registrar: Registrar, ruled: Callable[[], Collection[tuple[str, str]]] = tuple
    ) -> None:
        self._registrar = registrar
        self._ruled = ruled

    async def create(self, caller: Caller, wish: RoleWish) -> Role:
        """Make an own role. ConflictError when its organization has one of this name."""
        if wish.name in ROLES or not is_role_name(wish.name):
            problem = "must be 1 to 63 of a-z, 0-9, '.', '_', '-', and no built-in role's name"
            raise InvalidInputError.field("name", problem, wish.name[:100])

        async def write(tx: Tx) -> Done[Role]:
            organization = self._registrar.place(caller, wish.organization)
            now = time.time()
            role = Role(
                organization=organization,
                name=wish.name,
                description=wish.description or "",
                permissions=wish.permissions or frozenset(),
                created_at=now,
                updated_at=now,
            )
            self._refuse_excess(caller, role)
            if await roles.get(tx, organization, wish.name) is not None:
                raise ConflictError(f"Organization {organization} has a role {wish.name}.")
            await self._refuse_widening(caller, role)
            await refuse_one_more(tx, organization, Dimension.ROLES)
            await roles.put(tx, role)
            return Done(result=role, organization=organization, details=_details(role))

        return await self._registrar.carry_out(
            caller, _ask("create", wish.name), write, self._registrar.directory.put_role
        )

    async def page(self, caller: Caller, limit: int, offset: int) -> tuple[list[Role], int]:
        """Return some own roles of the caller's scope, by name, and how many there are."""
        await require_recorded(self._registrar.database, caller, Permission.MEMBERS_MANAGE, "roles")
        async with self._registrar.database.read() as tx:
            return await roles.page(tx, caller.scope, limit, offset)

    async def change(self, caller: Caller, wish: RoleWish) -> Role:
        """Change what a role allows; it counts at once for everybody who has it."""

        async def write(tx: Tx) -> Done[Role]:
            known = await self._known(tx, caller, wish)
            changed = dataclasses.replace(
                known,
                permissions=known.permissions if wish.permissions is None else wish.permissions,
                description=known.description if wish.description is None else wish.description,
            )
            self._refuse_excess(caller, known)
            self._refuse_excess(caller, changed)
            if changed == known:
                return Done(result=known, organization=known.organization, changed=False)
            await self._refuse_widening(caller, changed)
            changed = dataclasses.replace(changed, updated_at=time.time())
            await roles.put(tx, changed)
            return Done(result=changed, organization=known.organization, details=_details(changed))

        return await self._registrar.carry_out(
            caller, _ask("update", wish.name), write, self._registrar.directory.put_role
        )

    async def remove(self, caller: Caller, name: str, organization: str | None) -> Role:
        """Forget a role. ConflictError while somebody has it."""
        wish = RoleWish(name=name, organization=organization)

        async def write(tx: Tx) -> Done[Role]:
            known = await self._known(tx, caller, wish)
            self._refuse_excess(caller, known)
            held = await roles.holders(tx, known.organization, name)
            if (known.organization, name) in self._ruled():
                held = ["a rule of the settings (oidc.rules)", *held]
            if held:
                more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
                raise ConflictError(
                    f"Role {name} is held by {', '.join(held[:_NAMED])}{more}; give them another"
                    " role first.",
                    holders=held[:_NAMED],
                    total=len(held),
                )
            await roles.remove(tx, known.organization, name)
            return Done(result=known, organization=known.organization)

        def take_over(role: Role) -> None:
            self._registrar.directory.drop_role(role.organization, role.name)

        return await self._registrar.carry_out(caller, _ask("remove", name), write, take_over)

    async def _known(self, tx: Tx, caller: Caller, wish: RoleWish) -> Role:
        organization = self._registrar.place(caller, wish.organization)
        found = await roles.get(tx, organization, wish.name)
        if found is None:
            built_in = " It is built in and cannot be changed." if wish.name in ROLES else ""
            raise NotFoundError(
                f"Organization {organization} has no own role {wish.name[:100]}.{built_in}"
            )
        return found

    def _refuse_excess(self, caller: Caller, role: Role) -> None:
        beyond = sorted(role.permissions - ROLES[OWNER_ROLE])
        if beyond:
            problem = f"{', '.join(beyond)} cannot be given by a role that is not built in"
            raise InvalidInputError.field("permissions", problem, beyond)
        other = Principal(
            id="",
            organization=role.organization,
            role=role.name,
            permissions=role.permissions,
        )
        self._registrar.refuse_beyond(caller, other, f"make or change role {role.name}")

    async def _refuse_widening(self, caller: Caller, changed: Role) -> None:
        """Nobody gives whoever has the role more than they hold themselves, nor for longer.

        Others get their turn meanwhile: no commit of the directory is until this one is over.
        """
        directory = self._registrar.directory
        own = {**directory.own_roles(changed.organization), changed.name: changed.permissions}
        what = f"widen role {changed.name}, which others have"
        holders = directory.holders_of(changed.organization, changed.name, own)
        by_rule = self._given_by_rule(changed, own)
        for number, (held, widened) in enumerate(itertools.chain(by_rule, holders), start=1):
            self._registrar.refuse_excess(caller, widened, what, held)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _given_by_rule(
        self, role: Role, changed: OwnRoles
    ) -> Iterator[tuple[Principal, Principal]]:
        """Yield whom a role comes to by a rule of the settings: now, and with roles changed."""
        if (role.organization, role.name) in self._ruled():
            bindings = [Binding(role.name)]
            yield (
                self._registrar.directory.principal("", role.organization, bindings),
                principal_of("", role.organization, bindings, changed),
            )


def refuse_unknown_role(registrar: Registrar, organization: str, role: str, field: str) -> None:
    """Raise InvalidInputError for what is neither a built-in role nor the organization's own."""
    own = registrar.directory.own_roles(organization)
    if permissions_of(role, own) is None:
        known = ", ".join([*ROLES, *sorted(own)])
        raise InvalidInputError.field(
            field, f"is not a role of {organization}; known are {known}", role[:100]
        )


def refuse_appliance_role_on_model(role: str, field: str) -> None:
    """Raise InvalidInputError for the appliance's role on a single model."""
    if role == APPLIANCE_ROLE:
        problem = "is about the whole appliance and cannot be bound to one model"
        raise InvalidInputError.field(field, problem, role)


def _ask(verb: str, name: str) -> Ask:
    return Ask(Permission.MEMBERS_MANAGE, f"roles.{verb}", f"role:{name[:100]}")


def _details(role: Role) -> dict[str, object]:
    return {"permissions": sorted(role.permissions)}
