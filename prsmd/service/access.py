"""Who is calling: API keys, Unix peers and tokens become principals. All of it is in memory."""

import dataclasses
import grp
import hmac
import os
import pwd
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from prsmd.core.apikey import key_digest, parse_key
from prsmd.core.belonging import Belonging
from prsmd.domain.access import APPLIANCE_ROLE, ApiKey, Binding, Principal, SubjectKind
from prsmd.domain.errors import InvalidApiKeyError
from prsmd.service.belonging import ANY, ActingFor, acting_for, resolve
from prsmd.service.directory import Directory

_ROOT = 0
_NOBODY = ApiKey(id="", organization="", role="", name="", digest=b"", created_at=0.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """Who calls, and how long what proves it is good: `until` epoch seconds (None: no end known).

    `again` looks once more, with the same proof; it raises InvalidApiKeyError once they are nobody
    any more. `key` is the key that was used, if it was one.
    """

    principal: Principal
    again: "Callable[[], Identified]"
    until: float | None = None
    key: ApiKey | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PeerRule:
    """Maps a uid or one of a peer's groups to a role in an organization."""

    organization: str
    role: str
    uid: int | None = None
    gid: int | None = None


def _always() -> None:
    """Let whatever is asked for go on."""


class Tokens(Protocol):
    """Who the bearers of an issuer's tokens are."""

    async def identify(
        self, token: str, may_verify: Callable[[], None], acting: ActingFor
    ) -> Identified:
        """Return who a token stands for. Raise InvalidApiKeyError where it proves nothing.

        `may_verify` is called before each signature is verified, and raises where none may be.
        """

    async def read_keys_again(self) -> bool:
        """Read the issuer's keys again; tell whether one that was known is no more, or another."""

    def end(self) -> None:
        """Take no token any more, nor one that was taken before."""

    def ruled(self) -> Collection[tuple[str, str]]:
        """Return the organizations and roles that are given by what a token says."""


class KeyRing:
    """The keys in force. `address` is where a request comes from; None: the Unix socket."""

    def __init__(self, pepper: bytes, directory: Directory) -> None:
        self._pepper = pepper
        self._directory = directory
        self._used: dict[str, float] = {}

    def digest(self, secret: str) -> bytes:
        """Return what is to be stored of a new secret."""
        return key_digest(self._pepper, secret)

    def identify(
        self, text: str, address: str | None = None, acting: ActingFor = ANY
    ) -> Identified:
        """Return who a key stands for. InvalidApiKeyError never says which part failed.

        Only who holds the secret is told that the key was revoked, has expired, or is not to be
        used from there.
        """
        parsed = parse_key(text)
        if parsed is None:
            raise _invalid()
        found = self._identified(parsed[0], self.digest(parsed[1]), address, acting)
        self._used[parsed[0]] = time.time()
        return found

    def used(self) -> dict[str, float]:
        """Return when each key was last used, since this was last asked."""
        used, self._used = self._used, {}
        return used

    def last_used(self, key: ApiKey) -> float | None:
        """Return when a key was last used."""
        return self._used.get(key.id, key.last_used_at)

    def _identified(
        self, key_id: str, digest: bytes, address: str | None, acting: ActingFor
    ) -> Identified:
        now = time.time()
        key, until = self._proven(key_id, digest, now)
        self._refuse_ended(key, now)
        if not self._directory.allows(key, address):
            raise InvalidApiKeyError("The API key may not be used from this address.")
        principal = self._directory.principal_of_key(key)
        if until != key.expires_at:  # a secret that was rotated away gives nothing beyond its end
            bounds = dataclasses.replace(principal.bounds, expires_at=until)
            principal = dataclasses.replace(principal, bounds=bounds)
        if acting.organization is not None:
            known = (key.organization,)
            principal = acting_for(self._directory, principal, acting.organization, known)
        return Identified(
            principal=principal,
            again=lambda: self._identified(key_id, digest, address, acting),
            until=until,
            key=key,
        )

    def _proven(self, key_id: str, digest: bytes, now: float) -> tuple[ApiKey, float | None]:
        """Return the key whose secret has this digest, and until when the secret is good."""
        key = self._directory.key(key_id)
        if hmac.compare_digest((key or _NOBODY).digest, digest) and key is not None:
            return key, key.expires_at
        previous = key.previous_digest if key is not None else None
        if key is None or previous is None or not hmac.compare_digest(previous, digest):
            raise _invalid()
        until = key.previous_until or 0.0
        if until <= now:
            raise InvalidApiKeyError("The API key was rotated; use its new secret.")
        return key, until if key.expires_at is None else min(until, key.expires_at)

    def _refuse_ended(self, key: ApiKey, now: float) -> None:
        if key.revoked_at is not None:
            raise InvalidApiKeyError("The API key was revoked; ask for a new one.")
        expired = InvalidApiKeyError("The API key has expired; ask for a new one.")
        if key.expires_at is not None and key.expires_at <= now:
            raise expired
        self._directory.refuse_closed(key.organization)
        if self._directory.has_ended(key.id):
            raise expired


class Peers:
    """Maps Unix peers to principals: root and the daemon's own user, then rules, then members."""

    def __init__(
        self, organization: str, rules: Sequence[PeerRule], directory: Directory | None = None
    ) -> None:
        self._organization = organization
        self._rules = rules
        self._directory = directory or Directory()

    def apply(self, rules: Sequence[PeerRule]) -> None:
        """Go by these rules from now on."""
        self._rules = rules

    def identify(self, uid: int, gid: int, acting: ActingFor = ANY) -> Identified:
        """Return who a peer is, and goes on to be, in the organization that they act for now.

        Raises:
            InvalidApiKeyError: somebody whom nothing names.
            AmbiguousOrganizationError: they belong to several organizations and name none.
            PermissionDeniedError: they do not belong to the one that is named.
        """
        principal, until = self._found(uid, gid, acting)
        stays = dataclasses.replace(acting, organization=principal.organization or None)
        return Identified(
            principal=principal, until=until, again=lambda: self.identify(uid, gid, stays)
        )

    def principal(self, uid: int, gid: int) -> Principal:
        """Return who a peer is who names no organization."""
        return self.identify(uid, gid).principal

    def _found(self, uid: int, gid: int, acting: ActingFor) -> tuple[Principal, float | None]:
        identity, directory = f"uid:{uid}", self._directory
        if uid in {_ROOT, os.geteuid()}:
            own = [Binding(APPLIANCE_ROLE)]
            home = directory.principal(identity, self._organization, own)
            return acting_for(directory, home, acting.organization, (self._organization,)), None
        groups = _groups_of(uid, gid)
        belonging = Belonging(
            identity=identity,
            configured=self._ruled(uid, groups),
            own=directory.memberships(SubjectKind.UID, str(uid)),
            groups=[
                member
                for group in sorted(groups)
                for member in directory.memberships(SubjectKind.GID, str(group))
            ],
        )
        nobody = InvalidApiKeyError(
            f"Local user {uid} has no role here: send an API key, or have the user made a"
            " member of an organization or added to unix_roles."
        )
        return resolve(directory, belonging, acting, time.time(), nobody)

    def _ruled(self, uid: int, groups: frozenset[int]) -> list[tuple[str, Binding]]:
        """Return the organizations that rules put a peer in, each by the first rule that fits."""
        found: dict[str, Binding] = {}
        for rule in self._rules:
            if rule.uid == uid or (rule.gid is not None and rule.gid in groups):
                found.setdefault(rule.organization, Binding(rule.role))
        return list(found.items())


class Access:
    """Every way in. `tokens` None: there is no issuer whose tokens are taken."""

    def __init__(self, ring: KeyRing, peers: Peers, tokens: Tokens | None = None) -> None:
        self.peers = peers
        self.tokens = tokens
        self._ring = ring

    def ruled(self) -> Collection[tuple[str, str]]:
        """Return the organizations and roles that tokens come to by a rule of the settings."""
        return () if self.tokens is None else self.tokens.ruled()

    async def by_credential(
        self,
        text: str,
        address: str | None,
        may_verify: Callable[[], None] = _always,
        acting: ActingFor = ANY,
    ) -> Identified:
        """Return who a key or a token stands for. Raise InvalidApiKeyError for nobody's."""
        if self.tokens is not None and text.count(".") == 2:
            return await self.tokens.identify(text, may_verify, acting)
        return self._ring.identify(text, address, acting)

    def by_peer(self, uid: int, gid: int, acting: ActingFor = ANY) -> Identified:
        """Return who a Unix peer is. Raise InvalidApiKeyError for nobody."""
        return self.peers.identify(uid, gid, acting)


def uid_of(user: str) -> int:
    """Return the uid of a user name. KeyError for an unknown one."""
    return pwd.getpwnam(user).pw_uid


def gid_of(group: str) -> int:
    """Return the gid of a group name. KeyError for an unknown one."""
    return grp.getgrnam(group).gr_gid


def _invalid() -> InvalidApiKeyError:
    return InvalidApiKeyError("The API key is not valid; check it, or ask for a new one.")


def _groups_of(uid: int, gid: int) -> frozenset[int]:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return frozenset({gid})
    return frozenset(os.getgrouplist(name, gid))
