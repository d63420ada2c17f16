"""Makes what lets callers in from its sections of the settings, and the directory that it asks."""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence

from prsmd import keyfiles
from prsmd.api.access_lines import AccessLines
from prsmd.api.identity import Door
from prsmd.api.origin import Proxies
from prsmd.config import ConfigurationError
from prsmd.connection_bounds import connection_limits_of
from prsmd.core.apikey import key_digest
from prsmd.core.attempts import Attempts
from prsmd.core.memory_budget import MemoryBudget, MemoryLimits
from prsmd.devices.interfaces import interface_to
from prsmd.domain.access import Organization
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import own_record
from prsmd.domain.quantity import parse_memory
from prsmd.engine.denials import Denials
from prsmd.engine.observer import Observer
from prsmd.gateway.meters import Meters
from prsmd.runtime.docker_config import BRIDGES
from prsmd.service import organizations
from prsmd.service.access import Access, KeyRing, PeerRule, Peers, Tokens, gid_of, uid_of
from prsmd.service.directory import Directory
from prsmd.service.failures import Failures
from prsmd.service.published_limits import PublishedLimits
from prsmd.service.throttle import Throttle
from prsmd.service.underway import Underway
from prsmd.settings import AccessSection, LimitsSection, OidcSection, Settings, UnixRole
from prsmd.store import audit, meta
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)
_MOST_OTHERS = 10_000
_PEPPER = "pepper"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """Who there is, how they prove it, what they have under way, and the memory held for it."""

    directory: Directory
    ring: KeyRing
    access: Access
    underway: Underway
    throttle: Throttle
    memory: MemoryBudget
    failures: Failures
    denials: Denials
    limits: PublishedLimits


class Replicas:
    """The addresses of models' containers, also of one that nobody has looked for yet.

    A container's bridge is there before it is, so an address that is reached by another way never
    becomes a container's, and is looked for once.
    """

    def __init__(
        self, observer: Observer, interface_of: Callable[[str], str | None] = interface_to
    ) -> None:
        self._observer = observer
        self._interface_of = interface_of
        self._others: set[str] = set()

    def has(self, address: str) -> bool:
        """Tell whether a model's container has this address."""
        if address in self._observer.replica_hosts:
            return True
        if address in self._others:
            return False
        if (self._interface_of(address) or "").startswith(BRIDGES):
            return True
        if len(self._others) >= _MOST_OTHERS:
            self._others.clear()
        self._others.add(address)
        return False


async def ensure_organizations(settings: Settings, database: Database) -> Sequence[Organization]:
    """Have the organizations that the settings name; return those that were made."""
    section = settings.access
    ruled = [rule.organization for rule in settings.oidc.rules]
    named = [section.organization, *(role.organization for role in section.unix_roles), *ruled]
    return await organizations.ensure(database, named)


async def entrance_of(
    settings: Settings, database: Database, meters: Meters, denials: Denials
) -> Entrance:
    """Return the entrance, with everybody whom the store knows. `meters` count what keys may.

    `denials` is where it is on record that somebody was not let in.
    """
    section = settings.access
    limits = PublishedLimits()
    async with database.read() as tx:
        directory = await Directory.load(tx)
        await limits.load(tx)
    pepper = _pepper(settings, directory)
    await _tell_of_another(pepper, directory, database, section.organization)
    ring = KeyRing(pepper, directory)
    underway = Underway()
    directory.on_change.append(underway.look_again)
    return Entrance(
        directory=directory,
        ring=ring,
        access=Access(
            ring,
            Peers(section.organization, peer_rules(section), directory),
            tokens_of(settings.oidc, directory),
        ),
        underway=underway,
        throttle=Throttle(directory, meters),
        memory=MemoryBudget(memory_limits(settings.limits)),
        failures=Failures(Attempts(section.failed_attempts_per_minute), denials, directory),
        denials=denials,
        limits=limits,
    )


def door_of(settings: Settings, entrance: Entrance, observer: Observer) -> Door:
    """Return how the API lets callers in."""
    return Door(
        access=entrance.access,
        underway=entrance.underway,
        throttle=entrance.throttle,
        hosts=_hosts(settings),
        is_replica=Replicas(observer).has,
        connection_limits=connection_limits_of(settings.limits, entrance.limits),
        body_bytes=parse_memory(settings.limits.body),
        body_seconds=settings.limits.body_timeout_seconds,
        header_bytes=parse_memory(settings.limits.header),
        failures=entrance.failures,
        denials=entrance.denials,
        lines=AccessLines(settings.daemon.access_log),
        proxies=Proxies(settings.tcp.trusted_proxies, settings.tcp.proxy_header),
    )


def apply_to_door(door: Door, settings: Settings) -> None:
    """Let callers in by these settings from now on."""
    door.hosts = _hosts(settings)
    door.lines.apply(settings.daemon.access_log)
    door.body_bytes = parse_memory(settings.limits.body)
    door.body_seconds = settings.limits.body_timeout_seconds
    door.header_bytes = parse_memory(settings.limits.header)
    door.proxies = Proxies(settings.tcp.trusted_proxies, settings.tcp.proxy_header)


def _hosts(settings: Settings) -> frozenset[str]:
    return frozenset(host.lower() for host in settings.tcp.allowed_hosts)


def peer_rules(section: AccessSection) -> list[PeerRule]:
    """Return the roles of local users. ConfigurationError for one whom this machine has not."""
    return [_peer_rule(role) for role in section.unix_roles]


def memory_limits(section: LimitsSection) -> MemoryLimits:
    """Return how many bytes may be held for callers."""
    return MemoryLimits(
        total=parse_memory(section.memory),
        per_organization=parse_memory(section.memory_per_organization),
        per_principal=parse_memory(section.memory_per_principal),
    )


def _peer_rule(role: UnixRole) -> PeerRule:
    try:
        uid = uid_of(role.user) if role.user is not None else role.uid
        gid = gid_of(role.group) if role.group is not None else role.gid
    except KeyError as error:
        raise ConfigurationError([f"access.unix_roles: {error.args[0]}"]) from None
    return PeerRule(organization=role.organization, role=role.role, uid=uid, gid=gid)


def tokens_of(section: OidcSection, directory: Directory) -> Tokens | None:
    """Return who the bearers of the issuer's tokens are; None without an issuer."""
    if section.issuer is None:
        return None
    from prsmd.service.oidc import ClaimRule, OidcSettings, OidcTokens  # noqa: PLC0415 - only where used

    made = OidcSettings(
        issuer=section.issuer,
        audience=section.audience,
        jwks_url=section.jwks_url,
        jwks_file=section.jwks_file,
        algorithms=section.algorithms,
        subject_claim=section.subject_claim,
        leeway_seconds=section.leeway_seconds,
        rules=[ClaimRule(**rule.model_dump()) for rule in section.rules],
    )
    return OidcTokens(made, directory)


async def _tell_of_another(
    pepper: bytes, directory: Directory, database: Database, organization: str
) -> None:
    """Have it in the log, and on record, where another pepper is there than at the last start."""
    name = key_digest(pepper, _PEPPER).hex()
    async with database.read() as tx:
        known = await meta.get(tx, _PEPPER)
    if known == name:
        return
    another = known is not None and directory.has_keys
    if another:
        log.error(
            "pepper is another one than at the last start: an API key is good only with the pepper"
            " that it was made with. Put that one back, or make the keys anew"
        )
    record = own_record(time.time(), organization, "access.pepper", "pepper", {})

    async def write(tx: Tx) -> None:
        await meta.set(tx, _PEPPER, name)
        if another:
            await audit.append(tx, record)

    try:
        await database.write(write)
    except PrsmdError as error:
        log.warning("which pepper is in use is not noted: %s", error.message)


def _pepper(settings: Settings, directory: Directory) -> bytes:
    """Return the key of the stored key digests. ConfigurationError where it was lost."""
    needed = "without it none of the API keys that are stored is good" if directory.has_keys else ""
    access = settings.access
    return keyfiles.secret("pepper", access.pepper_file, settings.daemon.state_dir, needed)
