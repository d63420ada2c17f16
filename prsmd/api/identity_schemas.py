"""Bodies of requests about organizations, roles, members and keys."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from prsmd.api import patterns
from prsmd.api.patch import PatchBody, absent
from prsmd.api.schemas import Body
from prsmd.core.networks import canonical
from prsmd.domain.access import Permission

_YEARS = 10 * 366 * 86400
_MOST = 100  # of models or networks that a key is held to


def _network(text: str) -> str:
    try:
        return canonical(text)
    except ValueError:
        raise ValueError(
            "must be a network such as 10.0.0.0/8 or fd00::/8, or an address"
        ) from None


OrganizationName = Annotated[str, Field(pattern=patterns.ORGANIZATION)]
RoleName = Annotated[str, Field(pattern=patterns.ROLE)]
Words = Annotated[str, Field(min_length=1, max_length=200, pattern=patterns.LINE)]
Description = Annotated[str, Field(max_length=1000, pattern=patterns.LINE)]
Lifetime = Annotated[float, Field(gt=0, le=_YEARS)]
ModelName = Annotated[str, Field(pattern=patterns.MODEL)]
Network = Annotated[str, Field(max_length=64), AfterValidator(_network)]
Models = Annotated[list[ModelName], Field(max_length=_MOST)]
Networks = Annotated[list[Network], Field(min_length=1, max_length=_MOST)]
Permissions = Annotated[
    list[Annotated[Permission, Field(strict=False)]], Field(max_length=len(Permission))
]
Rate = Annotated[int, Field(ge=1, le=100_000_000)]


class OrganizationBody(Body):
    """POST /v1/organizations."""

    organization_id: OrganizationName
    display_name: Words | None = None


class OrganizationChangeBody(PatchBody):
    """PATCH /v1/organizations/{organization_id}."""

    display_name: Words = absent()
    disabled: bool = absent()


class RoleBody(Body):
    """POST /v1/roles."""

    name: RoleName
    permissions: Permissions
    description: Description = ""
    organization: OrganizationName | None = None


class RoleChangeBody(PatchBody):
    """PATCH /v1/roles/{name}. `organization` says whose role it is: by default your own."""

    permissions: Permissions = absent()
    description: Description = absent()
    organization: OrganizationName | None = absent()


class BindingBody(Body):
    """A role in the whole organization, or on one model."""

    role: RoleName
    model: ModelName | None = None


class MemberBody(Body):
    """POST /v1/members."""

    kind: Literal["uid", "gid", "user", "group", "oidc", "key"]
    subject: Annotated[str, Field(min_length=1, max_length=128, pattern=patterns.SUBJECT)]
    bindings: Annotated[list[BindingBody], Field(max_length=100)]
    name: Words | None = None
    organization: OrganizationName | None = None
    expires_in_seconds: Lifetime | None = None


class MemberChangeBody(PatchBody):
    """PATCH /v1/members/{member_id}. What is absent stays; null takes the end away."""

    name: Words = absent()
    bindings: Annotated[list[BindingBody], Field(max_length=100)] = absent()
    expires_in_seconds: Lifetime | None = absent()


class KeyBody(Body):
    """POST /v1/api-keys."""

    name: Words = "key"
    organization: OrganizationName | None = None
    role: RoleName = "admin"
    expires_in_seconds: Lifetime | None = None
    models: Models | None = None
    networks: Networks | None = None
    requests_per_minute: Rate | None = None
    requests_per_day: Rate | None = None


class KeyChangeBody(PatchBody):
    """PATCH /v1/api-keys/{key_id}. What is absent stays; null takes a bound away."""

    name: Words = absent()
    role: RoleName = absent()
    expires_in_seconds: Lifetime | None = absent()
    models: Models | None = absent()
    networks: Networks | None = absent()
    requests_per_minute: Rate | None = absent()
    requests_per_day: Rate | None = absent()


class RotateBody(Body):
    """POST /v1/api-keys/{key_id}/rotate."""

    overlap_seconds: Annotated[float, Field(ge=0, le=30 * 86400)] = 3600.0
