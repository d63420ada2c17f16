"""Calls about who may do what: organizations, roles, members, keys. As in `calls`, sends nothing.

What makes a secret is never repeated by itself: a lost answer would leave a key behind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .calls import Call, fresh_key, segment, window
from .identity_models import Caller, Member, Organization, Role
from .models import ApiKey
from .quota_models import Quota
from .wire import Page, page_of

_ORGANIZATIONS = "/v1/organizations"
_ROLES = "/v1/roles"
_MEMBERS = "/v1/members"
_KEYS = "/v1/api-keys"


def who_am_i() -> Call[Caller]:
    """Return who the caller is and what they may do."""
    return Call(method="GET", path="/v1/auth/me", decode=Caller.decode)


def create_organization(
    organization_id: str, display_name: str | None = None
) -> Call[Organization]:
    """Make an organization."""
    body = _given(organization_id=organization_id, display_name=display_name)
    return _change("POST", _ORGANIZATIONS, body, Organization.decode)


def list_organizations(limit: int = 100, offset: int = 0) -> Call[Page[Organization]]:
    """List the organizations that the caller may know of."""
    decode = page_of(("organizations",), Organization.decode)
    return Call(method="GET", path=_ORGANIZATIONS, decode=decode, query=window(limit, offset))


def get_organization(organization_id: str) -> Call[Organization]:
    """Return one organization."""
    path = f"{_ORGANIZATIONS}/{segment(organization_id)}"
    return Call(method="GET", path=path, decode=Organization.decode)


def change_organization(
    organization_id: str, display_name: str | None = None, *, disabled: bool | None = None
) -> Call[Organization]:
    """Rename, disable or enable an organization."""
    path = f"{_ORGANIZATIONS}/{segment(organization_id)}"
    body = _given(display_name=display_name, disabled=disabled)
    return _change("PATCH", path, body, Organization.decode)


def get_quota(organization_id: str) -> Call[Quota]:
    """Return an organization's quota and what it uses of it."""
    path = f"{_ORGANIZATIONS}/{segment(organization_id)}/quota"
    return Call(method="GET", path=path, decode=Quota.decode)


def change_quota(organization_id: str, hard: Mapping[str, str | int]) -> Call[Quota]:
    """Set limits of an organization; those that are not named stay."""
    path = f"{_ORGANIZATIONS}/{segment(organization_id)}/quota"
    return _change("PATCH", path, {"hard": dict(hard)}, Quota.decode)


def remove_organization(organization_id: str) -> Call[Organization]:
    """Remove an organization that has no models."""
    path = f"{_ORGANIZATIONS}/{segment(organization_id)}"
    return _change("DELETE", path, None, Organization.decode)


def create_role(
    name: str,
    permissions: Sequence[str],
    description: str | None = None,
    organization: str | None = None,
) -> Call[Role]:
    """Make a role of the organization's own."""
    more = _given(description=description, organization=organization)
    body = {"name": name, "permissions": list(permissions), **more}
    return _change("POST", _ROLES, body, Role.decode)


def list_roles(limit: int = 100, offset: int = 0) -> Call[Page[Role]]:
    """List the built-in roles and the organization's own."""
    decode = page_of(("roles",), Role.decode)
    return Call(method="GET", path=_ROLES, decode=decode, query=window(limit, offset))


def change_role(
    name: str,
    permissions: Sequence[str] | None = None,
    description: str | None = None,
    organization: str | None = None,
) -> Call[Role]:
    """Change what an own role allows."""
    granted = None if permissions is None else list(permissions)
    body = _given(permissions=granted, description=description, organization=organization)
    return _change("PATCH", f"{_ROLES}/{segment(name)}", body, Role.decode)


def remove_role(name: str, organization: str | None = None) -> Call[Role]:
    """Remove an own role that nobody has."""
    return Call(
        method="DELETE",
        path=f"{_ROLES}/{segment(name)}",
        decode=Role.decode,
        query=_given(organization=organization),
        idempotency_key=fresh_key(),
    )


def add_member(
    kind: str,
    subject: str,
    bindings: Sequence[Mapping[str, Any]],
    name: str | None = None,
    organization: str | None = None,
    expires_in_seconds: float | None = None,
) -> Call[Member]:
    """Make somebody a member. A binding is `{"role": …}`, with `"model"` for a single one."""
    body = {"kind": kind, "subject": subject, "bindings": [dict(one) for one in bindings]}
    more = _given(name=name, organization=organization, expires_in_seconds=expires_in_seconds)
    return _change("POST", _MEMBERS, {**body, **more}, Member.decode)


def list_members(limit: int = 100, offset: int = 0) -> Call[Page[Member]]:
    """List members with their roles."""
    decode = page_of(("members",), Member.decode)
    return Call(method="GET", path=_MEMBERS, decode=decode, query=window(limit, offset))


def change_member(
    member_id: str,
    bindings: Sequence[Mapping[str, Any]] | None = None,
    name: str | None = None,
    **more: float | None,
) -> Call[Member]:
    """Give a member these roles in place of those it has, or another name.

    More: `expires_in_seconds`; None takes the end away.
    """
    bound = None if bindings is None else [dict(one) for one in bindings]
    body = {**_given(bindings=bound, name=name), **more}
    return _change("PATCH", f"{_MEMBERS}/{segment(member_id)}", body, Member.decode)


def remove_member(member_id: str) -> Call[Member]:
    """Take all roles of a member away."""
    return _change("DELETE", f"{_MEMBERS}/{segment(member_id)}", None, Member.decode)


def accept_member(member_id: str) -> Call[Member]:
    """Accept an invitation to be a member."""
    path = f"{_MEMBERS}/{segment(member_id)}/accept"
    return _change("POST", path, None, Member.decode)


def leave_member(member_id: str) -> Call[Member]:
    """End one's own membership, or refuse an invitation."""
    path = f"{_MEMBERS}/{segment(member_id)}/leave"
    return _change("POST", path, None, Member.decode)


def create_key(name: str, **wishes: Any) -> Call[ApiKey]:
    """Make an API key.

    Wishes: `organization`, `role`, `expires_in_seconds`, `models`, `networks`,
    `requests_per_minute`, `requests_per_day`.
    """
    body = {"name": name, **_given(**wishes)}
    return Call(method="POST", path=_KEYS, decode=ApiKey.decode, body=body)


def list_keys(limit: int = 100, offset: int = 0) -> Call[Page[ApiKey]]:
    """List API keys, without their secrets."""
    decode = page_of(("api_keys", "keys"), ApiKey.decode)
    return Call(method="GET", path=_KEYS, decode=decode, query=window(limit, offset))


def get_key(key_id: str) -> Call[ApiKey]:
    """Return an API key, without its secret."""
    return Call(method="GET", path=f"{_KEYS}/{segment(key_id)}", decode=ApiKey.decode)


def change_key(key_id: str, changes: Mapping[str, Any]) -> Call[ApiKey]:
    """Change an API key; None takes a bound away."""
    return _change("PATCH", f"{_KEYS}/{segment(key_id)}", dict(changes), ApiKey.decode)


def rotate_key(key_id: str, overlap_seconds: float | None = None) -> Call[ApiKey]:
    """Give an API key a new secret."""
    return Call(
        method="POST",
        path=f"{_KEYS}/{segment(key_id)}/rotate",
        decode=ApiKey.decode,
        body=_given(overlap_seconds=overlap_seconds),
    )


def revoke_key(key_id: str) -> Call[ApiKey]:
    """Revoke an API key at once."""
    return _change("DELETE", f"{_KEYS}/{segment(key_id)}", None, ApiKey.decode)


def _change(method: str, path: str, body: Any, decode: Any) -> Call[Any]:
    return Call(method=method, path=path, decode=decode, body=body, idempotency_key=fresh_key())


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
