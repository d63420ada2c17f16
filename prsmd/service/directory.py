"""Who there is, in memory: organizations, their roles and members, and the keys.

What the store holds is read once; whatever changes it afterwards is taken over here as it is
committed, so that it counts for the next request. Requests only look up.
"""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from prsmd.core.fair_queue import Slots
from prsmd.core.networks import AllowList
from prsmd.core.principals import OwnRoles, principal_of
from prsmd.domain.access import (
    ApiKey,
    Binding,
    Bounds,
    Member,
    Organization,
    Principal,
    Role,
    SubjectKind,
)
from prsmd.domain.errors import InvalidApiKeyError
from prsmd.store import keys, members, organizations, roles
from prsmd.store.asking import asker
from prsmd.store.db import Tx
from prsmd.store.fair_semaphore import FairSemaphore

T = TypeVar("T")
_UNIX_SOCKET = ("127.0.0.1/32",)
_ONE_AT_A_TIME = Slots(total=1, per_organization=1, waiting=256)
_KNOWN_EXPIRED = 100  # keys of an organization


class Writer(Protocol):
    """What carries out a transaction: the database, or what does more with it."""

    async def write(self, transaction: Callable[[Tx], Awaitable[T]]) -> T:
        """Return the transaction's result once it is on the disk."""


class Directory:
    """Organizations, roles, members and keys. `on_change` is called after each change."""

    def __init__(self, known_keys: Iterable[ApiKey] = ()) -> None:
        self.on_change: list[Callable[[], None]] = []
        self._organizations: dict[str, Organization] = {}
        self._roles: dict[str, dict[str, Role]] = {}
        self._members: dict[tuple[SubjectKind, str], dict[str, Member]] = {}  # by organization
        self._keys: dict[str, ApiKey] = {}
        self._ended: dict[str, ApiKey] = {}  # keys, without what only one in force needs
        self._of_keys: dict[str, Principal] = {}
        self._networks: dict[str, AllowList] = {}  # of keys
        self._turn = FairSemaphore(_ONE_AT_A_TIME, "directory")
        self._under_way: set[asyncio.Task[object]] = set()
        for key in known_keys:
            self.put_key(key)

    @classmethod
    async def load(cls, tx: Tx) -> "Directory":
        """Return what the store holds."""
        made = cls(await keys.list_for(tx, None))
        for organization in await organizations.list_all(tx):
            made.put_organization(organization)
        for role in await roles.list_all(tx):
            made.put_role(role)
        made.end_expired(time.time())
        for member in await members.list_for(tx, None):
            made.put_member(member)
        return made

    async def commit(
        self,
        writer: Writer,
        transaction: Callable[[Tx], Awaitable[T]],
        take_over: Callable[[T], None],
    ) -> T:
        """Carry out a transaction and take over its result, one after the other.

        So a transaction finds here what the store says, and may rely on it. Callers take turns, so
        that one who changes much holds up another by one change. Both happen even if the caller
        goes meanwhile: what the store says of who may do what is never more than a moment ahead of
        what counts.

        Raises:
            ResourceUnavailableError: the caller has too much waiting already.
        """
        work = asyncio.create_task(
            self._commit(writer, transaction, take_over), name="directory:commit"
        )
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        return await asyncio.shield(work)

    def organization(self, name: str) -> Organization | None:
        """Return an organization that was not removed, or None."""
        found = self._organizations.get(name)
        return None if found is None or found.removed_at is not None else found

    def roles_of(self, organization: str) -> dict[str, Role]:
        """Return an organization's own roles by name."""
        return dict(self._roles.get(organization, {}))

    def own_roles(self, organization: str) -> OwnRoles:
        """Return what an organization's own roles allow, by name."""
        return {name: role.permissions for name, role in self.roles_of(organization).items()}

    def member(self, kind: SubjectKind, subject: str, organization: str) -> Member | None:
        """Return an organization's member, or whom it invited, who is recognized so; or None."""
        return self._members.get((kind, subject), {}).get(organization)

    def memberships(self, kind: SubjectKind, subject: str) -> tuple[Member, ...]:
        """Return where somebody is a member or invited."""
        return tuple(self._members.get((kind, subject), {}).values())

    def key(self, key_id: str) -> ApiKey | None:
        """Return a key, or None. Of one that has ended only what refuses it is known."""
        return self._keys.get(key_id) or self._ended.get(key_id)

    def has_ended(self, key_id: str) -> bool:
        """Tell whether a key is known to have ended for good, whatever the clock says now."""
        return key_id in self._ended

    @property
    def has_keys(self) -> bool:
        """Whether any key was ever made and is still known."""
        return bool(self._keys or self._ended)

    def principal(self, identity: str, organization: str, bindings: Iterable[Binding]) -> Principal:
        """Return who `identity` is with these roles."""
        return principal_of(identity, organization, bindings, self.own_roles(organization))

    def principal_of_key(self, key: ApiKey) -> Principal:
        """Return who a key stands for: its own role, and those it was given as a member."""
        known = self._of_keys.get(key.id)
        if known is None or self._keys.get(key.id) is not key:
            known = self.would_be(key)
            if self._keys.get(key.id) is key:
                self._of_keys[key.id] = known
        return known

    def allows(self, key: ApiKey, address: str | None) -> bool:
        """Tell whether a key may be used from an address (None: the Unix socket)."""
        if key.networks is None:
            return True
        if self._keys.get(key.id) is not key:
            return AllowList(key.networks).allows(address)
        known = self._networks.get(key.id)
        if known is None:
            known = self._networks[key.id] = AllowList(key.networks)
        return known.allows(address)

    def would_be(self, key: ApiKey) -> Principal:
        """Return who a key that may not be stored yet would stand for."""
        member = self.member(SubjectKind.KEY, key.id, key.organization)
        more = member.bindings if member is not None and member.accepted_at is not None else ()
        own = self.own_roles(key.organization)
        bindings = (Binding(key.role), *more)
        return principal_of(
            f"key:{key.id}", key.organization, bindings, own, key.models, key.bounds
        )

    def given_to(
        self, member: Member, bindings: Iterable[Binding], own: OwnRoles | None = None
    ) -> Principal:
        """Return whom these roles of a member come to, without what else they may do.

        A key is held to what it is held to; a user of this machine comes over the Unix socket.
        `own` None: the organization's roles as they are.
        """
        identity = member.identity
        own = self.own_roles(member.organization) if own is None else own
        models, bounds = None, Bounds(expires_at=member.expires_at)
        if member.kind is SubjectKind.KEY and (key := self.key(member.subject)) is not None:
            models, bounds = key.models, key.bounds
        elif member.kind is not SubjectKind.OIDC:
            bounds = dataclasses.replace(bounds, networks=_UNIX_SOCKET)
        return principal_of(identity, member.organization, bindings, own, models, bounds)

    def holders_of(
        self, organization: str, role: str, changed: OwnRoles
    ) -> Iterator[tuple[Principal, Principal]]:
        """Yield whom a role comes to for each key and member with it: now, and with roles changed.

        Roles on single models are among them, invitations too.
        """
        own = self.own_roles(organization)
        for key in self._keys.values():
            if (key.organization, key.role) == (organization, role):
                yield _of_key(key, own), _of_key(key, changed)
        for known in self._members.values():
            member = known.get(organization)
            if member is None or (member.kind is SubjectKind.KEY and member.subject in self._ended):
                continue
            having = [each for each in member.bindings if each.role == role]
            if having:
                yield self.given_to(member, having, own), self.given_to(member, having, changed)

    def refuse_closed(self, organization: str) -> None:
        """Raise InvalidApiKeyError for who acts for an organization that is disabled or removed."""
        found = self._organizations.get(organization)
        if found is not None and (found.disabled_at is not None or found.removed_at is not None):
            state = "disabled" if found.removed_at is None else "removed"
            raise InvalidApiKeyError(
                f"Organization {organization} is {state}; ask the appliance's administrator."
            )

    def put_organization(self, organization: Organization) -> None:
        """Take over an organization as it is now; one that was removed leaves nothing behind."""
        self._organizations[organization.id] = organization
        if organization.removed_at is not None:
            self._roles.pop(organization.id, None)
            for known in self._members.values():
                known.pop(organization.id, None)
            for key in self._keys_of(organization.id):
                self._end(key)
        self._changed()

    def put_role(self, role: Role) -> None:
        """Take over a role as it is now."""
        self._roles.setdefault(role.organization, {})[role.name] = role
        self._changed()

    def drop_role(self, organization: str, name: str) -> None:
        """Forget a role."""
        self._roles.get(organization, {}).pop(name, None)
        self._changed()

    def put_member(self, member: Member) -> None:
        """Take over a member as it is now."""
        known = self._members.setdefault((member.kind, member.subject), {})
        known[member.organization] = member
        self._changed()

    def drop_member(self, member: Member) -> None:
        """Forget a member."""
        self._members.get((member.kind, member.subject), {}).pop(member.organization, None)
        self._changed()

    def put_key(self, key: ApiKey) -> None:
        """Take over a key as it is now."""
        self.drop_keys([key.id])
        if key.revoked_at is None:
            self._keys[key.id] = key
        else:
            self._end(key)
        self._tell()

    def drop_keys(self, key_ids: Iterable[str]) -> None:
        """Forget keys that had ended."""
        for key_id in key_ids:
            self._keys.pop(key_id, None)
            self._ended.pop(key_id, None)
            self._of_keys.pop(key_id, None)
            self._networks.pop(key_id, None)

    def end_expired(self, now: float, organization: str | None = None) -> None:
        """Know no more of an organization's (None: all) expired keys than what refuses them.

        The last ones are known whole: they are good again if it is the clock that was wrong.
        """
        expired: dict[str, list[tuple[float, str]]] = {}
        for key in self._keys.values():
            if organization not in {None, key.organization} or key.expires_at is None:
                continue
            if key.expires_at <= now:
                expired.setdefault(key.organization, []).append((key.expires_at, key.id))
        for ended in expired.values():
            for _, key_id in sorted(ended, reverse=True)[_KNOWN_EXPIRED:]:
                self._end(self._keys[key_id])

    async def _commit(
        self,
        writer: Writer,
        transaction: Callable[[Tx], Awaitable[T]],
        take_over: Callable[[T], None],
    ) -> T:
        async with self._turn.slot(asker()):
            result = await writer.write(transaction)
            take_over(result)
        return result

    def _keys_of(self, organization: str) -> list[ApiKey]:
        return [key for key in self._keys.values() if key.organization == organization]

    def _end(self, key: ApiKey) -> None:
        self.drop_keys([key.id])
        models = None if key.models is None else ()
        self._ended[key.id] = dataclasses.replace(key, name="", models=models, networks=None)

    def _changed(self) -> None:
        self._of_keys.clear()
        self._tell()

    def _tell(self) -> None:
        for tell in self.on_change:
            tell()


def _of_key(key: ApiKey, own: OwnRoles) -> Principal:
    """Return who a key is by its own role alone."""
    bound = [Binding(key.role)]
    return principal_of(f"key:{key.id}", key.organization, bound, own, key.models, key.bounds)
