"""Whoever cannot say who they are is slowed down, counted, logged and on record; others are not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.core.apikey import format_key
from tests.api.conftest import SETTINGS, small
from tests.api.wire import exchange
from tests.support.daemon import Daemon, running_daemon

LIMIT = 5


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    settings = {
        **SETTINGS,
        "access.failed_attempts_per_minute": str(LIMIT),
        "audit.denials_per_minute": "2",
        "tcp.trusted_proxies": '["127.0.0.1/32"]',
    }
    with running_daemon(tmp_path, settings) as started:
        yield started


def ask(daemon: Daemon, address: str, header: str, path: str = "/v1/custom-models") -> Any:
    """Ask from an address; return the status and the headers and body as text."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    raw = f"{head}X-Forwarded-For: {address}\r\n{header}\r\n".encode()
    answer = exchange(("127.0.0.1", daemon.tcp_port), raw).decode()
    return int(answer.split()[1]), answer


def guess(key: str) -> str:
    """A well-formed key of the same id with another secret."""
    return "X-API-Key: " + format_key(key.split("_")[1], "0" * 32) + "\r\n"


def counted(daemon: Daemon, reason: str) -> float:
    name = f'prsmd_authentication_failures_total{{reason="{reason}"}} '
    [line] = [
        each
        for each in daemon.call("GET", "/metrics").raw.decode().splitlines()
        if each.startswith(name)
    ]
    return float(line.removeprefix(name))


def denials(daemon: Daemon) -> list[Any]:
    answer = daemon.call("GET", "/v1/audit?log=denials&action=access.authenticate&limit=100")
    return list(reversed(answer.json["records"]))


def test_wrong_keys_are_slowed_down_by_address_with_the_time_to_wait(daemon: Daemon) -> None:
    key = daemon.key("owner")
    statuses = [ask(daemon, "192.0.2.1", guess(key))[0] for _ in range(LIMIT + 3)]
    assert statuses[:LIMIT] == [401] * LIMIT
    assert 429 in statuses[LIMIT:]
    tries = (ask(daemon, "192.0.2.1", "X-API-Key: nonsense\r\n") for _ in range(2 * LIMIT))
    text = next(text for status, text in tries if status == 429)
    assert 1 <= int(text.lower().split("retry-after: ")[1].split("\r\n")[0]) <= 60
    assert "RATE_LIMIT_EXCEEDED" in text


def test_who_holds_a_key_is_not_locked_out_by_who_guesses_it(daemon: Daemon) -> None:
    key = daemon.key("owner")
    right = f"Authorization: Bearer {key}\r\n"
    assert ask(daemon, "192.0.2.7", right)[0] == 200
    for n in range(3 * LIMIT):
        ask(daemon, f"192.0.2.{n % 9}", guess(key))
    assert ask(daemon, "198.51.100.1", right)[0] == 200  # from an address that never failed
    assert ask(daemon, "192.0.2.7", right)[0] == 200  # from one that did, where it was proven


@pytest.mark.parametrize(
    ("header", "reason", "subject"),
    [
        ("", "missing", "credential"),
        ("X-API-Key: prsm_\x7f\x1b\r\n", None, None),
        ("X-API-Key: prsm_abc_def\r\n", "malformed", "credential"),
        ("Authorization: Basic cHdk\r\n", "malformed", "credential"),
        ("Authorization: Bearer a.b.c\r\n", "invalid", "credential"),
        (f"X-API-Key: {format_key('x' * 2000, '0' * 32)}\r\n", "invalid", "credential"),
        (f"X-API-Key: {format_key('q' * 10, '0' * 32)}\r\n", "invalid", "key:qqqqqqqqqq"),
    ],
)
def test_each_failure_is_counted_logged_and_on_record(
    daemon: Daemon, header: str, reason: str | None, subject: str | None
) -> None:
    if reason is None:
        assert ask(daemon, "192.0.2.1", header)[0] in {400, 401}
        return
    assert ask(daemon, "192.0.2.1", header)[0] == 401
    assert counted(daemon, reason) == 1
    [record] = denials(daemon)
    assert (record["subject"], record["address"]) == (subject, "192.0.2.1")
    assert (record["principal"], record["outcome"]) == ("anonymous", "denied")
    assert record["details"]["reason"] == reason
    lines = [line for line in daemon.log.splitlines() if "authentication failed" in line]
    assert len(lines) == 1
    assert "192.0.2.1" in lines[0]
    assert str(subject) in lines[0]
    assert "0" * 32 not in daemon.log + json.dumps(record)
    assert "cHdk" not in daemon.log


def test_a_flood_of_failures_is_a_few_records_and_lines_and_one_count(daemon: Daemon) -> None:
    key = daemon.key("owner", "rival")
    for _ in range(40):
        ask(daemon, "192.0.2.1", guess(key))
        ask(daemon, "192.0.2.2", "")
    assert 4 <= len(denials(daemon)) < 20
    assert denials(daemon)[0]["organization"] == "rival"
    assert LIMIT <= counted(daemon, "invalid") < 20
    assert counted(daemon, "throttled") == 40 - counted(daemon, "invalid")
    assert counted(daemon, "missing") == 40
    assert len(daemon.log.splitlines()) < 100


def test_who_changes_addresses_within_their_network_has_one_share_of_the_log(
    daemon: Daemon,
) -> None:
    for n in range(40):
        assert ask(daemon, f"2001:db8::{n:x}", "")[0] == 401
    assert len(denials(daemon)) == 2
    assert counted(daemon, "missing") == 40


def test_who_names_an_organization_of_others_is_on_record_and_learns_nothing(
    daemon: Daemon,
) -> None:
    key = daemon.key("viewer", "acme")
    daemon.key("viewer", "rival")
    for path in ("/v1/models", "/v1/audit?follow=true", "/v1/auth/me"):
        for name in ("rival", "nowhere", "company"):
            answer = daemon.call("GET", path, key=key, headers={"X-PRSMD-Organization": name})
            assert answer.status == 403
    assert daemon.stop() == 0  # writes the counts
    daemon.start()
    found = daemon.call("GET", "/v1/audit?log=denials&action=access.act_for&limit=100").json
    assert sum(each["details"].get("requests", 1) for each in found["records"]) == 9
    for each in found["records"]:
        assert each["principal"] == "key:" + key.split("_")[1]
        assert each["organization"] == "acme"
        assert each["subject"].startswith("organization:")


def test_who_names_an_organization_of_others_is_counted_in_the_limits_of_the_key(
    daemon: Daemon,
) -> None:
    wish = {"name": "test", "role": "viewer", "requests_per_day": 3}
    key = daemon.call("POST", "/v1/api-keys", wish).json["key"]
    foreign = {"X-PRSMD-Organization": "rival"}
    asked = [daemon.call("GET", "/v1/models", key=key, headers=foreign) for _ in range(4)]
    assert [answer.status for answer in asked] == [403, 403, 403, 429]
    assert daemon.call("GET", "/v1/models", key=key).status == 429


def test_being_denied_leaves_the_log_of_changes_alone_and_its_count_is_kept(
    daemon: Daemon,
) -> None:
    viewer = daemon.key("viewer")
    before = daemon.call("GET", "/v1/audit?limit=1").json["total"]
    for n in range(200):
        daemon.call("DELETE", f"/v1/custom-models/none-{n}", key=viewer)
        daemon.call("POST", "/v1/custom-models/deploy", small("x"), key=viewer)
    assert daemon.call("GET", "/v1/audit?limit=1").json["total"] == before
    whole = daemon.call("GET", "/v1/audit?outcome=denied").json
    assert {each["action"] for each in whole["records"]} == {"models.delete", "models.deploy"}
    assert 4 <= whole["total"] < 20
    assert daemon.stop() == 0
    daemon.start()
    records = daemon.call("GET", "/v1/audit?outcome=denied&limit=100").json["records"]
    assert sum(each["details"].get("requests", 1) for each in records) == 400
    verdict = daemon.call("GET", "/v1/audit/verify?log=denials").json
    assert verdict["whole"], verdict
    assert verdict["signed_through"] == verdict["last"] >= 6
