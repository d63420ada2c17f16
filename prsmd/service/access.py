"""Who is calling: API keys and Unix peers become principals. Everything it needs is in memory."""

import dataclasses
import grp
import hmac
import os
import pwd
import time
from collections.abc import Iterable, Sequence

from prsmd.core.apikey import key_digest, parse_key
from prsmd.domain.access import APPLIANCE_ROLE, ROLES, ApiKey, Principal
from prsmd.domain.errors import InvalidApiKeyError

_ROOT = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PeerRule:
    """Maps a uid or one of a peer's groups to a role in an organization."""

    organization: str
    role: str
    uid: int | None = None
    gid: int | None = None


class KeyRing:
    """The keys in force, by id. The key service adds and revokes; requests only look up."""

    def __init__(self, pepper: bytes, keys: Iterable[ApiKey]) -> None:
        self._pepper = pepper
        self._keys = {key.id: key for key in keys}

    def add(self, key: ApiKey) -> None:
        """Accept a key, or what became of it, from now on."""
        self._keys[key.id] = key

    def digest(self, secret: str) -> bytes:
        """Return what is to be stored of a new secret."""
        return key_digest(self._pepper, secret)

    def principal(self, text: str) -> Principal:
        """Return who a key stands for. InvalidApiKeyError never says which part failed."""
        parsed = parse_key(text)
        key = self._keys.get(parsed[0]) if parsed else None
        if parsed is None or key is None:
            raise InvalidApiKeyError("The API key is not valid; check it, or ask for a new one.")
        if not hmac.compare_digest(key.digest, self.digest(parsed[1])):
            raise InvalidApiKeyError("The API key is not valid; check it, or ask for a new one.")
        if key.revoked_at is not None:
            raise InvalidApiKeyError("The API key was revoked; ask for a new one.")
        if key.expires_at is not None and key.expires_at <= time.time():
            raise InvalidApiKeyError("The API key has expired; ask for a new one.")
        return Principal(
            id=f"key:{key.id}",
            organization=key.organization,
            role=key.role,
            permissions=ROLES[key.role],
        )


class Peers:
    """Maps Unix peers to principals: root and the daemon's own user, then the configured rules."""

    def __init__(self, organization: str, rules: Sequence[PeerRule]) -> None:
        self._organization = organization
        self._rules = rules

    def principal(self, uid: int, gid: int) -> Principal:
        """Return who a peer is. Raise InvalidApiKeyError for one that no rule names."""
        if uid in {_ROOT, os.geteuid()}:
            return _peer(uid, self._organization, APPLIANCE_ROLE)
        groups = _groups_of(uid, gid)
        for rule in self._rules:
            if rule.uid == uid or (rule.gid is not None and rule.gid in groups):
                return _peer(uid, rule.organization, rule.role)
        raise InvalidApiKeyError(
            f"Local user {uid} has no role here: send an API key, or add the user to unix_roles."
        )


def uid_of(user: str) -> int:
    """Return the uid of a user name. KeyError for an unknown one."""
    return pwd.getpwnam(user).pw_uid


def gid_of(group: str) -> int:
    """Return the gid of a group name. KeyError for an unknown one."""
    return grp.getgrnam(group).gr_gid


def _peer(uid: int, organization: str, role: str) -> Principal:
    return Principal(id=f"uid:{uid}", organization=organization, role=role, permissions=ROLES[role])


def _groups_of(uid: int, gid: int) -> frozenset[int]:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return frozenset({gid})
    return frozenset(os.getgrouplist(name, gid))
