"""Whoever has the state's files but not the signing key: what they try is found out, or not signed.

Each attack tidies up behind itself as well as can be done without the key.
"""

import dataclasses
import json
import shutil
import sqlite3

import pytest

from prsmd.core.chain import Head, ProblemKind
from prsmd.domain.errors import PrsmdError
from prsmd.engine.notary import Notary, NotarySettings
from prsmd.service.proof import Prover
from prsmd.store import audit
from prsmd.store.checkpoint_file import CheckpointFile
from prsmd.store.db import Database
from tests.service.proving import SIGNER, STRANGER, TRUST, Ledger, read, record


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


TOO_MUCH = "size = {0} + (SELECT sum(size) FROM audit WHERE sequence <= 120) - 1"
TOO_LARGE = "size = {0} - (SELECT sum(size) FROM audit WHERE sequence BETWEEN 121 AND 449)"


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ([f"UPDATE audit_chain SET {TOO_MUCH}"], "the size of the log"),
        (
            [
                f"UPDATE audit SET {TOO_LARGE} WHERE sequence = 450",
                "UPDATE audit_chain SET size = (SELECT sum(size) FROM audit)",
            ],
            "the size of record 450",
        ),
    ],
    ids=["the chain's", "a later record's"],
)
async def test_who_alters_sizes_does_not_choose_what_is_pruned(ledger, statements, words):
    await ledger.fill()
    ledger.tamper(*(each.format(ledger.log.keep_bytes) for each in statements))
    for _ in range(2):
        with pytest.raises(PrsmdError, match=words):
            await ledger.notary.prune(ledger.log, by_age=False)
    assert ledger.value("sequence", 1) == 1
    assert [each for each in ledger.filed() if each["kind"] == "anchor"] == []


async def test_sizes_that_are_altered_after_a_pruning_do_not_choose_the_next(ledger):
    await ledger.fill()
    total = sum(ledger.value("size", number) for number in range(1, 451))
    going = sum(ledger.value("size", number) for number in range(1, 21))
    ledger.log = dataclasses.replace(ledger.log, keep_bytes=total - going)
    assert await ledger.notary.prune(ledger.log, by_age=False) == 20
    ledger.tamper(f"UPDATE audit_chain SET size = size + {going}")
    with pytest.raises(PrsmdError, match="the size of the log"):
        await ledger.notary.prune(ledger.log, by_age=False)
    ledger.tamper(f"UPDATE audit_chain SET size = size - {going}")
    assert await ledger.notary.prune(ledger.log, by_age=False) == 0
    await ledger.fill(451, 460)
    assert await ledger.notary.prune(ledger.log, by_age=False) > 0
    assert (await ledger.verdict()).problem is None


@pytest.mark.parametrize(
    "taken", ["", "DELETE FROM audit_checkpoints"], ids=["stored", "only filed"]
)
@pytest.mark.parametrize("first", [100, 120], ids=["up to a checkpoint", "beyond it"])
async def test_who_makes_the_oldest_records_older_does_not_choose_what_is_pruned(
    ledger, first, taken
):
    await ledger.fill()
    await ledger.rewrite_first(first, {"at": -1.0})
    ledger.tamper("UPDATE audit_chain SET size = (SELECT sum(size) FROM audit)", taken)
    ledger.now = 200.5
    with pytest.raises(PrsmdError, match="altered"):
        await ledger.notary.prune(ledger.log)
    assert ledger.value("sequence", 1) == 1


async def test_a_forged_checkpoint_vouches_for_no_records_that_are_to_be_pruned(ledger):
    await ledger.fill()
    head = await ledger.rewrite_first(100, {"at": -1.0})
    ledger.tamper(
        "UPDATE audit_chain SET size = (SELECT sum(size) FROM audit)",
        ("UPDATE audit_checkpoints SET hash = ? WHERE sequence = 100", (head.hash,)),
    )
    ledger.now = 200.5
    with pytest.raises(PrsmdError, match="record 101 was altered"):
        await ledger.notary.prune(ledger.log)


async def test_what_no_checkpoint_covers_yet_is_pruned_all_the_same(ledger):
    await ledger.fill(last=100)
    await ledger.database.write(lambda tx: audit.append_all(tx, [record(101), record(102)]))
    ledger.now = 1000.0
    assert await ledger.notary.prune(ledger.log) == 102
    assert (await ledger.verdict()).problem is None


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


async def test_an_own_key_in_the_folder_and_an_anchor_and_records_signed_with_it_count_nothing(
    ledger, tmp_path
):
    await ledger.fill()
    (tmp_path / "audit-public-keys.pem").write_bytes(STRANGER.public_pem + SIGNER.public_pem)
    theirs = Ledger(ledger.database, tmp_path, STRANGER)
    head = Head(300, ledger.value("hash", 300))
    anchor = theirs.notary.statement("anchor", ledger.log, head)
    ledger.tamper(
        anchored(anchor),
        "DELETE FROM audit WHERE sequence <= 300",
        "DELETE FROM audit_checkpoints WHERE sequence <= 300",
        "UPDATE audit_chain SET size = (SELECT sum(size) FROM audit)",
    )
    here, there = await found(ledger)
    assert here == (ProblemKind.FORGED, 300)
    assert there == (ProblemKind.MISSING, 1)


async def test_an_anchor_is_filed_and_one_that_does_not_follow_it_begins_no_log(ledger):
    await ledger.fill()
    with sqlite3.connect(ledger.database.path) as connection:
        kept = connection.execute("SELECT * FROM audit WHERE sequence <= 250").fetchall()
    connection.close()
    ledger.now = 300.0
    await ledger.notary.prune(ledger.log)
    ledger.now = 450.0
    await ledger.notary.prune(ledger.log)
    first, second = [each for each in ledger.filed() if each["kind"] == "anchor"]
    assert (first["previous"], first["records"]) == ({"sequence": 0, "hash": "0" * 64}, 99)
    assert second["previous"] == {"sequence": 99, "hash": first["hash"]}
    assert first["bytes"] > 0
    assert first["checkpoint"]["sequence"] == 450
    assert (await ledger.verdict()).problem is None
    marks = ", ".join("?" * 13)
    old = [(f"INSERT INTO audit VALUES ({marks})", row) for row in kept if 99 < row[0] <= 249]
    ledger.tamper(
        anchored(first), *old, "UPDATE audit_chain SET size = (SELECT sum(size) FROM audit)"
    )
    problem = (await ledger.verdict()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.FORGED, 99)


@pytest.mark.parametrize("cut", ["emptied", "shortened", "a line taken out", "another instance's"])
async def test_a_checkpoint_file_that_lost_what_was_filed_is_named_by_where(ledger, cut):
    await ledger.fill()
    assert (await ledger.verdict()).problem is None  # this daemon knows what it filed
    lines = ledger.path.read_text().splitlines(keepends=True)
    changed = {
        "emptied": [], "shortened": lines[:-1], "a line taken out": [*lines[:2], *lines[3:]],
        "another instance's": [line.replace("instance_1", "instance_2") for line in lines],
    }[cut]  # fmt: skip
    ledger.path.write_text("".join(changed))
    problem = (await ledger.verdict()).problem
    expected = {"shortened": 450, "a line taken out": 300}.get(cut, 100)
    assert (problem.kind, problem.sequence) == (ProblemKind.MISSING, expected)


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TRIGGER t AFTER INSERT ON audit BEGIN DELETE FROM audit; END",
        "CREATE TRIGGER t AFTER UPDATE ON audit_chain BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT * FROM audit",
        "ALTER TABLE audit ADD COLUMN more TEXT",
        "ALTER TABLE audit_chain ADD COLUMN more TEXT GENERATED ALWAYS AS (1)",
    ],
)
async def test_what_could_undo_records_is_found_and_nothing_is_signed_with_it(ledger, made, caplog):
    await ledger.fill()
    ledger.tamper(made)
    problem = (await ledger.verdict()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.ALTERED, 451)
    ledger.tamper("UPDATE audit_chain SET sequence = 451")
    assert await refuses_to_sign(ledger, caplog) == 1


async def test_records_that_do_not_link_are_not_signed(ledger, caplog):
    await ledger.fill()
    await ledger.database.write(lambda tx: audit.append_all(tx, [record(n) for n in (1, 2, 3)]))
    ledger.tamper("UPDATE audit SET subject = 'x' WHERE sequence = 452")
    assert await refuses_to_sign(ledger, caplog) == 1
    assert "record 452 was altered" in caplog.text


async def test_a_state_that_was_put_back_as_a_whole_shows_against_a_head_from_elsewhere(
    ledger, tmp_path
):
    await ledger.fill(last=200)
    before = ledger.path.read_text()
    await ledger.database.close()
    shutil.copytree(tmp_path / "state", tmp_path / "before")
    later = Ledger(await Database.open(tmp_path / "state"), tmp_path)
    await later.fill(201, 300)
    known = Head(300, later.value("hash", 300))
    within = Head(150, later.value("hash", 150))
    await later.database.close()
    ledger.path.write_text(before)

    restored = Ledger(await Database.open(tmp_path / "before"), tmp_path)
    assert (await restored.verdict()).problem is None
    assert (await restored.prover.verify(restored.log, within)).problem is None
    problem = (await restored.prover.verify(restored.log, known)).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.TRUNCATED, 201)
    await restored.fill(901, 1100)  # beyond it, with other records
    problem = (await restored.prover.verify(restored.log, known)).problem
    assert problem.kind is ProblemKind.ALTERED
    await restored.database.close()


async def test_a_second_checkpoint_file_tells_of_what_was_taken_from_the_first(ledger, tmp_path):
    def restarted():
        made = Ledger(ledger.database, tmp_path)
        file = CheckpointFile(made.path, tmp_path / "elsewhere.jsonl")
        settings = NotarySettings(instance="instance_1")
        made.notary = Notary([made.log], SIGNER, TRUST, file, settings, lambda: made.now)
        made.prover = Prover(made.notary)
        return made

    ledger = restarted()
    await ledger.fill()
    assert (tmp_path / "elsewhere.jsonl").read_bytes() == ledger.path.read_bytes()
    ledger.tamper(
        "DELETE FROM audit WHERE sequence > 400",
        "DELETE FROM audit_checkpoints WHERE sequence > 400",
        "UPDATE audit_chain SET sequence = 400, size = (SELECT sum(size) FROM audit),"
        " hash = (SELECT hash FROM audit WHERE sequence = 400)",
    )
    ledger.path.write_text("".join(ledger.path.read_text().splitlines(keepends=True)[:4]))
    problem = (await restarted().verdict()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.TRUNCATED, 401)


async def test_a_trigger_of_prsmds_own_is_no_fault_until_it_does_something_else(ledger):
    await ledger.fill()
    with sqlite3.connect(ledger.database.path) as connection:
        query = "SELECT name, tbl_name FROM sqlite_schema WHERE type = 'trigger'"
        name, table = connection.execute(query).fetchall()[0]
    connection.close()
    assert (await ledger.verdict()).problem is None
    ledger.tamper(
        f"DROP TRIGGER {name}",
        f"CREATE TRIGGER {name} AFTER INSERT ON {table} BEGIN DELETE FROM audit; END",
    )
    assert name in (await ledger.verdict()).problem.message


async def test_the_head_of_a_newer_export_does_not_make_an_older_one_new(ledger):
    ledger.now = 1000.0
    await ledger.fill(last=200)
    older = await ledger.export()
    ledger.now = 2000.0
    await ledger.fill(201, 450)
    newer = await ledger.export()
    assert read(older).problem is None
    assert read(newer).problem is None
    for spliced in ([newer[0], *older[1:]], [older[0], *newer[1:]]):
        assert read(spliced).problem.kind is ProblemKind.FORGED


async def test_an_anchor_of_an_earlier_release_is_taken_filed_and_followed(ledger):
    await ledger.fill()
    head = Head(100, ledger.value("hash", 100))
    ledger.tamper(
        anchored(ledger.notary.statement("anchor", ledger.log, head)),
        "DELETE FROM audit WHERE sequence <= 100",
        "DELETE FROM audit_checkpoints WHERE sequence <= 100",
        "UPDATE audit_chain SET size = (SELECT sum(size) FROM audit)",
    )
    assert (await ledger.verdict()).problem is None
    await ledger.fill(451, 460)
    assert [each["sequence"] for each in ledger.filed() if each["kind"] == "anchor"] == [100]
    ledger.now = 400.0
    assert await ledger.notary.prune(ledger.log) == 99
    assert (await ledger.verdict()).problem is None
