"""A directory on a real store, with two organizations, and callers of every role."""

import dataclasses

from prsmd.core.principals import principal_of
from prsmd.domain.access import Binding, Principal
from prsmd.domain.deployment import Deployment
from prsmd.domain.events import OWN_PRINCIPAL
from prsmd.engine.recorder import Recorder
from prsmd.gateway.meters import Meters
from prsmd.service.access import KeyRing
from prsmd.service.caller import Caller
from prsmd.service.directory import Directory
from prsmd.service.keys import Keys
from prsmd.service.lending import Lendings
from prsmd.service.members import Members
from prsmd.service.organizations import Organizations, ensure
from prsmd.service.registrar import Registrar
from prsmd.service.roles import Roles
from prsmd.store import audit
from prsmd.store.db import Database


@dataclasses.dataclass(frozen=True)
class Office:
    """All use cases on who may do what."""

    database: Database
    directory: Directory
    ring: KeyRing
    organizations: Organizations
    lendings: Lendings
    roles: Roles
    members: Members
    keys: Keys

    @classmethod
    async def open(cls, database: Database) -> "Office":
        """Return the office of organizations `company` and `rival`."""
        await ensure(database, ["company", "rival"])
        async with database.read() as tx:
            directory = await Directory.load(tx)
        registrar = Registrar(database, directory)
        ring = KeyRing(b"p" * 32, directory)
        lendings = Lendings(Meters())
        return cls(
            database=database,
            directory=directory,
            ring=ring,
            organizations=Organizations(registrar, lendings, Recorder(database)),
            lendings=lendings,
            roles=Roles(registrar),
            members=Members(registrar),
            keys=Keys(registrar, ring),
        )

    def own(self, role: str, organization: str = "company") -> Caller:
        """Return a caller who has an own role of the organization."""
        own = self.directory.own_roles(organization)
        return Caller(principal_of("test:own", organization, [Binding(role)], own), "req_1")

    async def recorded(self) -> list[tuple[str, str, str]]:
        """Return action, subject and outcome of all that callers did, newest first."""
        async with self.database.read() as tx:
            changes, _ = await audit.page(tx, None, 1000, 0)
            denials, _ = await audit.page(tx, None, 1000, 0, "denials")
        found = sorted([*changes, *denials], key=lambda each: each.at, reverse=True)
        by_callers = [record for record in found if record.principal != OWN_PRINCIPAL]
        return [(record.action, record.subject, record.outcome) for record in by_callers]

    async def reloaded(self) -> Directory:
        """Return the directory as a daemon that starts now would know it."""
        async with self.database.read() as tx:
            return await Directory.load(tx)


def caller(role: str = "admin", organization: str = "company") -> Caller:
    """Return a caller with a built-in role."""
    made = principal_of(f"test:{role}", organization, [Binding(role)], {})
    return Caller(made, "req_1")


def with_key(principal: Principal) -> Caller:
    """Return a caller who is a key."""
    return Caller(principal, "req_1")


def model_of(name: str, organization: str = "company") -> Deployment:
    """Return a model that nobody asks for replicas of."""
    return Deployment(
        id=f"deploy_{name}",
        organization=organization,
        model_id=f"custom_{name}",
        model_name=name,
        revision=1,
        asked_replicas=0,
        created_at=1.0,
        updated_at=1.0,
    )
