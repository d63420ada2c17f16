"""Organizations, roles, members and callers as frozen values. Times are RFC 3339 text as sent."""

import dataclasses
from collections.abc import Mapping

from .models import ApiKey
from .quota_models import QuotaLimit
from .wire import Wire, many, mapping, one, strings

_value = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)


@_value
class Organization(Wire):
    """Who owns models. Callers of a `disabled` one are refused."""

    organization_id: str
    display_name: str = ""
    disabled: bool = False
    disabled_at: str | None = None
    created_at: str | None = None
    created_by: str | None = None


@_value
class Role(Wire):
    """A set of permissions. A `built_in` one belongs to no organization."""

    name: str
    organization: str | None = None
    built_in: bool = False
    description: str = ""
    permissions: tuple[str, ...] = strings()
    created_at: str | None = None
    updated_at: str | None = None


@_value
class Binding(Wire):
    """A role that a member has; without a model, in the whole organization."""

    role: str
    model_id: str | None = None
    deployment_id: str | None = None


@_value
class Member(Wire):
    """Someone who belongs to an organization: a `kind` (uid, gid, oidc, key) and a `subject`.

    `status` is `active`, `invited` (until they accept it has no effect) or `expired`.
    """

    member_id: str
    organization: str = ""
    kind: str = ""
    subject: str = ""
    name: str = ""
    bindings: tuple[Binding, ...] = many(Binding)
    status: str = ""
    accepted_at: str | None = None
    expires_at: str | None = None
    created_at: str | None = None
    created_by: str | None = None


@_value
class ModelPermissions(Wire):
    """What the caller may do with one model, beside what they may with all."""

    model_id: str = ""
    deployment_id: str = ""
    permissions: tuple[str, ...] = strings()


@_value
class Caller(Wire):
    """Who the caller is. `only_models` None: held to none in particular; `key` is the one used.

    `quota` is that of the organization, by dimension.
    `organization` None: the caller belongs to several, or to none yet; `memberships` tell of which,
    invitations too.
    """

    principal: str
    organization: str | None = None
    role: str = ""
    appliance_wide: bool = False
    permissions: tuple[str, ...] = strings()
    on_models: tuple[ModelPermissions, ...] = many(ModelPermissions)
    only_models: tuple[str, ...] | None = None
    key: ApiKey | None = one(ApiKey)
    quota: Mapping[str, QuotaLimit] = mapping(QuotaLimit)
    memberships: tuple[Member, ...] = many(Member)
