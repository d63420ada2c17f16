"""A usage file that fails costs no inference and no daemon; one of control, no truth."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import SETTINGS, small
from tests.support.daemon import Daemon, running_daemon

AUDIT = "/v1/audit?log=inferences&limit=100"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {**SETTINGS, "audit.flush_seconds": "0.05"}
    with running_daemon(tmp_path_factory.mktemp("failing"), settings) as started:
        started.until_ready(started.deploy(small("steady")), 1)
        yield started


def state(daemon: Daemon, name: str) -> Path:
    return daemon.folder / "state" / name


def infer(daemon: Daemon, name: str) -> None:
    answer = daemon.infer("custom_steady", {"text": "x"}, headers={"X-Request-ID": name})
    assert answer.status == 200, answer


def on_record(daemon: Daemon) -> set[Any]:
    answer = daemon.call("GET", AUDIT)
    return {r["request_id"] for r in answer.json["records"]} if answer.status == 200 else set()


def metric(daemon: Daemon, name: str) -> float:
    lines = daemon.call("GET", "/metrics").raw.decode().splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return float(value)


def test_inferences_go_on_without_the_usage_file_and_are_on_record_when_it_is_back(
    daemon: Daemon,
) -> None:
    infer(daemon, "before")
    daemon.until("it is on record", lambda: "before" in on_record(daemon))
    state(daemon, "usage.db").unlink()
    state(daemon, "usage.db").mkdir()
    names = {f"during-{number}" for number in range(20)}
    for name in sorted(names):
        infer(daemon, name)
    daemon.until("it is seen", lambda: metric(daemon, "prsmd_audit_writable") == 0.0)
    assert daemon.call("GET", "/readyz").status == 200
    refused = daemon.call("GET", AUDIT)
    assert (refused.status, refused.json["error"]["code"]) == (507, "STORAGE_FULL"), refused
    assert daemon.call("GET", "/v1/audit").status == 200
    state(daemon, "usage.db").rmdir()
    daemon.until("all are on record", lambda: names <= on_record(daemon))
    assert metric(daemon, "prsmd_audit_writable") == 1.0
    assert metric(daemon, "prsmd_audit_lost_total") == 0.0


def test_without_the_control_file_changes_are_refused_and_none_is_half_done(daemon: Daemon) -> None:
    path, aside = state(daemon, "control.db"), daemon.folder / "aside.db"
    path.rename(aside)
    answer = daemon.call("POST", "/v1/secrets", {"name": "token", "value": "hush"})
    assert answer.status == 507, answer
    assert "removed or replaced" in answer.json["error"]["message"]
    assert daemon.call("GET", "/readyz").status == 503
    infer(daemon, "without-control")
    aside.rename(path)
    assert daemon.call("GET", "/readyz").status == 200
    assert daemon.call("GET", "/v1/secrets").json["secrets"] == []
    made = daemon.call("POST", "/v1/secrets", {"name": "token", "value": "hush"})
    assert made.status == 201, made
    with sqlite3.connect(path) as connection:
        found = "SELECT count(*) FROM audit WHERE action LIKE 'secret%'"
        assert connection.execute(found).fetchone() == (1,)
    connection.close()
    daemon.kill()
    daemon.start()
    assert len(daemon.call("GET", "/v1/secrets").json["secrets"]) == 1
