"""A stored log is proven or its first bad record named, and its export proves itself elsewhere."""

import asyncio
import json
import random

import pytest

from prsmd.core.chain import ProblemKind
from prsmd.domain.errors import ConflictError
from prsmd.store import audit
from prsmd.store.db import Database
from tests.service.proving import RECORDS, STRANGER, Ledger, read, record


@pytest.fixture
async def ledger(tmp_path):
    database = await Database.open(tmp_path / "state")
    yield Ledger(database, tmp_path)
    await database.close()


async def test_what_was_not_touched_is_whole(ledger):
    await ledger.fill()
    verdict = await ledger.verdict()
    assert verdict.problem is None
    assert (verdict.first, verdict.last, verdict.records) == (1, RECORDS, RECORDS)
    assert (verdict.checkpoints, verdict.proven) == (5, RECORDS)


async def test_an_empty_log_is_whole(ledger):
    assert (await ledger.verdict()).problem is None
    assert read(await ledger.export()).problem is None


TAMPERING = {
    "another principal": ("UPDATE audit SET principal = 'x' WHERE sequence = 321", "altered", 321),
    "another time": ("UPDATE audit SET at = at + 0.001 WHERE sequence = 321", "altered", 321),
    "other details": (
        "UPDATE audit SET details = replace(details, '321', '322') WHERE sequence = 321",
        "altered", 321,
    ),
    "details that are no JSON": (
        "UPDATE audit SET details = 'x' WHERE sequence = 321", "altered", 321,
    ),
    "details that JSON cannot hold": (
        "UPDATE audit SET details = '{\"n\":NaN}' WHERE sequence = 321", "altered", 321,
    ),
    "bytes that are no text": (
        "UPDATE audit SET subject = CAST(x'ff00fe' AS TEXT) WHERE sequence = 321", "altered", 321,
    ),
    "another hash": (
        "UPDATE audit SET hash = 'x' || substr(hash, 2) WHERE sequence = 321", "altered", 321,
    ),
    "one record gone": ("DELETE FROM audit WHERE sequence = 321", "missing", 321),
    "the first records gone": ("DELETE FROM audit WHERE sequence <= 7", "missing", 1),
    "the end gone": ("DELETE FROM audit WHERE sequence > 440", "truncated", 441),
    "two records exchanged": (
        ("UPDATE audit SET subject = CASE sequence WHEN 320 THEN 'model-321' ELSE 'model-320' END"
        " WHERE sequence IN (320, 321)"),
        "altered", 320,
    ),
    "a checkpoint of another hash": (
        "UPDATE audit_checkpoints SET hash = 'x' || substr(hash, 2) WHERE sequence = 300",
        "forged", 300,
    ),
    "a record after the end": (
        ("INSERT INTO audit SELECT 999, at, principal, organization, action, subject, outcome,"
        " request_id, details, salt, hash, size, address FROM audit WHERE sequence = 450"),
        "altered", 999,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERING)
async def test_whatever_was_done_to_the_file_the_first_bad_record_is_named(ledger, name):
    statement, kind, sequence = TAMPERING[name]
    await ledger.fill()
    ledger.tamper(statement)
    problem = (await ledger.verdict()).problem
    assert (problem.kind.value, problem.sequence) == (kind, sequence)


async def test_an_end_that_was_cut_and_tidied_up_is_betrayed_by_the_checkpoint_file(ledger):
    await ledger.fill()
    ledger.tamper(
        "DELETE FROM audit WHERE sequence > 400",
        "DELETE FROM audit_checkpoints WHERE sequence > 400",
        "UPDATE audit_chain SET sequence = 400,"
        " hash = (SELECT hash FROM audit WHERE sequence = 400)",
    )
    problem = (await ledger.verdict()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.TRUNCATED, 401)


async def test_an_anchor_that_nobody_signed_does_not_excuse_what_is_missing(ledger):
    await ledger.fill()
    ledger.tamper(
        "UPDATE audit_chain SET anchor = (SELECT json_object('kind', 'anchor', 'log', 'changes',"
        " 'instance', 'instance_1', 'sequence', 7, 'hash', hash, 'at', 1.0, 'key', 'k',"
        " 'signature', 's') FROM audit WHERE sequence = 7)",
        "DELETE FROM audit WHERE sequence <= 7",
    )
    problem = (await ledger.verdict()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.FORGED, 7)


async def test_checkpoints_of_a_key_that_is_not_trusted_are_forged(tmp_path):
    database = await Database.open(tmp_path / "state")
    ledger = Ledger(database, tmp_path, STRANGER)
    await ledger.fill(last=10)
    problem = (await ledger.verdict()).problem
    await database.close()
    assert (problem.kind, problem.sequence) == (ProblemKind.FORGED, 10)


async def test_a_pruned_log_is_proven_from_its_anchor_here_and_in_an_export(ledger):
    await ledger.fill()
    ledger.now = 400.0
    assert await ledger.notary.prune(ledger.log) == 199
    verdict = await ledger.verdict()
    assert verdict.problem is None
    assert (verdict.first, verdict.last) == (200, RECORDS)
    exported = read(await ledger.export())
    assert exported.problem is None
    assert (exported.first, exported.last, exported.records) == (200, RECORDS, 251)


async def test_an_export_since_a_moment_begins_at_a_checkpoint_before_it(ledger):
    for moment, last in ((10.0, 100), (20.0, 200), (30.0, 300)):
        ledger.now = moment
        await ledger.fill(last - 99, last)
    verdict = read(await ledger.export(since=25.0))
    assert verdict.problem is None
    assert (verdict.first, verdict.last) == (201, 300)
    assert read(await ledger.export(since=5.0)).first == 1


async def test_an_organizations_export_proves_itself_and_holds_nothing_of_others(ledger):
    await ledger.fill()
    lines = await ledger.export("rival")
    verdict = read(lines)
    assert verdict.problem is None
    assert (verdict.records, verdict.foreign) == (150, 300)
    text = b"".join(lines)
    assert b"acme" not in text
    assert b'"model-3"' in text
    assert b'"model-4"' not in text


async def test_an_export_of_a_log_that_was_tampered_with_shows_it(ledger):
    await ledger.fill()
    ledger.tamper("UPDATE audit SET outcome = 'denied' WHERE sequence = 123")
    problem = read(await ledger.export()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.ALTERED, 123)
    foreign = read(await ledger.export("nobody")).problem
    assert (foreign.kind, foreign.sequence) == (ProblemKind.ALTERED, 123)


async def test_an_export_of_a_log_with_a_gap_shows_it(ledger):
    await ledger.fill()
    ledger.tamper("DELETE FROM audit WHERE sequence = 200")
    problem = read(await ledger.export()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.MISSING, 200)


async def test_any_field_of_any_record_changed_in_the_file_is_named(ledger):
    await ledger.fill(last=60)
    chance = random.Random(4)
    columns = ("at", "principal", "organization", "action", "subject", "outcome", "request_id",
               "details", "salt", "hash")  # fmt: skip
    for _ in range(60):
        column, sequence = chance.choice(columns), chance.randint(1, 60)
        change = f"{column} + 1" if column == "at" else f"{column} || ' '"
        before = ledger.value(column, sequence)
        if column == "details":
            change = f"replace({column}, '{{', '{{\"a\":1,')"
        ledger.tamper(f"UPDATE audit SET {column} = {change} WHERE sequence = {sequence}")
        problem = (await ledger.verdict()).problem
        assert (problem.kind, problem.sequence) == (ProblemKind.ALTERED, sequence), column
        ledger.tamper((f"UPDATE audit SET {column} = ? WHERE sequence = ?", (before, sequence)))
    assert (await ledger.verdict()).problem is None


async def test_pruning_that_overtakes_a_verification_makes_it_begin_anew(ledger):
    await ledger.fill()
    ledger.now = 400.0
    running = asyncio.create_task(ledger.verdict(), name="verify")
    await asyncio.sleep(0)
    await ledger.notary.prune(ledger.log)
    verdict = await running
    assert verdict.problem is None
    assert verdict.last == RECORDS


async def test_pruning_that_overtakes_an_export_breaks_it_off(ledger):
    await ledger.fill()
    ledger.now = 10_000.0
    pieces = ledger.prover.export(ledger.log, None, None)
    await anext(pieces)
    await ledger.notary.prune(ledger.log)
    with pytest.raises(ConflictError, match="pruned"):
        await anext(pieces)


async def test_records_that_come_while_it_is_verified_do_no_harm(ledger):
    await ledger.fill()
    running = asyncio.create_task(ledger.verdict(), name="verify")
    while not running.done():
        await ledger.database.write(lambda tx: audit.append(tx, record(1)))
    assert (await running).problem is None
    assert (await ledger.verdict()).problem is None


async def test_an_export_of_before_a_pruning_still_proves_itself_and_leads_to_the_one_of_after(
    ledger,
):
    await ledger.fill()
    before = await ledger.export()
    ledger.now = 400.0
    await ledger.notary.prune(ledger.log)
    after = await ledger.export()
    former, later = read(before), read(after)
    assert (former.problem, later.problem) == (None, None)
    assert (former.first, former.last, later.first, later.last) == (1, RECORDS, 200, RECORDS)
    assert former.head == later.head
    anchor = json.loads(after[0])["start"]
    place = next(line for line in map(json.loads, before) if _sequence(line) == anchor["sequence"])
    assert place["hash"] == anchor["hash"]


def _sequence(line):
    return line.get("record", {}).get("sequence")
