"""Every setting that is reloaded takes effect in the part that has it."""

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from prsmd.api.connections import Patience
from prsmd.config import ConfigurationError, load
from prsmd.core.connection_limits import (
    CONNECTIONS,
    CONNECTIONS_OF_PRINCIPAL,
    STREAMS_OF_PRINCIPAL,
    UNIDENTIFIED,
    UNIDENTIFIED_OF_ADDRESS,
    Scope,
)
from prsmd.core.write_progress import WriteLimits
from prsmd.domain.errors import InvalidApiKeyError
from prsmd.domain.resource_quota import Dimension, parse_amount
from prsmd.listeners import Certificate
from prsmd.reload import Reloader, flat
from prsmd.reloadable import QUOTA, RELOADED, parts_of
from prsmd.service.caller import Caller
from prsmd.service.keys import KeyRequest
from prsmd.service.oidc import OidcTokens
from prsmd.settings import Settings
from prsmd.store import audit, resource_quotas
from tests.test_assembly import assembled, settings


def bound_of(appliance: Any, kind: str) -> int:
    return appliance.door.connection_limits.bound_of(Scope(kind)).limit


# What each setting is changed to, and where it can then be seen (the certificate: on the wire).
SEEN: dict[str, tuple[Any, Any, Any]] = {
    "daemon.log_level": ("debug", lambda a: logging.getLogger().level, logging.DEBUG),
    "daemon.log_format": (
        "json",
        lambda a: type(logging.getLogger().handlers[0].formatter).__name__,
        "JsonFormatter",
    ),
    "daemon.access_log": ("all", lambda a: a.door.lines._which, "all"),
    "tcp.allowed_hosts": (["elsewhere"], lambda a: a.door.hosts, {"elsewhere"}),
    "tcp.trusted_proxies": (["10.0.0.0/8"], lambda a: a.door.proxies.networks, ("10.0.0.0/8",)),
    "tcp.proxy_header": ("Forwarded", lambda a: a.door.proxies.header, "Forwarded"),
    "limits.body": ("1Mi", lambda a: a.door.body_bytes, 2**20),
    "limits.memory": ("512Mi", lambda a: held(a).total, 2**29),
    "limits.memory_per_organization": ("97Mi", lambda a: held(a).per_organization, 97 * 2**20),
    "limits.memory_per_principal": ("95Mi", lambda a: held(a).per_principal, 95 * 2**20),
    "limits.body_timeout_seconds": (3, lambda a: a.door.body_seconds, 3),
    "limits.header": ("8Ki", lambda a: (a.door.header_bytes, a.patience.header_bytes), 8192),
    "limits.header_timeout_seconds": (4, lambda a: a.patience.header_seconds, 4),
    "limits.idle_timeout_seconds": (5, lambda a: a.patience.idle_seconds, 5),
    "limits.write_timeout_seconds": (6, lambda a: a.patience.write.timeout_seconds, 6),
    "limits.write_rate": ("2Ki", lambda a: a.patience.write.bytes_per_second, 2048),
    "limits.connections": (7, lambda a: bound_of(a, CONNECTIONS), 7),
    "limits.connections_per_principal": (8, lambda a: bound_of(a, CONNECTIONS_OF_PRINCIPAL), 8),
    "limits.connections_unidentified": (9, lambda a: bound_of(a, UNIDENTIFIED), 9),
    "limits.connections_unidentified_per_address": (
        10,
        lambda a: bound_of(a, UNIDENTIFIED_OF_ADDRESS),
        10,
    ),
    "limits.streams_per_principal": (11, lambda a: bound_of(a, STREAMS_OF_PRINCIPAL), 11),
    "limits.response": ("2Mi", lambda a: a.gateway._upstream._settings.max_answer_bytes, 2**21),
    "access.unix_roles": (
        [{"uid": 4711, "organization": "lab", "role": "viewer"}],
        lambda a: a.entrance.access.peers.identify(4711, 4711).principal.organization,
        "lab",
    ),
    "images.allowed_registries": (["docker.io"], lambda a: a.provisions.rules.registries, None),
    "images.require_digest": (True, lambda a: a.provisions.rules.require_digest, True),
    "images.keep_revisions": (7, lambda a: stock(a).keep_revisions, 7),
    "images.min_free": ("1Gi", lambda a: stock(a).min_free_bytes, 2**30),
    "images.max_archive": ("1Gi", lambda a: stock(a).max_archive_bytes, 2**30),
    "images.pull_attempts": (9, lambda a: a.parts.launcher.stock._puller.attempts, 9),
    "runtime.classes": (["runsc"], lambda a: a.provisions.rules.runtime_classes, ("runsc",)),
    "security.allow_egress": (["lab"], lambda a: a.provisions.rules.egress, {"lab"}),
    "security.allow_writable_root": (["lab"], lambda a: a.provisions.rules.writable_root, {"lab"}),
    "engine.tick_seconds": (2, lambda a: a.reconciler._tick_seconds, 2),
    "engine.drain_timeout_seconds": (3, lambda a: a.reconciler._policy.drain_timeout_seconds, 3),
    "engine.liveness_failures": (6, lambda a: a.reconciler._policy.liveness_failures, 6),
    "engine.probe_seconds": (7, lambda a: a.parts.prober._settings.interval_seconds, 7),
    "engine.probe_timeout_seconds": (8, lambda a: a.parts.prober._settings.timeout_seconds, 8),
    "node.cpu_reserved": ("2", lambda a: a.parts.observer._limits.cpu_reserved_millis, 2000),
    "node.memory_reserved": (
        "1Gi",
        lambda a: a.parts.observer._limits.memory_reserved_bytes,
        2**30,
    ),
    "autoscale.tolerance": (0.3, lambda a: a.autoscaler._settings.tolerance, 0.3),
    "autoscale.down_window_seconds": (9, lambda a: a.autoscaler._settings.down_window_seconds, 9),
    "oidc.audience": ("us", lambda a: oidc(a).audience, "us"),
    "oidc.jwks_url": ("https://x.org/k", lambda a: oidc(a).jwks_url, "https://x.org/k"),
    "oidc.algorithms": (["EdDSA"], lambda a: oidc(a).algorithms, ("EdDSA",)),
    "oidc.subject_claim": ("email", lambda a: oidc(a).subject_claim, "email"),
    "oidc.leeway_seconds": (5, lambda a: oidc(a).leeway_seconds, 5),
    "oidc.issuer": ("https://y.org", lambda a: oidc(a).issuer, "https://y.org"),
    "oidc.jwks_file": ("/etc/keys", lambda a: oidc(a).jwks_file, Path("/etc/keys")),
    "oidc.rules": (
        [{"claim": "c", "value": "v", "organization": "lab", "role": "viewer"}],
        lambda a: [rule.value for rule in oidc(a).rules],
        ["v"],
    ),
}
ON_THE_WIRE = {"tcp.cert", "tcp.key"}  # tests/daemon/test_reload.py
IN_FILES = {"images.trusted_keys", "images.signed_lists"}
ISSUER = {"issuer": "https://x.org", "jwks_url": "https://x.org/keys"}


def stock(appliance):
    return appliance.parts.launcher.stock.settings


def held(appliance):
    return appliance.entrance.memory.limits


def oidc(appliance):
    tokens = appliance.entrance.access.tokens
    assert isinstance(tokens, OidcTokens)
    return tokens._settings


class Running:
    """An appliance with a settings file that can be written and reloaded."""

    def __init__(self, appliance, folder: Path, given: Settings) -> None:
        self.file = folder / "prsmd.toml"
        self.given = given
        self.appliance = appliance
        patience = Patience(
            write=WriteLimits(60.0, 1024), header_seconds=1, idle_seconds=1, header_bytes=1
        )
        self.patience = patience
        parts = parts_of(appliance, patience, Certificate(given.tcp))
        self.reloader = Reloader(given, self.read, parts, appliance.database)

    def read(self) -> Settings:
        return load(self.file, {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.appliance, name)

    async def reload(self, changes: dict[str, Any]) -> None:
        """Write all settings with these changes to the file, and have them read."""
        wanted = flat(self.given) | changes
        self.file.write_text(
            "".join(
                f"{name} = {_toml(value)}\n" for name, value in wanted.items() if value is not None
            )
        )
        await self.reloader.reload()

    async def recorded(self) -> list[Any]:
        async with self.appliance.database.read() as tx:
            records, _ = await audit.page(tx, None, 100, 0)
        return [record for record in records if record.action == "settings.reload"]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{key} = {_toml(each)}" for key, each in value.items() if each is not None)
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


class Lines(logging.Handler):
    """What the daemon logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def logged():
    """The lines of the daemon's log; logging itself is as it was afterwards."""
    root, own, lines = logging.getLogger(), logging.getLogger("prsmd"), Lines()
    before, level = list(root.handlers), root.level
    own.addHandler(lines)
    own.setLevel(logging.INFO)
    root.handlers.clear()  # a reload closes what it replaces
    yield lines
    own.removeHandler(lines)
    own.setLevel(logging.NOTSET)
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
async def running(tmp_path, logged):
    given = settings(tmp_path / "state", oidc=ISSUER)
    async with assembled(given) as appliance:
        yield Running(appliance, tmp_path, given)


def test_every_setting_that_is_reloaded_is_seen_to_take_effect():
    assert set(SEEN) | ON_THE_WIRE | IN_FILES | set(QUOTA) == RELOADED


@pytest.mark.parametrize("name", sorted(SEEN))
async def test_a_setting_that_is_reloaded_takes_effect(running, logged, name):
    value, look, expected = SEEN[name]
    if name == "images.allowed_registries":
        expected = ("docker.io",)
    await running.reload({name: value})

    seen = look(running)
    values = seen if name == "limits.header" else (seen,)
    assert all(each == expected for each in values)
    lines = [line for line in logged.messages if line.startswith(f"{name}: ")]
    assert len(lines) == 1
    assert " -> " in lines[0]
    assert "needs a restart" not in lines[0]


async def test_what_needs_a_restart_is_named_each_time_and_changes_nothing(running, logged):
    for _ in range(2):
        await running.reload({"tcp.port": 8443, "limits.body": "1Mi"})

    lines = [line for line in logged.messages if line.startswith("tcp.port")]
    assert lines == ["tcp.port: 7443 -> 8443 needs a restart"] * 2
    assert [line for line in logged.messages if line.startswith("limits.body")] == [
        "limits.body: 16Mi -> 1Mi"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits.body = 16Mi", "Expected newline"),
        ("limits.bodi = '16Mi'", "limits.bodi: unknown key; did you mean body?"),
        ("limits.body = 'much'\naccess.unix_roles = []", "limits.body: "),
    ],
)
async def test_an_invalid_file_changes_nothing_and_is_told_as_check_tells_it(
    running, logged, text, problem
):
    running.file.write_text(f"engine.tick_seconds = 1\n{text}\n")
    with pytest.raises(ConfigurationError) as refusal:
        load(running.file, {})
    await running.reloader.reload()

    told = [f"settings not reloaded: {each}" for each in refusal.value.problems]
    assert [line for line in logged.messages if line in told] == told
    assert problem in "".join(told)
    assert running.reconciler._tick_seconds == running.given.engine.tick_seconds
    [record] = await running.recorded()
    assert record.outcome == "failed"
    assert record.details["problems"] == list(refusal.value.problems)


async def test_a_reload_is_on_record_with_what_it_changed(running):
    await running.reload({"limits.body": "1Mi", "node.name": "other"})

    [record] = await running.recorded()
    assert (record.outcome, record.subject, record.details["by"]) == (
        "allowed",
        "settings",
        "SIGHUP",
    )
    assert record.details["changed"] == ["limits.body: 16Mi -> 1Mi"]
    assert record.details["restart"] == ["node.name"]


async def test_a_part_that_cannot_take_its_new_values_keeps_its_own_and_others_take_theirs(
    running, logged
):
    before = running.entrance.access.peers._rules
    role = {"user": "nobody-knows-this-user", "organization": "lab", "role": "viewer"}
    await running.reload({"access.unix_roles": [role], "limits.body": "1Mi"})

    assert running.entrance.access.peers._rules == before
    assert running.door.body_bytes == 2**20
    assert any("access.unix_roles: " in line and "stays" in line for line in logged.messages)
    [record] = await running.recorded()
    assert record.details["failed"] == ["access.unix_roles"]


async def test_a_part_that_fails_in_any_way_is_told_and_others_take_theirs(
    running, logged, monkeypatch
):
    def fail(*_):
        raise RecursionError("too deep")

    monkeypatch.setattr("prsmd.reloadable.peer_rules", fail)
    role = {"uid": 4711, "organization": "lab", "role": "viewer"}
    await running.reload(
        {"access.unix_roles": [role], "limits.body": "1Mi", "limits.response": "2Mi"}
    )

    assert running.door.body_bytes == 2**20
    assert running.gateway._upstream._settings.max_answer_bytes == 2**21
    [record] = await running.recorded()
    assert (record.outcome, record.details["failed"]) == ("failed", ["access.unix_roles"])
    assert any("access.unix_roles: failed" in line for line in logged.messages)


async def test_an_organization_that_a_reload_names_is_there_at_once(running):
    role = {"uid": 4711, "organization": "lab", "role": "owner"}
    await running.reload({"access.unix_roles": [role]})

    principal = running.entrance.access.peers.identify(4711, 4711).principal
    assert running.entrance.directory.organization("lab") is not None
    made, _ = await running.services.keys.create(
        Caller(principal, "req_1"), KeyRequest(name="k", role="viewer")
    )
    assert made.organization == "lab"


async def test_a_revoked_role_ends_what_is_under_way_and_another_ones_goes_on(running):
    roles = [{"uid": uid, "organization": "lab", "role": "viewer"} for uid in (4711, 4712)]
    await running.reload({"access.unix_roles": roles})
    access, underway = running.entrance.access, running.entrance.underway
    begun, stays = asyncio.Event(), asyncio.Event()

    async def follow(uid, event):
        async with underway.watch(access.by_peer(uid, uid)):
            event.set()
            await asyncio.Event().wait()

    revoked = asyncio.create_task(follow(4711, begun), name="revoked")
    kept = asyncio.create_task(follow(4712, stays), name="kept")
    await begun.wait()
    await stays.wait()
    await running.reload({"access.unix_roles": roles[1:]})

    with pytest.raises(InvalidApiKeyError):
        await revoked
    assert not kept.done()
    kept.cancel()


async def test_without_an_issuer_tokens_that_were_taken_are_good_no_more(running):
    tokens = running.entrance.access.tokens
    await running.reload({"oidc.issuer": None, "oidc.jwks_url": None})

    assert running.entrance.access.tokens is None
    assert tokens._ended


def _key_set(path: Path, secret: ec.EllipticCurvePrivateKey) -> None:
    listed = jwt.get_algorithm_by_name("ES256").to_jwk(secret.public_key(), as_dict=True)
    path.write_text(json.dumps({"keys": [{**listed, "kid": "k", "alg": "ES256"}]}))


async def test_a_key_that_the_issuer_withdrew_is_good_no_longer_than_to_the_reload(
    running, tmp_path, logged
):
    secret, keys = ec.generate_private_key(ec.SECP256R1()), tmp_path / "jwks.json"
    _key_set(keys, secret)
    rule = {"claim": "sub", "value": "ann", "organization": "company", "role": "viewer"}
    changes = {
        "oidc.jwks_url": None,
        "oidc.jwks_file": str(keys),
        "oidc.audience": "us",
        "oidc.rules": [rule],
    }
    await running.reload(changes)
    body = {"iss": ISSUER["issuer"], "aud": "us", "sub": "ann", "exp": time.time() + 600}
    token = jwt.encode(body, secret, "ES256", headers={"kid": "k"})
    found = await running.entrance.access.by_credential(token, None)

    await running.reload(changes)
    assert found.again().principal.id == "oidc:ann"
    _key_set(keys, ec.generate_private_key(ec.SECP256R1()))
    await running.reload(changes)
    assert "oidc.jwks_file: reloaded" in logged.messages
    with pytest.raises(InvalidApiKeyError):
        await running.entrance.access.by_credential(token, None)
    with pytest.raises(InvalidApiKeyError):
        found.again()


async def test_lists_of_signed_images_hold_from_the_reload_on(running, tmp_path, logged):
    assert running.provisions.signed.refusal({"x@sha256:1"}) is None
    await running.reload({"images.trusted_keys": ["/nowhere"], "images.signed_lists": ["/none"]})
    assert running.provisions.signed.refusal({"x@sha256:1"}) is None
    assert any("images.trusted_keys" in line and "stays" in line for line in logged.messages)

    keys = tmp_path / "state" / "audit-public-keys.pem"
    changes = {"images.trusted_keys": [str(keys)], "images.signed_lists": ["/none"]}
    await running.reload(changes)
    assert "signed_lists" in running.provisions.signed.refusal({"x@sha256:1"})


@pytest.mark.parametrize("name", QUOTA)
async def test_a_default_quota_holds_from_the_reload_on(running, logged, name):
    value = "8Ki" if name == "quota.environment_per_model" else 3
    await running.reload({name: value})

    dimension = Dimension(name.removeprefix("quota."))
    async with running.appliance.database.read() as tx:
        found = await resource_quotas.limits(tx, "default")
    assert found[dimension].hard == parse_amount(dimension, value)
    assert any(line.startswith(f"{name}: ") for line in logged.messages)


async def test_a_file_that_is_as_it_was_changes_nothing(running, logged):
    await running.reload({})

    assert "settings reloaded: 0 changed, 0 failed, 0 need a restart" in logged.messages


async def test_a_state_that_cannot_be_written_is_no_reason_not_to_reload(tmp_path, logged):
    given = settings(tmp_path / "state")
    async with assembled(given) as appliance:
        running = Running(appliance, tmp_path, given)
        (tmp_path / "state" / "control.db").rename(tmp_path / "elsewhere")
        await running.reload({"limits.body": "1Mi"})
        assert running.door.body_bytes == 2**20
        (tmp_path / "elsewhere").rename(tmp_path / "state" / "control.db")
