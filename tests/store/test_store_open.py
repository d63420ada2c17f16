"""Opening: who may, what is checked, what is made; and backups."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from prsmd.domain.errors import ConflictError, StorageFullError
from prsmd.store import meta
from prsmd.store.db import Database
from prsmd.store.errors import BackupError, StoreClosedError, StoreDamagedError, StoreLockedError

HOLDER = """
import asyncio, sys
from pathlib import Path
from prsmd.store.db import Database

async def main():
    database = await Database.open(Path(sys.argv[1]))
    print("open", flush=True)
    sys.stdin.read()
    await database.close()

asyncio.run(main())
"""


async def _instance(database):
    async with database.read() as tx:
        return await meta.instance_id(tx)


async def test_the_instance_id_is_made_once_and_kept(tmp_path):
    seen = []
    for _ in range(2):
        database = await Database.open(tmp_path / "a")
        seen.append(await _instance(database))
        await database.close()
    other = await Database.open(tmp_path / "b")
    assert seen[0] == seen[1] != await _instance(other)
    await other.close()


async def test_folder_and_files_are_closed_to_others(database):
    folder = database.path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await database.write(lambda tx: meta.set(tx, "k", "v"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes) == {"lock", "control.head", "control.db", "control.db-wal", "control.db-shm"}
    assert set(modes.values()) == {0o600}


async def test_the_connections_are_set_up_as_promised(database):
    async def settings_of(tx):
        names = ("journal_mode", "trusted_schema", "wal_autocheckpoint", "query_only")
        names += ("synchronous", "foreign_keys")
        rows = [await tx.execute_fetchall(f"PRAGMA {name}") for name in names]
        return [row[0][0] for row in rows]

    assert await database.write(settings_of) == ["wal", 0, 0, 0, 2, 1]
    async with database.read() as tx:
        assert (await settings_of(tx))[:4] == ["wal", 0, 0, 1]


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"open\n"
    yield process
    process.kill()
    process.communicate()


async def test_a_second_process_is_refused_with_the_holders_pid_until_it_ends(tmp_path, holder):
    with pytest.raises(StoreLockedError, match=rf"process {holder.pid}\)"):
        await Database.open(tmp_path)
    holder.kill()
    holder.wait()
    database = await Database.open(tmp_path)  # the killed holder's lock is gone with it
    await database.close()


def test_a_process_that_dies_without_closing_the_store_ends_all_the_same(tmp_path):
    code = HOLDER.replace('print("open", flush=True)', "raise SystemExit(70)")
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False)
    assert ended.returncode == 70


async def test_one_process_cannot_open_a_folder_twice(database):
    with pytest.raises(StoreLockedError, match=str(os.getpid())):
        await Database.open(database.path.parent)


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "control.db"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreDamagedError, match="damaged"):
        await Database.open(tmp_path)
    assert path.read_bytes() == before


async def test_a_damaged_page_is_found_at_start(tmp_path):
    database = await Database.open(tmp_path)
    await database.write(lambda tx: _fill(tx, 500))
    await database.close()
    with database.path.open("r+b") as file:
        file.seek(-20_000, os.SEEK_END)
        file.write(b"\xff" * 12_000)
    with pytest.raises(StoreDamagedError, match=r"control\.db is damaged: .*Restore a backup"):
        await Database.open(tmp_path)


async def _fill(tx, count):
    for number in range(count):
        await meta.set(tx, f"key-{number:05}", "x" * 200)


async def test_a_folder_that_cannot_be_made_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFullError, match="cannot be used for the state"):
        await Database.open(tmp_path / "file" / "state")


async def test_a_backup_opens_and_holds_what_was_acknowledged(database, tmp_path):
    await database.write(lambda tx: meta.set(tx, "k", "before"))
    copy = tmp_path / "copy"
    copy.mkdir()
    await database.backup(copy / "control.db")
    await database.write(lambda tx: meta.set(tx, "k", "after"))
    assert stat.S_IMODE((copy / "control.db").stat().st_mode) == 0o600
    assert [path.name for path in copy.iterdir()] == ["control.db"]
    restored = await Database.open(copy)
    async with restored.read() as tx:
        assert await meta.get(tx, "k") == "before"
    assert await _instance(restored) == await _instance(database)
    await restored.close()


async def test_a_backup_never_overwrites_and_leaves_nothing_when_it_fails(database, tmp_path):
    there = tmp_path / "there"
    there.write_text("precious")
    with pytest.raises(ConflictError, match="exists already"):
        await database.backup(there)
    assert there.read_text() == "precious"
    with pytest.raises(BackupError):
        await database.backup(tmp_path / "missing" / "copy")
    await database.write(lambda tx: meta.set(tx, "still", "works"))


async def test_closing_finishes_what_waits_and_then_refuses(tmp_path):
    database = await Database.open(tmp_path)
    waiting = [
        asyncio.create_task(database.write(lambda tx, n=n: meta.set(tx, f"k{n}", "v")))
        for n in range(20)
    ]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*waiting)
    with pytest.raises(StoreClosedError):
        await database.write(lambda tx: meta.set(tx, "k", "late"))
    with pytest.raises(StoreClosedError):
        async with database.read():
            pass
    with sqlite3.connect(database.path) as connection:
        [count] = connection.execute("SELECT count(*) FROM meta WHERE value = 'v'").fetchone()
    connection.close()
    assert count == 20
