"""A usage file that fails ends nothing and comes back; a control file that is gone is not used."""

import asyncio
import os
import shutil
import subprocess

import pytest

from prsmd.domain.errors import PrsmdError, StorageFullError
from prsmd.domain.events import own_record
from prsmd.store import attestations, audit, meta
from prsmd.store.db import CONTROL, USAGE, Database, WriterLimits
from prsmd.store.errors import StoreClosedError, StoreDamagedError, StoreFailedError
from prsmd.store.recovering import RecoveringDatabase
from tests.store.test_store_faults import no_file_larger_than, small_disk

__all__ = ["small_disk"]
LIMITS = WriterLimits(retry_seconds=0)


async def add(tx):
    await tx.execute_fetchall("INSERT INTO t VALUES (zeroblob(3000))")


async def make(tx):
    await tx.execute_fetchall("CREATE TABLE IF NOT EXISTS t (value BLOB)")


async def count(database):
    async with database.read() as tx:
        [[found]] = await tx.execute_fetchall("SELECT count(*) FROM t")
    return found


async def until_refused(database):
    kept = 0
    while True:
        try:
            await database.write(add)
        except PrsmdError as error:
            return kept, error
        kept += 1


def enlarge(folder):
    subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)


async def opened(folder, limits=LIMITS):
    database = await RecoveringDatabase.open(folder, limits, USAGE)
    await database.write(make)
    return database


async def test_an_io_error_at_commit_ends_nothing_and_what_was_acknowledged_is_there(tmp_path):
    database = await opened(tmp_path, WriterLimits(retry_seconds=0, checkpoint_every=10**6))
    with no_file_larger_than(200 * 1024):
        kept, error = await until_refused(database)
    assert isinstance(error, StoreFailedError)
    assert not database.fatal.done()
    await database.write(add)
    assert database.writable
    assert await count(database) == kept + 1
    await database.close()


async def test_a_really_full_disk_is_waited_out(small_disk):
    database = await opened(small_disk)
    kept, error = await until_refused(database)
    assert isinstance(error, StorageFullError)
    assert not database.writable
    assert await count(database) == kept
    enlarge(small_disk)
    await database.write(add)
    assert database.writable
    assert await count(database) == kept + 1
    await database.close()


async def test_a_file_that_is_removed_is_made_anew_and_one_put_in_its_place_is_used(
    tmp_path, caplog
):
    (tmp_path / "state").mkdir()
    database = await opened(tmp_path / "state")
    await database.write(add)
    before = tmp_path / "before.db"
    await database.backup(before)
    (tmp_path / "state" / "usage.db").unlink()
    assert not database.writable
    await database.write(make)
    assert await count(database) == 0
    assert "was removed or replaced" in caplog.text
    assert "can be written again" in caplog.text
    shutil.move(before, tmp_path / "state" / "usage.db")
    await database.write(add)
    assert await count(database) == 2
    await database.close()


async def test_a_reader_that_is_at_work_when_the_file_goes_finishes_and_the_next_see_the_new_one(
    tmp_path,
):
    database = await opened(tmp_path)
    await database.write(add)
    async with database.read() as tx:
        await tx.execute_fetchall("SELECT count(*) FROM t")
        (tmp_path / "usage.db").unlink()
        await database.write(make)
        [[still]] = await tx.execute_fetchall("SELECT count(*) FROM t")
    assert (still, await count(database)) == (1, 0)
    await database.close()


async def test_readers_that_wait_when_the_file_goes_are_refused_not_forgotten(tmp_path):
    database = await opened(tmp_path)
    async with database.read(), database.read():
        waiting = [asyncio.create_task(count(database), name=f"count-{n}") for n in range(3)]
        await asyncio.sleep(0)
        (tmp_path / "usage.db").unlink()
        await database.write(make)
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in found} == {StoreClosedError}
    await database.close()


async def test_while_it_is_away_it_is_refused_in_words_and_not_tried_all_the_time(tmp_path, caplog):
    database = await opened(tmp_path, WriterLimits(retry_seconds=3600))
    (tmp_path / "usage.db").unlink()
    (tmp_path / "usage.db").mkdir()
    for _ in range(3):
        with pytest.raises(StorageFullError, match=r"usage\.db cannot be used"):
            await database.write(make)
        with pytest.raises(StorageFullError, match="cannot be used"):
            database.read()
    assert caplog.text.count("is away") == 1
    await database.close()


async def test_a_start_finds_it_failing_and_goes_on_without_it(tmp_path):
    (tmp_path / "usage.db").mkdir()
    database = await RecoveringDatabase.open(tmp_path, LIMITS, USAGE)
    assert not database.writable
    with pytest.raises(StorageFullError, match="cannot be used"):
        await database.write(make)
    (tmp_path / "usage.db").rmdir()
    await database.write(make)
    assert database.writable
    await database.close()


async def test_a_start_with_a_damaged_one_moves_it_aside_and_says_so(tmp_path, caplog):
    content = b"not a database" * 1000
    (tmp_path / "usage.db").write_bytes(content)
    database = await RecoveringDatabase.open(tmp_path, LIMITS, USAGE)
    await database.write(make)
    [aside] = tmp_path.glob("usage.db.damaged-*")
    assert aside.read_bytes() == content
    assert database.writable
    assert [aside.name in words for words in database.losses] == [True]
    assert "usage.db is damaged" in caplog.text
    await database.close()


async def test_one_that_is_damaged_too_often_stays_closed(tmp_path):
    for number in range(3):
        (tmp_path / f"usage.db.damaged-{number}Z").touch()
    (tmp_path / "usage.db").write_bytes(b"not a database" * 1000)
    database = await RecoveringDatabase.open(tmp_path, LIMITS, USAGE)
    assert not database.writable
    assert "is damaged" in database.damage
    with pytest.raises(StorageFullError, match=r"is damaged.*Restore a backup"):
        await database.write(make)
    await database.close()


async def test_one_that_is_damaged_while_it_is_open_is_begun_anew(tmp_path):
    database = await opened(tmp_path)
    for _ in range(20):
        await database.write(add)
    for name in ("usage.db", "usage.db-wal"):
        with (tmp_path / name).open("r+b") as file:
            file.write(b"\xff" * (tmp_path / name).stat().st_size)
    with pytest.raises(StoreDamagedError, match=r"usage\.db is damaged"):
        await database.examine()
    assert "is damaged" in database.damage
    await database.write(make)
    assert database.damage is None
    assert len(database.losses) == 1
    assert await count(database) == 0
    await database.close()


async def test_one_of_another_release_stays_closed_as_it_is(tmp_path):
    database = await opened(tmp_path)
    await database.write(_of_a_newer_release)
    await database.close()
    before = (tmp_path / "usage.db").read_bytes()
    database = await RecoveringDatabase.open(tmp_path, LIMITS, USAGE)
    assert "newer prsmd" in database.damage
    await database.close()
    assert (tmp_path / "usage.db").read_bytes() == before


async def _of_a_newer_release(tx):
    await tx.execute_fetchall("INSERT INTO schema_migrations VALUES (999, 'later', 'x', 0)")


async def test_what_is_desired_is_never_away(tmp_path):
    with pytest.raises(ValueError, match="must not be away"):
        await RecoveringDatabase.open(tmp_path, LIMITS, CONTROL)


@pytest.mark.parametrize("name", ["control.db", "control.db-wal"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_control_file_that_is_gone_refuses_what_the_next_start_would_not_find(
    tmp_path, how, name
):
    database = await Database.open(tmp_path / "state")
    await database.write(lambda tx: meta.set(tx, "k", "kept"))
    path, aside = tmp_path / "state" / name, tmp_path / "aside.db"
    path.rename(aside)
    if how == "replaced":
        path.write_bytes(b"")
    with pytest.raises(StorageFullError, match=r"removed or replaced.*Nothing was changed"):
        await database.write(lambda tx: meta.set(tx, "k", "lost"))
    assert not database.writable
    assert not database.fatal.done()
    aside.replace(path)
    assert database.writable
    async with database.read() as tx:
        assert await meta.get(tx, "k") == "kept"
    await database.write(lambda tx: meta.set(tx, "k", "changed"))
    await database.close()


async def without_its_chain(tx):
    await tx.execute_fetchall("DELETE FROM audit_chain")


@pytest.mark.parametrize("at", ["start", "run"])
async def test_a_log_without_its_place_is_moved_aside_and_an_empty_one_begun(tmp_path, at):
    database = await RecoveringDatabase.open(tmp_path, LIMITS, USAGE)
    await database.write(without_its_chain)
    if at == "start":
        await database.close()
        database = await RecoveringDatabase.open(tmp_path, LIMITS, USAGE)
    else:
        with pytest.raises(StorageFullError, match=r"usage.db is damaged: audit_chain .*Restore"):
            async with database.read() as tx:
                await attestations.chain(tx)
    await database.ping()
    async with database.read() as tx:
        assert (await attestations.chain(tx)).head.sequence == 0
    [words] = database.losses
    assert "usage.db is damaged: audit_chain does not have its one row. Restore a backup" in words
    await database.close()


@pytest.mark.parametrize("table", ["audit", "denials"])
async def test_a_control_file_whose_log_has_no_place_is_refused(tmp_path, table):
    database = await Database.open(tmp_path)
    await database.write(lambda tx: tx.execute_fetchall(f"DELETE FROM {table}_chain"))
    record = own_record(1.0, "acme", "audit.begin", "audit", {})
    with pytest.raises(StoreDamagedError, match=r"control.db is damaged: .*Restore a backup"):
        await database.write(lambda tx: audit.append(tx, record, table))
    assert database.damage is not None
    await database.close()
    with pytest.raises(StoreDamagedError, match=rf"{table}_chain does not have its one row"):
        await Database.open(tmp_path)


async def test_a_control_file_that_lost_its_identity_while_it_is_open_is_damaged(tmp_path):
    database = await Database.open(tmp_path)
    await database.write(lambda tx: tx.execute_fetchall("DELETE FROM meta"))
    with pytest.raises(StoreDamagedError, match=r"control.db is damaged: meta.value"):
        async with database.read() as tx:
            await meta.instance_id(tx)
    await database.close()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a FIFO", "a folder"])
async def test_what_is_no_journal_is_not_waited_for(tmp_path, make):
    for name in ("control.db", "usage.db"):
        make(tmp_path / f"{name}-journal")
    with pytest.raises(StoreDamagedError, match=r"control.db-journal is damaged: it is no file"):
        await Database.open(tmp_path)
    database = await RecoveringDatabase.open(tmp_path, LIMITS, USAGE)
    assert database.writable
    assert len(database.losses) == 1
    await database.close()


async def test_a_control_file_that_is_known_to_be_damaged_is_written_no_more(tmp_path):
    await (await Database.open(tmp_path / "state")).close()  # nothing is left in the -wal
    database = await Database.open(tmp_path / "state")
    with (tmp_path / "state" / "control.db").open("r+b") as file:
        file.write(b"\xff" * 100)
    with pytest.raises(StoreDamagedError):
        await database.examine()
    with pytest.raises(StorageFullError, match="Nothing was changed"):
        await database.write(lambda tx: meta.set(tx, "k", "lost"))
    await database.close()


async def test_a_checkpoint_leaves_the_write_ahead_log_in_place(tmp_path):
    database = await Database.open(tmp_path / "state", WriterLimits(checkpoint_every=1))
    for number in range(20):
        await database.write(lambda tx, number=number: meta.set(tx, f"k{number}", "x" * 10_000))
    await database.backup(tmp_path / "copy.db")
    assert database.in_place()
    await database.close()
