"""Kills, full disks and failing commits: nothing acknowledged is lost, nothing half done stays."""

import asyncio
import contextlib
import resource
import subprocess
import sys

import pytest

from prsmd.domain.errors import StorageFullError
from prsmd.store import meta
from prsmd.store.db import Database, WriterLimits
from prsmd.store.errors import BackupError, StoreFailedError
from tests.support.small_disks import mounted

KILLS = 10
WRITER = """
import asyncio, os, sys
from pathlib import Path
from prsmd.store import meta
from prsmd.store.db import Database, WriterLimits

async def pair(tx, name):
    await meta.set(tx, name + "-a", "x" * 500)
    await meta.set(tx, name + "-b", "x" * 500)

async def stream(database, name):
    number = 0
    while True:
        await database.write(lambda tx: pair(tx, f"{name}-{number}"))
        os.write(1, f"{name}-{number}\\n".encode())
        number += 1

async def main():
    database = await Database.open(Path(sys.argv[1]), WriterLimits(checkpoint_every=20))
    run = sys.argv[2]
    async with asyncio.TaskGroup() as group:
        for each in range(8):
            group.create_task(stream(database, f"run{run}-{each}"))

asyncio.run(main())
"""


def _kill_after(folder, run, acknowledgements):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(run)],
        stdout=subprocess.PIPE,
        text=True,
    )
    seen = [process.stdout.readline() for _ in range(acknowledgements)]
    process.kill()
    rest, _ = process.communicate()
    lines = "".join(seen) + rest
    return {line for line in lines.split("\n")[:-1] if line}


async def test_kill_9_in_the_middle_of_writing_loses_nothing_acknowledged(tmp_path):
    acknowledged = set()
    for run in range(KILLS):
        acknowledged |= _kill_after(tmp_path, run, 5 + 23 * run)
        database = await Database.open(tmp_path)
        async with database.read() as tx:
            keys = {row[0] for row in await tx.execute_fetchall("SELECT key FROM meta")}
        await database.close()
        assert {f"{name}-a" for name in acknowledged} <= keys
        halves = {key[:-2] for key in keys if key.startswith("run")}
        assert all({f"{name}-a", f"{name}-b"} <= keys for name in halves)
    assert len(acknowledged) > KILLS * 20


async def _fill(database, keys):
    for number in range(keys):
        await database.write(lambda tx, n=number: meta.set(tx, f"fill-{n}", "x" * 3000))


async def _pages(tx, count=None):
    await tx.execute_fetchall(f"PRAGMA max_page_count = {count or 2**30}")


async def test_a_full_database_refuses_writes_goes_on_reading_and_recovers(database):
    await database.write(lambda tx: meta.set(tx, "k", "kept"))
    await database.write(lambda tx: _pages(tx, 60))
    with pytest.raises(StorageFullError) as refusal:
        await _fill(database, 200)
    assert refusal.value.retryable
    assert not database.writable
    assert not database.fatal.done()
    async with database.read() as tx:
        assert await meta.get(tx, "k") == "kept"
    await database.write(_pages)
    assert database.writable
    await _fill(database, 200)


async def test_a_transaction_too_large_for_the_disk_leaves_its_neighbours_alone(database):
    await database.write(lambda tx: _pages(tx, 60))

    async def huge(tx):
        for number in range(200):
            await meta.set(tx, f"huge-{number}", "x" * 3000)

    answers = await asyncio.gather(
        database.write(lambda tx: meta.set(tx, "before", "v")),
        database.write(huge),
        database.write(lambda tx: meta.set(tx, "after", "v")),
        return_exceptions=True,
    )
    async with database.read() as tx:
        stored = [await meta.get(tx, key) for key in ("before", "huge-0", "after")]
    assert isinstance(answers[1], StorageFullError)
    for answer, value in zip(answers, stored, strict=True):
        assert (value == "v") == (answer is None)  # told the truth, whatever SQLite rolled back


async def test_after_a_full_disk_writes_are_refused_at_once_for_a_while(tmp_path):
    database = await Database.open(tmp_path, WriterLimits(retry_seconds=3600))
    await database.write(lambda tx: _pages(tx, 60))
    with pytest.raises(StorageFullError):
        await _fill(database, 200)
    tried = []

    async def note(tx):
        tried.append(tx)

    with pytest.raises(StorageFullError, match="a moment ago"):
        await database.write(note)
    assert tried == []
    assert await database.ping() > 0
    await database.close()


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", 6) as folder:
        yield folder


async def test_a_really_full_disk_refuses_writes_until_there_is_room_again(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(600 * 1024))
    database = await Database.open(small_disk / "state", WriterLimits(retry_seconds=0))
    await database.write(lambda tx: meta.set(tx, "k", "kept"))
    with pytest.raises(StorageFullError):
        await _fill(database, 400)
    assert not database.writable
    async with database.read() as tx:
        assert await meta.get(tx, "k") == "kept"
    ballast.unlink()
    await database.write(lambda tx: meta.set(tx, "room", "again"))
    assert database.writable
    assert not database.fatal.done()
    await database.close()
    reopened = await Database.open(small_disk / "state")
    async with reopened.read() as tx:
        assert await meta.get(tx, "room") == "again"
    await reopened.close()


async def test_that_there_is_room_again_is_found_out_without_anybody_writing(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(600 * 1024))
    limits = WriterLimits(retry_seconds=0, probe_seconds=0)
    database = await Database.open(small_disk / "state", limits)
    with pytest.raises(StorageFullError):
        await _fill(database, 400)
    ballast.unlink()
    async with asyncio.timeout(20):
        while not database.writable:
            await database.ping()
    await database.close()


@contextlib.contextmanager
def no_file_larger_than(size):
    """Make the kernel refuse writes past `size` with EFBIG, which SQLite meets as an I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_an_io_error_at_commit_is_fatal_and_told_to_everyone_who_waits(tmp_path):
    database = await Database.open(tmp_path, WriterLimits(checkpoint_every=10**6))
    await database.write(lambda tx: meta.set(tx, "k", "kept"))
    with no_file_larger_than(200 * 1024):
        with pytest.raises(StoreFailedError, match="could not be committed"):
            await _fill(database, 400)
        answers = await asyncio.gather(
            database.write(lambda tx: meta.set(tx, "k", "lost")),
            database.ping(),
            return_exceptions=True,
        )
    assert [type(answer) for answer in answers] == [StoreFailedError] * 2
    assert isinstance(database.fatal.result(), StoreFailedError)
    assert not database.writable
    async with database.read() as tx:
        assert await meta.get(tx, "k") == "kept"
    await database.close()
    reopened = await Database.open(tmp_path)
    async with reopened.read() as tx:
        assert await meta.get(tx, "k") == "kept"
    await reopened.close()


async def test_an_io_error_while_writing_back_is_fatal_after_the_writes_were_kept(tmp_path):
    database = await Database.open(tmp_path)
    await _fill(database, 100)
    await database.close()  # the file is now larger than the limit below; the log starts small
    database = await Database.open(tmp_path, WriterLimits(checkpoint_every=10))
    with no_file_larger_than(200 * 1024):
        for number in range(90, 100):
            await database.write(lambda tx, n=number: meta.set(tx, f"fill-{n}", "kept"))
        with pytest.raises(StoreFailedError, match="could not be written back"):
            await database.ping()
    assert database.fatal.done()
    await database.close()
    reopened = await Database.open(tmp_path)
    async with reopened.read() as tx:
        assert {await meta.get(tx, f"fill-{n}") for n in range(90, 100)} == {"kept"}
    await reopened.close()


async def test_a_backup_that_does_not_fit_leaves_nothing_and_the_store_as_it_was(
    database, tmp_path
):
    await _fill(database, 40)
    with no_file_larger_than(32 * 1024), pytest.raises(BackupError):
        await database.backup(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert database.writable
    await database.write(lambda tx: meta.set(tx, "still", "works"))
