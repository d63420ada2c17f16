"""Which settings a running daemon takes anew, and the part that takes each; others need a restart.

A part takes all of its settings at once, or keeps those that it has.
"""

import dataclasses
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

from prsmd import journal, sections
from prsmd.api.connections import Patience
from prsmd.assembly import Appliance
from prsmd.connection_bounds import apply_bounds, write_limits_of
from prsmd.domain.quantity import parse_memory
from prsmd.entrance import (
    Entrance,
    apply_to_door,
    ensure_organizations,
    memory_limits,
    peer_rules,
    tokens_of,
)
from prsmd.listeners import Certificate
from prsmd.service.resource_quotas import ensure_defaults
from prsmd.settings import QuotaSection, Settings
from prsmd.vault import rules_of, signed_of

LOG = ("daemon.log_level", "daemon.log_format")
CERTIFICATE = ("tcp.cert", "tcp.key")
DOOR = (
    *("tcp.allowed_hosts", "tcp.trusted_proxies", "tcp.proxy_header", "daemon.access_log"),
    *("limits.body", "limits.body_timeout_seconds", "limits.header"),
    *("limits.header_timeout_seconds", "limits.idle_timeout_seconds"),
    *("limits.memory", "limits.memory_per_organization", "limits.memory_per_principal"),
    *("limits.write_timeout_seconds", "limits.write_rate", "limits.connections"),
    *("limits.connections_per_principal", "limits.connections_unidentified"),
    *("limits.connections_unidentified_per_address", "limits.streams_per_principal"),
)
PEERS = ("access.unix_roles",)
TOKENS = (
    *("oidc.issuer", "oidc.audience", "oidc.jwks_url", "oidc.jwks_file", "oidc.algorithms"),
    *("oidc.subject_claim", "oidc.leeway_seconds", "oidc.rules"),
)
RULES = (
    *("images.allowed_registries", "images.require_digest", "runtime.classes"),
    *("security.allow_egress", "security.allow_writable_root"),
)
SIGNED = ("images.trusted_keys", "images.signed_lists")
STOCK = ("images.keep_revisions", "images.min_free", "images.max_archive", "images.pull_attempts")
ANSWERS = ("limits.response",)
LOOP = ("engine.tick_seconds", "engine.drain_timeout_seconds", "engine.liveness_failures")
PROBES = ("engine.probe_seconds", "engine.probe_timeout_seconds")
NODE = ("node.cpu_reserved", "node.memory_reserved")
QUOTA = tuple(f"quota.{name}" for name in QuotaSection.model_fields)
AUTOSCALE = ("autoscale.tolerance", "autoscale.down_window_seconds")

RELOADED = frozenset(
    (
        *(*LOG, *CERTIFICATE, *DOOR, *PEERS, *TOKENS, *RULES, *SIGNED, *STOCK),
        *(*QUOTA, *ANSWERS, *LOOP, *PROBES, *NODE, *AUTOSCALE),
    )
)
# What is bound, opened, sized or signed once; a setting that stands nowhere needs a restart too.
RESTART = frozenset(
    (
        *("daemon.state_dir", "daemon.stop_timeout_seconds"),
        *("unix.path", "unix.mode", "unix.group"),
        *("tcp.enabled", "tcp.host", "tcp.port", "tcp.allow_plaintext", "tcp.public_url"),
        *("access.organization", "access.pepper_file", "access.audit_key_file"),
        *("access.envelope_key_file", "access.previous_envelope_key_file"),
        *("access.audit_former_keys", "access.audit_former_key_file", "audit.checkpoint_copy"),
        *("audit.inferences", "audit.keep_days", "audit.keep_bytes", "audit.inferences_keep_days"),
        *("audit.inferences_keep_bytes", "audit.checkpoint_records", "audit.checkpoint_seconds"),
        *("audit.flush_seconds", "audit.summary_seconds", "audit.denials_per_minute"),
        *("audit.denials_keep_days", "audit.denials_keep_bytes"),
        *("access.failed_attempts_per_minute", "limits.query_seconds"),
        *("limits.readers", "limits.reads_waiting"),
        *("runtime.name", "runtime.docker_url", "runtime.timeout_seconds", "runtime.bundle_dirs"),
        *("runtime.network_prefix", "runtime.secrets_dir", "runtime.default_class"),
        *("runtime.stop_grace_seconds", "node.name", "autoscale.interval_seconds"),
        *("gpus.sample_seconds", "gpus.deadline_seconds"),
    )
)

Apply = Callable[[Settings], Awaitable[Collection[str]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What takes settings while the daemon runs.

    `apply` takes what the settings say by now, and returns the settings that name files whose
    content is another. It raises ConfigurationError or PrsmdError where it cannot, and then
    changed nothing.
    """

    names: tuple[str, ...]
    apply: Apply
    reads_files: bool = False


def parts_of(
    appliance: Appliance, patience: Patience, certificate: Certificate
) -> tuple[Part, ...]:
    """Return the parts of a daemon that runs."""
    return (
        Part(LOG, _log),
        Part(CERTIFICATE, _certificate(certificate), reads_files=certificate.context is not None),
        Part(DOOR, _door(appliance, patience)),
        Part(PEERS, _peers(appliance)),
        Part(TOKENS, _tokens(appliance)),
        Part((), _keys_of_tokens(appliance), reads_files=True),
        Part(QUOTA, _quota(appliance)),
        *_loops(appliance),
        *_images(appliance),
    )


def _at_once(take: Callable[[Settings], None]) -> Apply:
    async def apply(settings: Settings) -> Collection[str]:
        take(settings)
        return ()

    return apply


async def _log(settings: Settings) -> Collection[str]:
    journal.configure(settings.daemon.log_level, settings.daemon.log_format)
    return ()


def _certificate(certificate: Certificate) -> Apply:
    async def apply(settings: Settings) -> Collection[str]:
        return CERTIFICATE if certificate.apply(settings.tcp) else ()

    return apply


def _door(appliance: Appliance, patience: Patience) -> Apply:
    def take(settings: Settings) -> None:
        apply_to_door(appliance.door, settings)
        appliance.entrance.memory.limits = memory_limits(settings.limits)
        patience.header_seconds = settings.limits.header_timeout_seconds
        patience.idle_seconds = settings.limits.idle_timeout_seconds
        patience.header_bytes = parse_memory(settings.limits.header)
        patience.write = write_limits_of(settings.limits)
        apply_bounds(appliance.door.connection_limits, settings.limits)

    return _at_once(take)


def _peers(appliance: Appliance) -> Apply:
    async def apply(settings: Settings) -> Collection[str]:
        rules = peer_rules(settings.access)
        await _have_organizations(appliance, settings)
        appliance.entrance.access.peers.apply(rules)
        appliance.entrance.underway.look_again()
        return ()

    return apply


async def _have_organizations(appliance: Appliance, settings: Settings) -> None:
    for made in await ensure_organizations(settings, appliance.database):
        appliance.entrance.directory.put_organization(made)


def _tokens(appliance: Appliance) -> Apply:
    async def apply(settings: Settings) -> Collection[str]:
        entrance = appliance.entrance
        await _have_organizations(appliance, settings)
        _replace_tokens(entrance, settings)
        return ()

    return apply


def _keys_of_tokens(appliance: Appliance) -> Apply:
    """What was proven with a key that the issuer withdrew ends with it."""

    async def apply(settings: Settings) -> Collection[str]:
        entrance = appliance.entrance
        tokens = entrance.access.tokens
        if tokens is None or not await tokens.read_keys_again():
            return ()
        _replace_tokens(entrance, settings)
        return ("oidc.jwks_file" if settings.oidc.jwks_file is not None else "oidc.jwks_url",)

    return apply


def _replace_tokens(entrance: Entrance, settings: Settings) -> None:
    before = entrance.access.tokens
    entrance.access.tokens = tokens_of(settings.oidc, entrance.directory)
    if before is not None:
        before.end()
        entrance.underway.look_again()


def _quota(appliance: Appliance) -> Apply:
    async def apply(settings: Settings) -> Collection[str]:
        await ensure_defaults(appliance.database, settings.quota.hard, time.time())
        async with appliance.database.read() as tx:
            await appliance.entrance.limits.load(tx)
        return ()

    return apply


def _loops(appliance: Appliance) -> Sequence[Part]:
    parts, reconciler = appliance.parts, appliance.reconciler

    def loop(settings: Settings) -> None:
        reconciler.apply(sections.policy(settings.engine), settings.engine.tick_seconds)

    return (
        Part(ANSWERS, _at_once(lambda s: appliance.gateway.apply(sections.answer_bytes(s.limits)))),
        Part(LOOP, _at_once(loop)),
        Part(PROBES, _at_once(lambda s: parts.prober.apply(sections.probing(s.engine)))),
        Part(NODE, _at_once(lambda s: parts.observer.apply(sections.node(s.node)))),
        Part(
            AUTOSCALE,
            _at_once(lambda s: appliance.autoscaler.apply(sections.autoscaling(s.autoscale))),
        ),
    )


def _images(appliance: Appliance) -> Sequence[Part]:
    stock, provisions = appliance.parts.launcher.stock, appliance.provisions
    seen: dict[Path, bytes] = {}

    async def signed(settings: Settings) -> Collection[str]:
        provisions.apply_signed(await signed_of(settings, appliance.database))
        files = {path: path.read_bytes() for path in settings.images.trusted_keys}
        changed = bool(seen) and files != seen
        seen.clear()
        seen.update(files)
        return ("images.trusted_keys",) if changed else ()

    return (
        Part(RULES, _at_once(lambda s: provisions.apply(rules_of(s)))),
        Part(SIGNED, signed, reads_files=True),
        Part(
            STOCK, _at_once(lambda s: stock.apply(sections.stock(s, stock.settings.retry_seconds)))
        ),
    )
