"""Whoever has the state's files but not the signing key: what they try is found out, or not signed.

Each attack tidies up behind itself as well as can be done without the key.
"""

import json
import shutil
import sqlite3

import pytest

from prsmd.core.chain import ProblemKind
from prsmd.domain.errors import PrsmdError
from prsmd.store.db import Database
from tests.service.proving import Ledger, read


@pytest.fixture
async def ledger(tmp_path):
    database = await Database.open(tmp_path / "state")
    yield Ledger(database, tmp_path)
    await database.close()


async def found(ledger):
    """What the daemon says, and what an export that it makes says elsewhere."""
    here, there = (await ledger.verdict()).problem, read(await ledger.export()).problem
    assert here is not None
    assert there is not None
    return (here.kind, here.sequence), (there.kind, there.sequence)


async def refuses_to_sign(ledger, caplog):
    count = len(ledger.filed())
    ledger.now += 10_000.0
    await ledger.notary.attest()
    assert len(ledger.filed()) == count
    assert not ledger.prover.signing
    return caplog.text.count("cannot be kept")


def anchored(statement):
    text = json.dumps(statement, sort_keys=True)
    return ("UPDATE audit_chain SET anchor = ?", (text,))


async def test_a_checkpoint_is_no_anchor_behind_which_records_may_go(ledger, caplog):
    await ledger.fill()
    checkpoint = ledger.filed()[1]
    assert checkpoint["sequence"] == 200
    ledger.tamper(
        anchored(checkpoint),
        "DELETE FROM audit WHERE sequence <= 200",
        "DELETE FROM audit_checkpoints WHERE sequence <= 200",
        "UPDATE audit_chain SET size = (SELECT sum(size) FROM audit)",
    )
    here, there = await found(ledger)
    assert here == (ProblemKind.FORGED, 200)
    assert there == (ProblemKind.MISSING, 1)
    ledger.tamper("DELETE FROM audit_checkpoints")
    assert await refuses_to_sign(ledger, caplog) == 1


async def test_an_anchor_of_another_log_or_instance_does_not_serve(ledger):
    await ledger.fill()
    for other in ({"log": "inferences"}, {"instance": "instance_2"}):
        place = {"sequence": 200, "hash": ledger.value("hash", 200)}
        bare = {"kind": "anchor", "log": "changes", "instance": "instance_1", **place, **other}
        ledger.tamper(anchored(ledger.notary.signed(bare)))
        problem = (await ledger.verdict()).problem
        assert (problem.kind, problem.sequence) == (ProblemKind.FORGED, 200)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sequence":"x"}', "[" * 100_000])
async def test_an_anchor_that_is_damaged_is_forged_and_trips_nobody(ledger, text, caplog):
    await ledger.fill()
    ledger.tamper(("UPDATE audit_chain SET anchor = ?", (text,)))
    assert (await ledger.verdict()).problem.kind is ProblemKind.FORGED
    await ledger.fill(451, 460)
    assert "not signed as such" in caplog.text


async def test_a_log_that_was_written_anew_is_not_signed_and_its_exports_show_it(ledger, caplog):
    await ledger.fill()
    await ledger.rewrite({"principal": "key:b"})
    here, there = await found(ledger)
    assert here == there == (ProblemKind.ALTERED, 1)
    await ledger.fill(451, 600)
    assert await refuses_to_sign(ledger, caplog) == 1
    assert await found(ledger) == (here, there)


async def test_an_older_copy_of_the_file_stays_found_out_however_much_is_added(ledger, tmp_path):
    await ledger.fill(last=200)
    await ledger.database.close()
    shutil.copytree(tmp_path / "state", tmp_path / "before")
    later = Ledger(await Database.open(tmp_path / "state"), tmp_path)
    await later.fill(201, 300)
    await later.database.close()

    restored = Ledger(await Database.open(tmp_path / "before"), tmp_path)
    here, there = await found(restored)
    assert here == (ProblemKind.TRUNCATED, 201)
    assert there == (ProblemKind.MISSING, 201)
    await restored.fill(901, 1100)  # 400 now: beyond what was signed
    here, there = await found(restored)
    assert here == there == (ProblemKind.ALTERED, 201)
    await restored.database.close()


async def test_a_cut_end_without_its_checkpoints_shows_in_an_export_too(ledger):
    await ledger.fill()
    ledger.tamper(
        "DELETE FROM audit WHERE sequence > 400",
        "DELETE FROM audit_checkpoints WHERE sequence > 400",
        "UPDATE audit_chain SET sequence = 400, size = (SELECT sum(size) FROM audit),"
        " hash = (SELECT hash FROM audit WHERE sequence = 400)",
    )
    assert await found(ledger) == ((ProblemKind.TRUNCATED, 401), (ProblemKind.MISSING, 401))


async def test_a_checkpoint_that_was_left_behind_the_end_betrays_a_cut(ledger, tmp_path, caplog):
    await ledger.fill()
    ledger.tamper(
        "DELETE FROM audit WHERE sequence > 400",
        "UPDATE audit_chain SET sequence = 400, size = (SELECT sum(size) FROM audit),"
        " hash = (SELECT hash FROM audit WHERE sequence = 400)",
    )
    (tmp_path / "checkpoints.jsonl").unlink()
    restarted = Ledger(ledger.database, tmp_path)
    problem = (await restarted.verdict()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.TRUNCATED, 401)
    restarted.now = 10_000.0
    await restarted.notary.attest()
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 321,"text":"m\\u00fcller"}',
        '{"n":321,"text":"m\\u00FCller"}',
        '{"n":0,"n":321,"text":"m\\u00fcller"}',
        '{"text":"m\\u00fcller","n":321}',
        '{"n":321,"text":"müller"}',
        '{"n":321,"text":"m\\u00fcller"} ',
    ],
)
async def test_details_that_mean_the_same_in_another_form_are_altered(ledger, text):
    await ledger.fill()
    assert json.loads(text) == json.loads(ledger.value("details", 321))
    ledger.tamper(("UPDATE audit SET details = ? WHERE sequence = 321", (text,)))
    assert await found(ledger) == ((ProblemKind.ALTERED, 321), (ProblemKind.ALTERED, 321))


@pytest.mark.parametrize("name", ["audit SET size = size + 1 WHERE sequence = 321",
                                  "audit_chain SET size = size + 1"])  # fmt: skip
async def test_sizes_by_which_records_are_pruned_are_verified_too(ledger, name):
    await ledger.fill()
    ledger.tamper(f"UPDATE {name}")
    problem = (await ledger.verdict()).problem
    assert problem.kind is ProblemKind.ALTERED
    assert "size" in problem.message


async def test_a_log_that_is_not_whole_is_not_pruned(ledger):
    await ledger.fill()
    ledger.tamper("UPDATE audit SET subject = 'x' WHERE sequence = 150")
    ledger.now = 400.0
    with pytest.raises(PrsmdError, match="record 150 was altered"):
        await ledger.notary.prune(ledger.log)
    assert (await ledger.verdict()).problem.sequence == 150


async def test_a_log_that_contradicts_what_was_signed_is_not_pruned(ledger):
    await ledger.fill()
    await ledger.rewrite({"principal": "key:b"})
    ledger.now = 400.0
    with pytest.raises(PrsmdError, match="not the one that was signed"):
        await ledger.notary.prune(ledger.log)


async def test_a_forged_line_in_the_checkpoint_file_is_named(ledger, tmp_path):
    await ledger.fill()
    forged = {**ledger.filed()[-1], "hash": "0" * 64}
    with (tmp_path / "checkpoints.jsonl").open("a") as file:
        file.write(json.dumps(forged) + "\n")
    problem = (await Ledger(ledger.database, tmp_path).verdict()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.FORGED, 450)


async def test_a_copy_of_a_record_finds_no_place(ledger):
    await ledger.fill()
    columns = "at, principal, organization, action, subject, outcome, request_id, details, salt"
    with pytest.raises(sqlite3.IntegrityError):
        ledger.tamper("INSERT INTO audit SELECT * FROM audit WHERE sequence = 7")
    ledger.tamper(
        f"INSERT INTO audit SELECT 451, {columns}, hash, size, address FROM audit"
        " WHERE sequence = 450",
        "UPDATE audit_chain SET sequence = 451",
    )
    assert await found(ledger) == ((ProblemKind.ALTERED, 451), (ProblemKind.ALTERED, 451))
