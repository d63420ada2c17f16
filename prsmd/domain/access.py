"""Who calls and what they may do: permissions, roles, organizations, members, keys, principals.

`PERMISSIONS` and `ROLES` are the one table that enforcement, documents and tests are made from.
"""

import dataclasses
import enum
import re
from collections.abc import Mapping
from types import MappingProxyType

_ORGANIZATION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Permission(enum.StrEnum):
    """What a principal can be allowed to do."""

    MODELS_READ = "models.read"
    MODELS_INFER = "models.infer"
    MODELS_DEPLOY = "models.deploy"
    MODELS_UPDATE = "models.update"
    MODELS_SCALE = "models.scale"
    MODELS_SHARE = "models.share"
    MODELS_DELETE = "models.delete"
    LOGS_READ = "logs.read"
    USAGE_READ = "usage.read"
    AUDIT_READ = "audit.read"
    KEYS_MANAGE = "keys.manage"
    MEMBERS_MANAGE = "members.manage"
    SECRETS_MANAGE = "secrets.manage"
    NODE_READ = "node.read"
    NODE_MANAGE = "node.manage"


class Scope(enum.StrEnum):
    """What a permission is about, and so the narrowest thing that it can be given on."""

    MODEL = "model"
    ORGANIZATION = "organization"
    APPLIANCE = "appliance"


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """What a permission is about, what it allows in words, and whether a share can give it."""

    scope: Scope
    allows: str
    shareable: bool = False


_P = Permission
PERMISSIONS: Mapping[Permission, Meaning] = MappingProxyType(
    {
        _P.MODELS_READ: Meaning(Scope.MODEL, "see models, their status and events", shareable=True),
        _P.MODELS_INFER: Meaning(Scope.MODEL, "infer with models", shareable=True),
        _P.MODELS_DEPLOY: Meaning(Scope.ORGANIZATION, "deploy new models"),
        _P.MODELS_UPDATE: Meaning(Scope.MODEL, "update, roll back and divide traffic"),
        _P.MODELS_SCALE: Meaning(Scope.MODEL, "set how many replicas run"),
        _P.MODELS_SHARE: Meaning(Scope.MODEL, "share models with others"),
        _P.MODELS_DELETE: Meaning(Scope.MODEL, "delete models"),
        _P.LOGS_READ: Meaning(Scope.MODEL, "read what containers write", shareable=True),
        _P.USAGE_READ: Meaning(Scope.MODEL, "see who used what, and how much", shareable=True),
        _P.AUDIT_READ: Meaning(Scope.ORGANIZATION, "read the audit log"),
        _P.KEYS_MANAGE: Meaning(Scope.ORGANIZATION, "make, change and revoke API keys"),
        _P.MEMBERS_MANAGE: Meaning(Scope.ORGANIZATION, "manage members and the own roles"),
        _P.SECRETS_MANAGE: Meaning(Scope.ORGANIZATION, "manage secrets and registry logins"),
        _P.NODE_READ: Meaning(Scope.APPLIANCE, "see the machine and its measurements"),
        _P.NODE_MANAGE: Meaning(Scope.APPLIANCE, "manage the machine, images, organizations"),
    }
)
ON_ONE_MODEL = frozenset(p for p, meaning in PERMISSIONS.items() if meaning.scope is Scope.MODEL)

_VIEW = frozenset({_P.MODELS_READ, _P.USAGE_READ})
_OPERATE = _VIEW | {_P.MODELS_SCALE, _P.MODELS_UPDATE, _P.LOGS_READ, _P.NODE_READ}
_DEPLOY = _OPERATE | {_P.MODELS_DEPLOY, _P.MODELS_DELETE, _P.MODELS_INFER}

ROLES: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {
        "admin": frozenset(Permission),
        "owner": frozenset(Permission) - {_P.NODE_MANAGE},
        "deployer": _DEPLOY,
        "operator": _OPERATE,
        "viewer": _VIEW,
        "invoker": frozenset({_P.MODELS_READ, _P.MODELS_INFER}),
        "auditor": frozenset({_P.AUDIT_READ, _P.USAGE_READ, _P.MODELS_READ}),
    }
)
APPLIANCE_ROLE = "admin"  # sees every organization; all other roles see only their own
OWNER_ROLE = "owner"  # an organization's own roles allow no more than this one


def is_organization_name(text: str) -> bool:
    """Tell whether `text` can name an organization: 1 to 63 of a-z, 0-9 and `-`."""
    return _ORGANIZATION.fullmatch(text) is not None


def is_role_name(text: str) -> bool:
    """Tell whether `text` can name a role: 1 to 63 of a-z, 0-9, `.`, `_` and `-`."""
    return _NAME.fullmatch(text) is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What somebody is held to beside their permissions; None: to nothing.

    `expires_at` is in seconds since the epoch; `networks` are CIDR.
    """

    expires_at: float | None = None
    networks: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    requests_per_day: int | None = None


UNBOUNDED = Bounds()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls: an API key, a Unix peer or the bearer of a token, acting for an organization.

    `permissions` hold in the whole organization, `on_models` only on one deployment each, by its
    id. `only_models` (names, their ids or their deployments'; None: all) are the models that it is
    held to: no other exists for it, and it has no permission that is not about models. `bounds`
    are what proves it, its key, is held to.
    """

    id: str
    organization: str
    role: str
    permissions: frozenset[Permission]
    on_models: Mapping[str, frozenset[Permission]] = dataclasses.field(default_factory=dict)
    only_models: frozenset[str] | None = None
    bounds: Bounds = UNBOUNDED

    @property
    def appliance_wide(self) -> bool:
        """True for the appliance's administrators, who see every organization."""
        return self.role == APPLIANCE_ROLE

    @property
    def key_id(self) -> str | None:
        """The id of the API key that this is; None for all others."""
        kind, _, name = self.id.partition(":")
        return name if kind == "key" else None


@dataclasses.dataclass(frozen=True, slots=True)
class ModelRef:
    """The names of one model: of its deployment, its id and what its owner calls it."""

    deployment_id: str
    model_id: str
    model_name: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """Who owns models. A `disabled` one's callers are refused; its models run on.

    A removed one is remembered, for its name is never given again: what is in the audit log under
    it must not become another's.
    """

    id: str
    display_name: str
    created_at: float
    created_by: str
    disabled_at: float | None = None
    removed_at: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """An organization's own role. The built-in ones are `ROLES` and belong to nobody."""

    organization: str
    name: str
    description: str
    permissions: frozenset[Permission]
    created_at: float
    updated_at: float


class SubjectKind(enum.StrEnum):
    """How a member is recognized."""

    UID = "uid"
    GID = "gid"
    OIDC = "oidc"
    KEY = "key"


@dataclasses.dataclass(frozen=True, slots=True)
class Binding:
    """A role that a member has: in the whole organization, or on one deployment only."""

    role: str
    deployment_id: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Someone who belongs to an organization, and the roles that they have in it.

    `subject` is a uid or gid in decimal, a token's subject, or a key's id. It may belong to several
    organizations, a key only to its own. `accepted_at` None: an invitation, which has no effect
    until the subject itself accepts it.
    """

    id: str
    organization: str
    kind: SubjectKind
    subject: str
    name: str
    bindings: tuple[Binding, ...]
    created_at: float
    created_by: str
    accepted_at: float | None = None
    expires_at: float | None = None

    @property
    def identity(self) -> str:
        """Who is meant, as principals are named."""
        return f"{self.kind.value}:{self.subject}"

    def in_force(self, now: float) -> bool:
        """Tell whether it counts: it was accepted, and has not ended."""
        return self.accepted_at is not None and (self.expires_at is None or now < self.expires_at)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A stored key. `digest` is HMAC-SHA-256(pepper, secret); the secret itself is not kept.

    `previous_digest` is that of the secret before the last rotation, good until `previous_until`.
    `models` (ids or names) and `networks` (CIDR; `unix` is the local socket) are what it is held
    to; None holds it to nothing.
    """

    id: str
    organization: str
    role: str
    name: str
    digest: bytes = dataclasses.field(repr=False)
    created_at: float
    created_by: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None
    rotated_at: float | None = None
    previous_digest: bytes | None = dataclasses.field(default=None, repr=False)
    previous_until: float | None = None
    models: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    last_used_at: float | None = None

    @property
    def bounds(self) -> Bounds:
        """What whoever holds the key is held to, beside its models."""
        return Bounds(
            expires_at=self.expires_at,
            networks=self.networks,
            requests_per_minute=self.requests_per_minute,
            requests_per_day=self.requests_per_day,
        )
