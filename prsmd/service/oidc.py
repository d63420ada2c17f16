"""Tokens of one OpenID Connect issuer: verified against its keys, mapped to roles.

Off unless it is configured. A refusal says that the token is not valid, and nothing of why: who
holds a good one never sees it, and who does not learns nothing. The reason is in the log.
"""

import asyncio
import collections
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import jwt

from prsmd.core.belonging import Belonging
from prsmd.domain.access import Binding, SubjectKind
from prsmd.domain.errors import InvalidTokenError
from prsmd.service.access import Identified
from prsmd.service.belonging import ANY, ActingFor, resolve
from prsmd.service.directory import Directory

log = logging.getLogger(__name__)
ALGORITHMS = ("RS256", "ES256", "EdDSA")
_MOST_TOKEN = 16 * 1024
_MOST_KEYS_BYTES = 1024 * 1024
_MALFORMED = (ValueError, TypeError, ArithmeticError, RecursionError, jwt.PyJWTError)
_UNREADABLE = (OSError, aiohttp.ClientError, TimeoutError, *_MALFORMED)
_REMEMBERED = 4096
_SUBJECT = 128


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRule:
    """Maps a claim that is, or has among its values, `value` to a role in an organization."""

    claim: str
    value: str
    organization: str
    role: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """The issuer's own section of the settings.

    The keys are read from `jwks_file`, or fetched from `jwks_url` within `deadline_seconds`, at
    most every `refresh_seconds`, and again after `keep_seconds`. `leeway_seconds` is how much the
    clocks may differ.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: Path | None = None
    algorithms: Sequence[str] = ALGORITHMS
    subject_claim: str = "sub"
    leeway_seconds: float = 30.0
    deadline_seconds: float = 5.0
    refresh_seconds: float = 30.0
    keep_seconds: float = 3600.0
    rules: Sequence[ClaimRule] = ()


class KeySet:
    """The issuer's public keys by their ids. `clock` gives monotonic seconds.

    They are looked for again when one is unknown or they are old, but not more often than allowed;
    while the issuer cannot be reached, those that are known stay good.
    """

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._tried_at: float | None = None
        self._read_at: float | None = None
        self._alone = asyncio.Lock()

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """Return the key of this id, or None for one that the issuer does not have."""
        if key_id not in self._keys or self._old():
            async with self._alone:
                if (key_id not in self._keys or self._old()) and self._may_try():
                    await self._refresh()
        return self._keys.get(key_id)

    async def read_again(self) -> bool:
        """Read what was read before; tell whether a key that was known is no more, or another."""
        if self._read_at is None:
            return False
        async with self._alone:
            before = self._keys
            await self._refresh()
        return any(not _same(self._keys.get(name), key) for name, key in before.items())

    def _old(self) -> bool:
        return self._read_at is None or self._clock() - self._read_at > self._settings.keep_seconds

    def _may_try(self) -> bool:
        tried = self._tried_at
        return tried is None or self._clock() - tried >= self._settings.refresh_seconds

    async def _refresh(self) -> None:
        self._tried_at = self._clock()
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                self._keys = _usable(await self._document())
        except _UNREADABLE as error:
            log.warning("the issuer's keys cannot be read: %s", error or type(error).__name__)
        else:
            self._read_at = self._clock()

    async def _document(self) -> bytes:
        path, url = self._settings.jwks_file, self._settings.jwks_url
        if path is not None:
            return await asyncio.to_thread(path.read_bytes)
        if url is None:
            raise ValueError("neither a file nor an address of them is set")
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"{url} answered {answer.status}")
            return await _whole(answer)


@dataclasses.dataclass(frozen=True, slots=True)
class _Verified:
    """The claims of a token that was verified, and with which of the issuer's keys."""

    claims: Mapping[str, Any]
    key_id: str
    key: jwt.PyJWK


class OidcTokens:
    """Makes principals of tokens. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        settings: OidcSettings,
        directory: Directory,
        keys: KeySet | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._keys = keys or KeySet(settings)
        self._clock = clock
        self._verified: collections.OrderedDict[bytes, _Verified] = collections.OrderedDict()
        self._ended = False

    async def read_keys_again(self) -> bool:
        """Read the issuer's keys again; tell whether one that was known is no more, or another."""
        return await self._keys.read_again()

    def end(self) -> None:
        """Take no token any more, nor one that was taken before."""
        self._ended = True

    async def identify(
        self,
        token: str,
        may_verify: Callable[[], None] = lambda: None,
        acting: ActingFor = ANY,
    ) -> Identified:
        """Return who a token stands for. Raise InvalidApiKeyError where it proves nothing.

        `may_verify` is called before each signature is verified, and raises where none may be.
        """
        try:
            claims = await self._claims(token, may_verify)
        except _MALFORMED as error:
            raise InvalidTokenError(str(error)) from None
        return self._identified(claims, acting)

    async def _claims(self, token: str, may_verify: Callable[[], None]) -> Mapping[str, Any]:
        """Return the claims of a token that is genuine, for us, and good now."""
        if len(token) > _MOST_TOKEN:
            raise ValueError("it is too long")
        name = hashlib.sha256(token.encode()).digest()
        seen = self._verified.get(name)
        if seen is None or await self._keys.key(seen.key_id) is not seen.key:
            self._verified.pop(name, None)  # its key may have been withdrawn since
            seen = self._verified[name] = await self._verify(token, may_verify)
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        claims = seen.claims
        if float(claims["exp"]) + self._settings.leeway_seconds <= self._clock():
            self._verified.pop(name, None)
            raise ValueError("it has expired")
        return claims

    async def _verify(self, token: str, may_verify: Callable[[], None]) -> _Verified:
        head = jwt.get_unverified_header(token)
        key_id, algorithm = head.get("kid"), head.get("alg")
        if algorithm not in self._settings.algorithms:
            raise ValueError("its algorithm is not one that is accepted")
        key = await self._keys.key(key_id) if isinstance(key_id, str) else None
        if key is None or not isinstance(key_id, str):
            raise ValueError("its key is not one of the issuer's")
        if key.algorithm_name != algorithm:
            raise ValueError("its key is for another algorithm")
        may_verify()  # others may have failed while the issuer's keys were waited for
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=self._settings.leeway_seconds,
            options={"require": ["exp", "iss", "aud", self._settings.subject_claim]},
        )
        return _Verified(claims, key_id, key)

    def _identified(self, claims: Mapping[str, Any], acting: ActingFor) -> Identified:
        subject = claims[self._settings.subject_claim]
        until = float(claims["exp"]) + self._settings.leeway_seconds
        if self._ended:
            raise InvalidTokenError("its issuer is not asked any more")
        if until <= self._clock():
            raise InvalidTokenError("it has expired")
        if not isinstance(subject, str) or not _presentable(subject):
            raise InvalidTokenError("its subject cannot be used")
        belonging = Belonging(
            identity=f"oidc:{subject}",
            configured=self._ruled(claims),
            own=self._directory.memberships(SubjectKind.OIDC, subject),
        )
        nobody, now = InvalidTokenError(f"{subject} has no role here"), self._clock()
        principal, ends = resolve(self._directory, belonging, acting, now, nobody)
        stays = dataclasses.replace(acting, organization=principal.organization or None)
        return Identified(
            principal=principal,
            again=lambda: self._identified(claims, stays),
            until=until if ends is None else min(until, ends),
        )

    def ruled(self) -> Collection[tuple[str, str]]:
        """Return the organizations and roles of all rules."""
        return [(rule.organization, rule.role) for rule in self._settings.rules]

    def _ruled(self, claims: Mapping[str, Any]) -> list[tuple[str, Binding]]:
        """Return the organizations and roles of all rules that fit, in their order."""
        found = []
        for rule in self._settings.rules:
            given = claims.get(rule.claim)
            if rule.value in (given if isinstance(given, list) else [given]):
                found.append((rule.organization, Binding(rule.role)))
        return found


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > _MOST_KEYS_BYTES:
            raise ValueError(f"they are more than {_MOST_KEYS_BYTES} bytes")
    return bytes(body)


def _usable(document: bytes) -> dict[str, jwt.PyJWK]:
    """Return the keys that can verify something, by id. ValueError for what is no key set."""
    parsed = json.loads(document)
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is not a set of keys")  # noqa: TRY004 - of the document, not of an argument
    found: dict[str, jwt.PyJWK] = {}
    for one in listed:
        if not isinstance(one, dict) or not isinstance(one.get("kid"), str):
            continue
        if one.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(one)
        except jwt.PyJWTError:  # of a kind that is not known here
            continue
        if key.algorithm_name in ALGORITHMS:
            found[one["kid"]] = key
    return found


def _same(one: jwt.PyJWK | None, other: jwt.PyJWK) -> bool:
    return one is not None and bool(one.key == other.key)


def _presentable(subject: str) -> bool:
    return 0 < len(subject) <= _SUBJECT and subject.isascii() and subject.isprintable()
