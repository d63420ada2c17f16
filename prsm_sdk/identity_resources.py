"""The client's nouns for who may do what: organizations, roles, members, keys."""

from collections.abc import Mapping, Sequence
from typing import Any

from . import identity_calls as calls
from .aio import AsyncTransport
from .identity_models import Member, Organization, Role
from .models import ApiKey
from .quota_models import Quota
from .wire import Page


class Organizations:
    """Organizations. Changing them is for the appliance's administrators."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, organization_id: str, display_name: str | None = None) -> Organization:
        """Make an organization. Its name is never given to another one, even after it is gone."""
        return await self._transport.send(calls.create_organization(organization_id, display_name))

    async def list(self, limit: int = 100, offset: int = 0) -> Page[Organization]:
        """List organizations: one's own; administrators see all."""
        return await self._transport.send(calls.list_organizations(limit, offset))

    async def get(self, organization_id: str) -> Organization:
        """Return one organization."""
        return await self._transport.send(calls.get_organization(organization_id))

    async def change(
        self,
        organization_id: str,
        *,
        display_name: str | None = None,
        disabled: bool | None = None,
    ) -> Organization:
        """Rename, disable (its callers are refused) or enable an organization."""
        return await self._transport.send(
            calls.change_organization(organization_id, display_name, disabled=disabled)
        )

    async def quota(self, organization_id: str) -> Quota:
        """Return an organization's quota and what it uses of it. One's own needs no permission."""
        return await self._transport.send(calls.get_quota(organization_id))

    async def change_quota(self, organization_id: str, hard: Mapping[str, str | int]) -> Quota:
        """Set limits of an organization; for administrators of the appliance.

        Args:
            organization_id: Its name.
            hard: Limits by dimension: quantities or counts, `"unlimited"`, or `"default"` for that
                of the appliance. Those that are not named stay.
        """
        return await self._transport.send(calls.change_quota(organization_id, hard))

    async def remove(self, organization_id: str) -> None:
        """Remove an organization that has no models, with its keys, members and roles."""
        await self._transport.send(calls.remove_organization(organization_id))


class Roles:
    """Roles: the built-in ones and the organization's own."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        name: str,
        permissions: Sequence[str],
        description: str | None = None,
        organization: str | None = None,
    ) -> Role:
        """Make an own role: permissions that the caller has and an owner may have."""
        return await self._transport.send(
            calls.create_role(name, permissions, description, organization)
        )

    async def list(self, limit: int = 100, offset: int = 0) -> Page[Role]:
        """List roles."""
        return await self._transport.send(calls.list_roles(limit, offset))

    async def change(
        self,
        name: str,
        permissions: Sequence[str] | None = None,
        description: str | None = None,
        organization: str | None = None,
    ) -> Role:
        """Change an own role; it counts at once for everybody who has it."""
        return await self._transport.send(
            calls.change_role(name, permissions, description, organization)
        )

    async def remove(self, name: str, organization: str | None = None) -> None:
        """Remove an own role that nobody has."""
        await self._transport.send(calls.remove_role(name, organization))


class Members:
    """Who belongs to an organization, and their roles."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def add(
        self,
        kind: str,
        subject: str,
        bindings: Sequence[Mapping[str, Any]],
        name: str | None = None,
        organization: str | None = None,
        *,
        expires_in_seconds: float | None = None,
    ) -> Member:
        """Make a member of a `uid`, `gid`, `user`, `group`, `oidc` subject or `key`.

        A binding is `{"role": …}`; with `"model"`, on that one only. Whom no administrator of the
        appliance adds is only invited (`status`), until they `accept` it themselves.
        """
        return await self._transport.send(
            calls.add_member(kind, subject, bindings, name, organization, expires_in_seconds)
        )

    async def accept(self, member_id: str) -> Member:
        """Accept an invitation of one's own."""
        return await self._transport.send(calls.accept_member(member_id))

    async def leave(self, member_id: str) -> Member:
        """End one's own membership, or refuse an invitation."""
        return await self._transport.send(calls.leave_member(member_id))

    async def list(self, limit: int = 100, offset: int = 0) -> Page[Member]:
        """List members."""
        return await self._transport.send(calls.list_members(limit, offset))

    async def change(
        self,
        member_id: str,
        bindings: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **more: float | None,
    ) -> Member:
        """Give a member these roles in place of those it has, or another name.

        More: `expires_in_seconds`; None takes the end away.
        """
        return await self._transport.send(calls.change_member(member_id, bindings, name, **more))

    async def remove(self, member_id: str) -> None:
        """Take all roles of a member away."""
        await self._transport.send(calls.remove_member(member_id))


class Keys:
    """API keys."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        name: str,
        organization: str | None = None,
        role: str | None = None,
        expires_in_seconds: int | None = None,
        **held_to: Any,
    ) -> ApiKey:
        """Make a key; its `key` is shown only in this answer.

        It can be held to `models`, `networks`, `requests_per_minute`, `requests_per_day`.
        """
        return await self._transport.send(
            calls.create_key(
                name,
                organization=organization,
                role=role,
                expires_in_seconds=expires_in_seconds,
                **held_to,
            )
        )

    async def list(self, limit: int = 100, offset: int = 0) -> Page[ApiKey]:
        """List keys, without their secrets."""
        return await self._transport.send(calls.list_keys(limit, offset))

    async def get(self, key_id: str) -> ApiKey:
        """Return a key, without its secret."""
        return await self._transport.send(calls.get_key(key_id))

    async def change(self, key_id: str, **changes: Any) -> ApiKey:
        """Change fields of a key, named as in `create`; None takes a bound away."""
        return await self._transport.send(calls.change_key(key_id, changes))

    async def rotate(self, key_id: str, overlap_seconds: float | None = None) -> ApiKey:
        """Give a key a new secret, which only this answer has.

        The old one is good for the overlap (an hour), 0 ends it at once.
        """
        return await self._transport.send(calls.rotate_key(key_id, overlap_seconds))

    async def revoke(self, key_id: str) -> None:
        """Revoke a key at once; what it has under way ends."""
        await self._transport.send(calls.revoke_key(key_id))
