"""The audit of a whole daemon: queried, followed, verified here and on a machine without one."""

import contextlib
import http.client
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.core.signing import Signer
from tests.api.conftest import SETTINGS, small
from tests.support.daemon import ROOT, Daemon, UnixConnection, running_daemon

AUDIT = "/v1/audit"
PAYLOAD = "a sentence that must not be in any audit"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("audited")
    settings = {**SETTINGS, "audit.flush_seconds": "0.05", "audit.checkpoint_records": "5"}
    with running_daemon(folder, settings) as started:
        deployment = started.deploy(small("audited"))
        started.until_ready(deployment, 1)
        yield started


@pytest.fixture(scope="module")
def rival(daemon: Daemon) -> str:
    """An auditor of another organization, which has done something too."""
    owner = daemon.key("owner", "rival")
    started = daemon.call("POST", "/v1/custom-models/deploy", small("secretive"), key=owner)
    assert started.status == 202, started
    return daemon.key("auditor", "rival")


def records(daemon: Daemon, query: str = "", key: str | None = None) -> list[Any]:
    answer = daemon.call("GET", f"{AUDIT}?limit=100&{query}", key=key)
    assert answer.status == 200, answer
    return list(answer.json["records"])


def whole(daemon: Daemon, log: str = "changes") -> Any:
    answer = daemon.call("GET", f"{AUDIT}/verify?log={log}")
    assert answer.status == 200, answer
    return answer.json


def elsewhere(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run prsmctl as on a machine that has no daemon, no socket and no state."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "prsmd.cli.main", "audit", *arguments],
        check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def ctl(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return elsewhere(daemon.folder, *arguments, "--socket", str(daemon.socket))


def control(daemon: Daemon) -> Path:
    return daemon.folder / "state" / "control.db"


def tamper(daemon: Daemon, statement: str, name: str = "control.db") -> None:
    with sqlite3.connect(daemon.folder / "state" / name) as connection:
        connection.execute(statement)
    connection.close()


def test_what_was_done_is_on_record_newest_first(daemon: Daemon) -> None:
    daemon.scale(1, "audited")
    found = records(daemon)
    assert [r["sequence"] for r in found] == sorted((r["sequence"] for r in found), reverse=True)
    [scaled] = [r for r in found if r["action"] == "models.scale"][:1]
    assert scaled["principal"] == "uid:0"
    assert scaled["outcome"] == "allowed"
    assert scaled["details"]["target_replicas"] == 1
    page = daemon.call("GET", f"{AUDIT}?limit=1&offset=1").json
    assert page["records"] == found[1:2]
    assert page["has_more"] is (page["total"] > 2)


def test_filters_narrow_and_wrong_ones_are_named(daemon: Daemon) -> None:
    daemon.scale(1, "audited")
    assert {r["action"] for r in records(daemon, "action=models.*")} >= {"models.scale"}
    assert all(r["action"].startswith("models.") for r in records(daemon, "action=models.*"))
    assert records(daemon, "until=2020-01-01T00:00:00Z") == []
    assert records(daemon, "outcome=allowed&principal=nobody") == []
    for wrong in ("log=x", "since=x", "limit=0", "actoin=x", "subject="):
        assert daemon.call("GET", f"{AUDIT}?{wrong}").status == 400, wrong


def test_who_may_not_read_it_is_told_so_and_reads_nothing(daemon: Daemon) -> None:
    viewer = daemon.key("viewer")
    for path in ("", "/verify", "/export", "/public-key"):
        answer = daemon.call("GET", AUDIT + path, key=viewer)
        assert answer.status == 403, answer
        assert b"models.deploy" not in answer.raw


def test_another_organizations_auditor_sees_only_its_own(daemon: Daemon, rival: str) -> None:
    own = records(daemon, key=rival)
    assert {r["organization"] for r in own} == {"rival"}
    assert any(r["action"] == "models.deploy" for r in own)
    for name in ("company", "never-existed"):
        answer = daemon.call("GET", f"{AUDIT}?organization={name}", key=rival)
        assert (answer.status, answer.json["records"], answer.json["total"]) == (200, [], 0)
        assert daemon.call("GET", f"{AUDIT}/export?organization={name}", key=rival).status == 403
    seen = records(daemon, "organization=rival")
    assert [r["sequence"] for r in seen] == [r["sequence"] for r in own]


def test_an_inference_is_recorded_without_its_payload(daemon: Daemon, rival: str) -> None:
    answer = daemon.infer("custom_audited", {"text": PAYLOAD})
    assert answer.status == 200, answer
    headers = {"X-Request-ID": "denied-1"}
    denied = daemon.infer("custom_audited", {"text": PAYLOAD}, key=rival, headers=headers)
    assert denied.status in {403, 404}, denied
    found = daemon.until(
        "both inferences are in the log",
        lambda: (r := records(daemon, "log=inferences")) and len(r) >= 2 and r,
    )
    by_outcome = {r["outcome"]: r for r in found}
    served, refused = by_outcome["ok"], by_outcome["denied"]
    assert served["request_id"] == answer.headers["X-Request-ID"]
    assert served["subject"] == "custom_audited"
    assert served["details"]["request_bytes"] > len(PAYLOAD)
    assert served["details"]["answer_bytes"] > 0
    assert served["details"]["revision"] == 1
    assert (refused["request_id"], refused["organization"]) == ("denied-1", "rival")
    files = [p for p in (daemon.folder / "state").iterdir() if p.is_file()]
    assert not [p for p in files if PAYLOAD.encode() in p.read_bytes()]
    assert whole(daemon, "inferences")["whole"] is True


def test_a_log_that_was_changed_on_the_disk_is_found_out(daemon: Daemon) -> None:
    victim = records(daemon)[-1]["sequence"]
    assert whole(daemon)["whole"] is True
    tamper(daemon, f"UPDATE audit SET outcome = outcome || '!' WHERE sequence = {victim}")
    verdict = whole(daemon)
    told = ctl(daemon, "verify")
    tamper(daemon, f"UPDATE audit SET outcome = rtrim(outcome, '!') WHERE sequence = {victim}")
    assert verdict["whole"] is False
    assert (verdict["problem"]["kind"], verdict["problem"]["sequence"]) == ("altered", victim)
    assert told.returncode == 1
    assert f"NOT WHOLE: altered at record {victim}" in told.stdout
    assert whole(daemon)["whole"] is True


def test_an_export_is_verified_on_another_machine_with_nothing_but_the_public_key(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text(ctl(daemon, "public-key").stdout)
    exported = ctl(daemon, "export", str(tmp_path / "audit.jsonl"))
    assert exported.returncode == 0, exported
    command = ("verify", "audit.jsonl", "--public-key", "key.pem")
    told = elsewhere(tmp_path, *command)
    assert told.returncode == 0, told
    assert told.stdout.startswith("whole: ")

    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"kind":"record"' in line)
    lines[place] = lines[place].replace(b'"outcome":"allowed"', b'"outcome":"denied"')
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines))
    told = elsewhere(tmp_path, *command)
    assert told.returncode == 1
    assert f"altered at record 1 (line {place + 1})" in told.stdout
    as_json = json.loads(elsewhere(tmp_path, *command, "-o", "json").stdout)
    assert as_json["problem"]["sequence"] == 1

    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[:place]))
    assert "truncated" in elsewhere(tmp_path, *command).stdout


def test_a_copy_of_the_checkpoints_is_compared_with_an_export(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text(ctl(daemon, "public-key").stdout)
    kept = daemon.folder / "state" / "audit-checkpoints.jsonl"
    daemon.until("a checkpoint is in the file", kept.exists)
    (tmp_path / "kept.jsonl").write_bytes(kept.read_bytes() + b"junk\n")
    assert ctl(daemon, "export", str(tmp_path / "audit.jsonl")).returncode == 0
    flags = ("--public-key", "key.pem", "--checkpoints", "kept.jsonl")
    told = elsewhere(tmp_path, "verify", "audit.jsonl", *flags)
    assert told.returncode == 0, told
    assert "left out" in told.stderr


def test_an_organizations_export_holds_others_records_as_digests(
    daemon: Daemon, rival: str, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text(ctl(daemon, "public-key").stdout)
    answer = daemon.call("GET", f"{AUDIT}/export", key=rival)
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    (tmp_path / "audit.jsonl").write_bytes(answer.raw)
    lines = [json.loads(line) for line in answer.raw.splitlines()]
    own = [line["record"] for line in lines if line["kind"] == "record"]
    foreign = [line for line in lines if line["kind"] == "foreign"]
    assert {record["organization"] for record in own} == {"rival"}
    assert foreign
    assert all(line.keys() == {"kind", "sequence", "digest", "hash"} for line in foreign)
    assert b"audited" not in answer.raw
    told = elsewhere(tmp_path, "verify", "audit.jsonl", "--public-key", "key.pem")
    assert told.returncode == 0, told
    assert "of other organizations by their digest" in told.stdout


def test_an_export_is_for_its_owner_only_and_where_none_can_be_written_is_said_in_words(
    daemon: Daemon, tmp_path: Path
) -> None:
    for where in ("/", ".", "/dev/null/x", str(tmp_path / "none" / "x"), str(tmp_path)):
        told = ctl(daemon, "export", where)
        assert told.returncode in {2, 78}, told
        assert "Traceback" not in told.stderr
        assert told.stderr.startswith("prsmctl: ")
    assert ctl(daemon, "export", str(tmp_path / "audit.jsonl")).returncode == 0
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["audit.jsonl"]


def test_a_copy_of_checkpoints_that_holds_none_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(ctl(daemon, "public-key").stdout)
    (tmp_path / "kept.jsonl").write_text("{}\n")
    flags = ("--public-key", "key.pem", "--checkpoints", "kept.jsonl")
    told = elsewhere(tmp_path, "verify", "audit.jsonl", *flags)
    assert (told.returncode, "no checkpoint that a trusted key" in told.stderr) == (78, True)


def test_what_is_no_key_or_no_file_is_refused_in_words(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("nothing")
    (tmp_path / "audit.jsonl").write_text("nothing\n")
    flags = ("verify", "audit.jsonl")
    assert elsewhere(tmp_path, *flags).returncode == 2
    assert "no public key" in elsewhere(tmp_path, *flags, "--public-key", "key.pem").stderr
    (tmp_path / "key.pem").write_text(ctl(daemon, "public-key").stdout)
    told = elsewhere(tmp_path, *flags, "--public-key", "key.pem")
    assert (told.returncode, "line 1" in told.stdout) == (1, True)
    missing = elsewhere(tmp_path, "verify", "gone", "--public-key", "key.pem")
    assert "gone cannot be read" in missing.stderr


def test_following_gives_what_happens_and_continues_after_a_cut(daemon: Daemon) -> None:
    last = records(daemon)[0]["sequence"]
    with followed(daemon, last - 1) as stream:
        first = next(stream)
        daemon.scale(1, "audited")
        second = next(r for r in stream if r["action"] == "models.scale")
    assert first["sequence"] == last
    assert second["sequence"] > last


@contextlib.contextmanager
def followed(daemon: Daemon, after: int) -> Iterator[Iterator[Any]]:
    connection = UnixConnection(daemon.socket, 20)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    with contextlib.closing(connection):
        connection.request("GET", AUDIT, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        yield _events(answer)


def _events(answer: http.client.HTTPResponse) -> Iterator[Any]:
    while line := answer.readline():
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def test_tail_and_query_show_records_to_people(daemon: Daemon) -> None:
    daemon.scale(1, "audited")
    tail = ctl(daemon, "tail", "-n", "3")
    assert len(tail.stdout.splitlines()) == 3
    assert "models.scale" in tail.stdout
    query = ctl(daemon, "query", "--action", "models.scale", "--since", "10m", "--limit", "2")
    assert query.stdout.splitlines()[0].split()[:2] == ["SEQUENCE", "AT"]
    assert "uid:0" in query.stdout
    newest, next_one = records(daemon)[:2]
    before = ctl(daemon, "query", "--before", str(newest["sequence"]), "--limit", "1", "-o", "json")
    assert [one["sequence"] for one in json.loads(before.stdout)["records"]] == [
        next_one["sequence"]
    ]


def test_kill_9_leaves_both_logs_whole_and_a_clean_stop_signs_the_end(daemon: Daemon) -> None:
    for _ in range(3):
        daemon.scale(1, "audited")
        daemon.infer("custom_audited", {"text": "x"})
        daemon.kill()
        daemon.start()
        assert whole(daemon)["whole"] is True
        assert whole(daemon, "inferences")["whole"] is True
    daemon.until("it serves", lambda: daemon.infer("custom_audited", {"text": "x"}).status == 200)
    daemon.scale(1, "audited")
    assert daemon.stop() == 0
    last = {}
    for line in (daemon.folder / "state" / "audit-checkpoints.jsonl").read_text().splitlines():
        said = json.loads(line)
        last[said["log"]] = said["sequence"]
    daemon.start()
    for log in ("changes", "inferences"):
        verdict = whole(daemon, log)
        assert (verdict["whole"], verdict["signed_through"]) == (True, last[log])
        since = ["audit.begin"] if log == "changes" else []
        assert [r["action"] for r in records(daemon, f"log={log}")][: len(since)] == since
        assert verdict["last"] == last[log] + len(since)


def test_every_file_of_the_state_is_in_the_list_of_what_to_back_up(daemon: Daemon) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    listed = text[text.index("## What is kept") : text.index("## Who may call")]
    for path in (daemon.folder / "state").iterdir():
        name = path.name + "/" * path.is_dir()
        if not name.endswith(("-wal", "-shm")):
            assert f"`{name}`" in listed, name


def test_the_log_is_compared_with_a_head_that_is_known_from_elsewhere(
    daemon: Daemon, tmp_path: Path
) -> None:
    verdict = whole(daemon)
    known = f"sequence={verdict['last']}&hash={verdict['hash']}"
    assert daemon.call("GET", f"{AUDIT}/verify?{known}").json["whole"]
    further = f"sequence={verdict['last'] + 1000}&hash={verdict['hash']}"
    problem = daemon.call("GET", f"{AUDIT}/verify?{further}").json["problem"]
    assert problem["kind"] == "truncated"
    other = f"sequence={verdict['last']}&hash={'0' * 64}"
    assert daemon.call("GET", f"{AUDIT}/verify?{other}").json["problem"]["kind"] == "altered"
    hashed = f"hash={'0' * 64}"
    wrong_ones = ("sequence=1", hashed, f"sequence=-1&{hashed}", f"sequence={'9' * 30}&{hashed}")
    for wrong in (*wrong_ones, f"sequence=1&hash={'g' * 64}"):
        assert daemon.call("GET", f"{AUDIT}/verify?{wrong}").status == 400, wrong

    told = ctl(daemon, "verify", "--head", f"{verdict['last']}:{verdict['hash']}")
    assert (told.returncode, told.stdout[:6]) == (0, "whole:")
    told = ctl(daemon, "verify", "--head", f"{verdict['last'] + 1000}:{verdict['hash']}")
    assert (told.returncode, "NOT WHOLE: truncated" in told.stdout) == (1, True)
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes((daemon.folder / "state" / "audit-checkpoints.jsonl").read_bytes())
    assert ctl(daemon, "verify", "--checkpoints", str(kept)).returncode == 0
    for arguments in (("--head", "x"), ("--public-key", "k"), ("f", "--head", f"1:{'0' * 64}")):
        assert ctl(daemon, "verify", *arguments).returncode == 2, arguments


def test_several_public_keys_can_be_given(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(ctl(daemon, "public-key").stdout)
    (tmp_path / "other.pem").write_bytes(Signer(b"o" * 32).public_pem)
    (tmp_path / "audit.jsonl").write_text(ctl(daemon, "export").stdout)
    other = ("--public-key", "other.pem")
    assert elsewhere(tmp_path, "verify", "audit.jsonl", *other).returncode == 1
    both = (*other, "--public-key", "key.pem")
    assert elsewhere(tmp_path, "verify", "audit.jsonl", *both).returncode == 0
