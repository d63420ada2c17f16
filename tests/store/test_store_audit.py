"""The chain on disk: old records join it, no crash breaks it, pruning leaves a place to begin."""

import asyncio
import dataclasses
import shutil
import sqlite3
import subprocess
import sys

import aiosqlite
import pytest

from prsmd.core.chain import Head, Walk, canonical, content_of, digest_of
from prsmd.domain.events import AuditFilter, AuditRecord
from prsmd.store import attestations, audit, meta
from prsmd.store.attestations import Checkpoint
from prsmd.store.db import CONTROL, USAGE, Database
from prsmd.store.errors import StoreDamagedError, StoreSchemaError
from prsmd.store.migrate import known_migrations, migrate

KILLS = 6


def record(number=1, **changes):
    values = {
        "at": float(number), "principal": "key:a", "organization": "acme",
        "action": "models.deploy", "subject": f"deploy_{number}", "outcome": "allowed",
        "request_id": f"req_{number}", "details": {"replicas": number},
    }  # fmt: skip
    return AuditRecord(**{**values, **changes})


def walked(records, start=None, log="changes"):
    """Where a walk over all records ends; it may find no problem."""
    walk = Walk(log, start or Head())
    for each in records:
        problem = walk.step(each.sequence, digest_of(canonical(content_of(each))), each.hash)
        assert problem is None, problem
    return walk.at


async def everything(database):
    async with database.read() as tx:
        chain = await attestations.chain(tx)
        return await audit.after(tx, 0, 10**6), chain


_OLD = """
INSERT INTO audit (sequence, at, principal, organization, action, subject, outcome, request_id,
    details) VALUES
    (1, 10.5, 'uid:0', 'acme', 'keys.create', 'key:x', 'allowed', 'r1', '{"role": "viewer"}'),
    (2, 11.0, 'key:x', 'acme', 'models.deploy', 'müller', 'denied', 'r2', '{}'),
    (7, 12.0, 'prsmd', 'acme', 'models.rollback', 'd', 'allowed', '', '{"b": 1.50, "a": [1]}')
"""


async def _state_of_schema_3(folder, statements=(_OLD,)):
    folder.mkdir()
    async with aiosqlite.connect(folder / "control.db", isolation_level=None) as tx:
        tx.row_factory = sqlite3.Row
        await migrate(tx, known_migrations()[:3])
        for statement in statements:
            await tx.execute_fetchall(statement)


async def test_the_records_of_an_older_state_are_chained_when_it_is_opened(tmp_path):
    await _state_of_schema_3(tmp_path / "state")
    database = await Database.open(tmp_path / "state")
    found, chain = await everything(database)
    await database.write(lambda tx: audit.append(tx, record()))
    later, _ = await everything(database)
    async with database.read() as tx:
        tables = await tx.execute_fetchall("SELECT name FROM sqlite_master WHERE type = 'table'")
    await database.close()

    assert [(each.sequence, each.subject) for each in found] == [
        (1, "key:x"), (2, "müller"), (3, "d"),
    ]  # fmt: skip
    assert found[2].details == {"b": 1.5, "a": [1]}
    assert walked(found) == chain.head
    assert walked(later).sequence == 4
    assert "audit_before_chain" not in {row[0] for row in tables}


async def test_an_older_state_with_thousands_of_records_is_chained_whole(tmp_path):
    many = """
    INSERT INTO audit (at, principal, organization, action, subject, outcome, request_id, details)
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2345)
    SELECT i, 'p', 'o', 'a', 's' || i, 'allowed', 'r', '{}' FROM n
    """
    await _state_of_schema_3(tmp_path / "state", (many,))
    database = await Database.open(tmp_path / "state")
    found, chain = await everything(database)
    await database.close()
    assert len(found) == 2345
    assert walked(found) == chain.head


async def test_an_upgrade_that_dies_between_the_schema_and_the_chain_is_as_if_it_never_began(
    tmp_path,
):
    await _state_of_schema_3(tmp_path / "state", (_OLD.replace("'{}'", "'no json'"),))
    with pytest.raises(StoreDamagedError, match=r"audit_before_chain\.details holds what"):
        await Database.open(tmp_path / "state")
    with sqlite3.connect(tmp_path / "state" / "control.db") as connection:
        connection.execute("UPDATE audit SET details = '{}' WHERE sequence = 2")
    connection.close()
    database = await Database.open(tmp_path / "state")
    found, chain = await everything(database)
    await database.close()
    assert walked(found) == chain.head


async def test_a_killed_process_leaves_the_chain_whole_after_every_statement(tmp_path):
    """The files as a kill leaves them, copied at each statement that the writer begins."""
    database = await Database.open(tmp_path / "state")
    copies = []

    def copy(_statement):
        into = tmp_path / f"copy-{len(copies)}"
        shutil.copytree(database.path.parent, into, ignore=shutil.ignore_patterns("*-shm", "lock"))
        copies.append(into)

    async def mutate(tx, number):
        await meta.set(tx, "mutations", str(number))
        await audit.append_all(tx, [record(number), record(number, outcome="denied")])

    writer = database._writer._tx
    await writer.set_trace_callback(copy)
    await asyncio.gather(
        *(database.write(lambda tx, n=number: mutate(tx, n)) for number in (1, 2, 3))
    )
    await writer.set_trace_callback(None)
    await database.close()

    seen = set()
    for folder in copies:
        opened = await Database.open(folder)
        found, chain = await everything(opened)
        async with opened.read() as tx:
            mutations = int(await meta.get(tx, "mutations") or 0)
        await opened.close()
        assert walked(found) == chain.head
        assert len(found) == 2 * mutations
        seen.add(mutations)
    assert len(copies) > 15
    assert 0 in seen


_WRITER = """
import asyncio, os, sys
from pathlib import Path
from prsmd.store import audit
from prsmd.store.db import CONTROL, USAGE, Database
from tests.store.test_store_audit import record

async def stream(database, name):
    number = 0
    while True:
        number += 1
        wanted = [record(number, subject=f"{name}-{number}") for _ in range(3)]
        await database.write(lambda tx: audit.append_all(tx, wanted))
        os.write(1, f"{name}-{number}\\n".encode())

async def main():
    file = USAGE if sys.argv[2] == "usage" else CONTROL
    database = await Database.open(Path(sys.argv[1]), file=file)
    async with asyncio.TaskGroup() as group:
        for each in range(4):
            group.create_task(stream(database, f"{sys.argv[3]}-{each}"))

asyncio.run(main())
"""


def _killed_after(lines, *arguments):
    """What a writer acknowledged until it was killed, after so many lines or a few more."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, *arguments], stdout=subprocess.PIPE, text=True
    )
    seen = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    rest, _ = process.communicate()
    return {line for line in ("".join(seen) + rest).split("\n")[:-1] if line}


@pytest.mark.parametrize("name", ["control", "usage"])
async def test_kill_9_at_random_never_breaks_the_chain_and_loses_nothing_acknowledged(
    tmp_path, name
):
    acknowledged = set()
    for run in range(KILLS):
        acknowledged |= _killed_after(5 * run + 1, str(tmp_path), name, f"run{run}")
        database = await Database.open(tmp_path, file=USAGE if name == "usage" else CONTROL)
        found, chain = await everything(database)
        await database.close()
        assert walked(found, log="inferences" if name == "usage" else "changes") == chain.head
        subjects = [each.subject for each in found]
        assert all(subjects.count(each) == 3 for each in acknowledged)


async def test_a_rolled_back_mutation_leaves_no_gap(database):
    async def refused(tx):
        await audit.append(tx, record(2))
        raise ValueError("no")

    await database.write(lambda tx: audit.append(tx, record(1)))
    with pytest.raises(ValueError, match="no"):
        await database.write(refused)
    await database.write(lambda tx: audit.append(tx, record(3)))
    found, chain = await everything(database)
    assert [(each.sequence, each.subject) for each in found] == [(1, "deploy_1"), (2, "deploy_3")]
    assert walked(found) == chain.head


async def test_records_alike_have_different_digests_so_that_none_can_be_guessed(database):
    await database.write(lambda tx: audit.append_all(tx, [record(), record()]))
    (one, other), _ = await everything(database)
    assert one.salt != other.salt
    contents = [
        canonical(content_of(dataclasses.replace(each, sequence=0))) for each in (one, other)
    ]
    assert digest_of(contents[0]) != digest_of(contents[1])


async def test_a_filter_takes_what_fits_all_of_it(database):
    given = [
        record(1, action="models.scale"),
        record(2, action="models.delete", outcome="denied"),
        record(3, action="keys.create", principal="uid:0"),
        record(4, organization="rival"),
        record(5, subject="100%_"),
    ]
    await database.write(lambda tx: audit.append_all(tx, given))

    async def found(**wanted):
        async with database.read() as tx:
            records, total = await audit.page(tx, AuditFilter(**wanted), 10, 0)
        assert total == len(records)
        return [each.sequence for each in records]

    assert await found() == [5, 4, 3, 2, 1]
    assert await found(action="models.*") == [5, 4, 2, 1]
    assert await found(action="models.s*") == [1]
    assert await found(action="models") == []
    assert await found(principal="uid:0") == [3]
    assert await found(outcome="denied", organization="acme") == [2]
    assert await found(since=2.0, until=4.0) == [3, 2]
    assert await found(subject="100%_") == [5]
    assert await found(subject="%") == []
    async with database.read() as tx:
        page, total = await audit.page(tx, AuditFilter(organization="acme"), 2, 1)
        after = await audit.after(tx, 2, 10, AuditFilter(organization="acme"))
    assert ([each.sequence for each in page], total) == ([3, 2], 4)
    assert [each.sequence for each in after] == [3, 5]


async def test_what_is_pruned_leaves_the_rest_provable_and_its_size_is_counted(database):
    await database.write(lambda tx: audit.append_all(tx, [record(n) for n in range(1, 11)]))
    before, chain = await everything(database)
    sizes = [len(canonical(content_of(each))) for each in before]
    assert chain.size == sum(sizes)

    async def mark(tx):
        for number in (3, 6, 9):
            place = Checkpoint(
                sequence=number, key="k", hash=before[number - 1].hash, at=1.0, signature="s"
            )
            await attestations.add_checkpoint(tx, place)

    anchor = {"sequence": 6, "hash": before[5].hash, "at": 1.0, "key": "k", "signature": "s"}
    await database.write(mark)
    assert await database.write(lambda tx: attestations.prune(tx, anchor)) == 6
    await database.write(lambda tx: audit.append(tx, record(11)))
    found, after = await everything(database)
    assert walked(found, Head(6, before[5].hash)) == after.head
    assert after.anchor == anchor
    assert after.size == sum(len(canonical(content_of(each))) for each in found)
    async with database.read() as tx:
        assert [c.sequence for c in await attestations.checkpoints(tx, 0, 99)] == [9]


async def test_what_may_go_is_the_old_and_the_oldest_beyond_the_limit(database):
    await database.write(lambda tx: audit.append_all(tx, [record(n) for n in range(1, 11)]))
    found, chain = await everything(database)

    async def prunable(before=0.0, excess=0, limit=100):
        async with database.read() as tx:
            last = await attestations.prunable(tx, before, excess, limit)
        return None if last is None else last.sequence

    assert await prunable() is None
    assert await prunable(before=4.0) == 3
    assert await prunable(before=99.0) == 10
    assert await prunable(before=99.0, limit=4) == 4
    assert await prunable(excess=1) == 1
    assert await prunable(excess=found[0].size) == 1
    assert await prunable(excess=found[0].size + 1) == 2
    assert await prunable(excess=chain.size) == 10
    assert found[0].sequence == 1


async def test_a_log_that_was_pruned_empty_goes_on_from_its_anchor(database):
    await database.write(lambda tx: audit.append_all(tx, [record(1), record(2)]))
    found, chain = await everything(database)
    anchor = {"sequence": 2, "hash": chain.head.hash}
    await database.write(lambda tx: attestations.prune(tx, anchor))
    await database.write(lambda tx: audit.append(tx, record(3)))
    later, _ = await everything(database)
    assert [each.sequence for each in later] == [3]
    walked(later, Head(2, found[1].hash))


async def test_the_usage_file_is_beside_the_control_file_and_less_eager_with_the_disk(tmp_path):
    control = await Database.open(tmp_path)
    usage = await Database.open(tmp_path, file=USAGE)

    async def settings(tx):
        [[synchronous]] = await tx.execute_fetchall("PRAGMA synchronous")
        [[mode]] = await tx.execute_fetchall("PRAGMA journal_mode")
        return synchronous, mode

    assert await control.write(settings) == (2, "wal")
    assert await usage.write(settings) == (1, "wal")
    await usage.write(lambda tx: audit.append(tx, record()))
    await usage.sync()
    await usage.ping()
    assert (tmp_path / "usage.db").stat().st_mode & 0o777 == 0o600
    await usage.close()
    await control.close()


async def test_a_usage_file_of_a_newer_release_is_refused(tmp_path):
    usage = await Database.open(tmp_path, file=USAGE)
    await usage.close()
    with sqlite3.connect(tmp_path / "usage.db") as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (99, 'later', 'x', 1.0)")
    connection.close()
    with pytest.raises(StoreSchemaError, match="newer"):
        await Database.open(tmp_path, file=USAGE)
