"""Who calls and what they may do: principals, permissions, built-in roles."""

import dataclasses
import enum
from collections.abc import Mapping


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


_P = Permission
_VIEW = frozenset({_P.MODELS_READ, _P.USAGE_READ})
_OPERATE = _VIEW | {_P.MODELS_SCALE, _P.MODELS_UPDATE, _P.LOGS_READ, _P.NODE_READ}
_DEPLOY = _OPERATE | {_P.MODELS_DEPLOY, _P.MODELS_DELETE, _P.MODELS_INFER}

ROLES: Mapping[str, frozenset[Permission]] = {
    "admin": frozenset(Permission),
    "owner": frozenset(Permission) - {_P.NODE_MANAGE},
    "deployer": _DEPLOY,
    "operator": _OPERATE,
    "viewer": _VIEW,
    "invoker": frozenset({_P.MODELS_READ, _P.MODELS_INFER}),
    "auditor": frozenset({_P.AUDIT_READ, _P.USAGE_READ, _P.MODELS_READ}),
}
APPLIANCE_ROLE = "admin"  # sees every organization; all other roles see only their own


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls: an API key or a Unix peer, with an organization and a role's permissions."""

    id: str
    organization: str
    role: str
    permissions: frozenset[Permission]

    @property
    def appliance_wide(self) -> bool:
        """True for the appliance's administrators, who see every organization."""
        return self.role == APPLIANCE_ROLE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A stored key. `digest` is HMAC-SHA-256(pepper, secret); the secret itself is not kept."""

    id: str
    organization: str
    role: str
    name: str
    digest: bytes
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
