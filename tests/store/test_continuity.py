"""A control file that was emptied, lost, put back or is another one is not taken for the state."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from prsmd.store import meta, orders
from prsmd.store.db import Database
from prsmd.store.errors import StoreDamagedError, StoreLockedError, StoreNotItsOwnError

TRACES = (
    *("usage.db", "control.head", "audit-checkpoints.jsonl", "audit-public-keys.pem"),
    *("audit-key", "pepper", "envelope-key", "control.db-wal"),
)


async def lived_in(folder, commits=3):
    """A folder whose daemon made so many commits and was killed: its -wal is there."""
    database = await Database.open(folder / "alive")
    for number in range(commits):
        await database.write(lambda tx, n=number: meta.set(tx, f"key-{n}", "value"))
    shutil.copytree(folder / "alive", folder / "state")
    await database.close()
    (folder / "state" / "lock").unlink()
    return folder / "state"


async def value(folder, key):
    database = await Database.open(folder)
    try:
        async with database.read() as tx:
            return await meta.get(tx, key)
    finally:
        await database.close()


async def test_a_killed_daemons_folder_opens_with_all_that_was_acknowledged(tmp_path):
    assert await value(await lived_in(tmp_path), "key-2") == "value"


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("gone", ["missing", "emptied"])
async def test_no_control_file_beside_any_trace_is_refused(tmp_path, trace, gone):
    state = await lived_in(tmp_path)
    content = (state / trace).read_bytes() if (state / trace).exists() else b"something"
    shutil.rmtree(state)
    state.mkdir()
    (state / trace).write_bytes(content)
    if gone == "emptied":
        (state / "control.db").touch()

    with pytest.raises(StoreNotItsOwnError, match=f"{trace}.*prsmd --new-instance"):
        await Database.open(state)
    assert (state / trace).read_bytes() == content


@pytest.mark.parametrize("folder", ["runs", "logs"])
async def test_folders_of_replicas_are_a_trace(tmp_path, folder):
    (tmp_path / folder / "one").mkdir(parents=True)

    with pytest.raises(StoreNotItsOwnError, match=f"{folder}/"):
        await Database.open(tmp_path)


async def test_a_folder_without_a_trace_is_a_new_one(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "control.db").touch()

    assert await value(tmp_path, "key-1") is None


@pytest.mark.parametrize("checkpointed", [False, True])
async def test_a_lost_write_ahead_log_is_refused(tmp_path, checkpointed):
    state = await lived_in(tmp_path)
    if checkpointed:
        with closing(sqlite3.connect(state / "control.db")) as database:
            database.execute("SELECT 1 FROM meta").fetchall()
        assert not (state / "control.db-wal").exists()
        later = await Database.open(state)
        await later.write(lambda tx: meta.set(tx, "later", "value"))
        shutil.copytree(state, tmp_path / "again")
        await later.close()
        state = tmp_path / "again"
        (state / "lock").unlink()
    (state / "control.db-wal").unlink()
    (state / "control.db-shm").unlink()

    with pytest.raises(StoreNotItsOwnError, match=r"new: there is|commits were made|-wal was lost"):
        await Database.open(state)


async def test_a_log_that_someone_else_wrote_back_is_no_loss(tmp_path):
    state = await lived_in(tmp_path)
    with closing(sqlite3.connect(state / "control.db")) as database:
        database.execute("SELECT 1 FROM meta").fetchall()
    assert not (state / "control.db-wal").exists()

    assert await value(state, "key-2") == "value"


async def test_a_cut_write_ahead_log_is_refused(tmp_path):
    state = await lived_in(tmp_path, commits=20)
    log = state / "control.db-wal"
    log.write_bytes(log.read_bytes()[: log.stat().st_size - 5000])

    with pytest.raises(StoreNotItsOwnError, match=r"\d+ commits, and 20 were made"):
        await Database.open(state)


async def test_the_state_of_another_instance_is_refused(tmp_path):
    state = await lived_in(tmp_path)
    other = await Database.open(tmp_path / "other")
    await other.close()
    (state / "control.db-wal").unlink()
    shutil.copy(tmp_path / "other" / "control.db", state / "control.db")

    with pytest.raises(StoreNotItsOwnError, match=r"is the state of instance_\w+, and "):
        await Database.open(state)


async def test_an_older_copy_is_refused_until_somebody_accepts_it(tmp_path):
    state = await lived_in(tmp_path)
    database = await Database.open(state)
    await database.close()
    shutil.copy(state / "control.db", tmp_path / "backup.db")
    database = await Database.open(state)
    await database.write(lambda tx: meta.set(tx, "later", "value"))
    await database.close()
    shutil.copy(tmp_path / "backup.db", state / "control.db")

    with pytest.raises(StoreNotItsOwnError, match="prsmd --accept-state"):
        await Database.open(state)
    orders.accept(state)
    assert await value(state, "later") is None
    assert await value(state, "key-2") == "value"


async def test_a_whole_folder_put_back_is_the_state(tmp_path):
    state = await lived_in(tmp_path)
    shutil.copytree(state, tmp_path / "backup")
    database = await Database.open(state)
    await database.write(lambda tx: meta.set(tx, "later", "value"))
    await database.close()

    assert await value(tmp_path / "backup", "later") is None


async def test_a_new_instance_begins_when_it_is_ordered_and_nothing_is_lost(tmp_path):
    state = await lived_in(tmp_path)
    (state / "pepper").write_bytes(b"p" * 32)
    (state / "control.db").unlink()
    said = orders.begin_anew(state)

    assert await value(state, "key-2") is None
    assert await value(state, "key-2") is None
    [aside] = state.glob("before-*")
    assert str(aside) in said
    assert (aside / "pepper").read_bytes() == b"p" * 32
    assert not (state / "pepper").exists()


async def test_nothing_is_ordered_of_a_folder_in_use(database):
    for order in (orders.begin_anew, orders.accept):
        with pytest.raises(StoreLockedError):
            order(database.path.parent)


@pytest.mark.parametrize("content", [b"", b"garbage", b"instance_x 1 00000000\n", b"\xff" * 64])
async def test_a_damaged_head_is_refused_in_words(tmp_path, content):
    state = await lived_in(tmp_path)
    (state / "control.head").write_bytes(content)

    with pytest.raises(StoreDamagedError, match=r"control\.head is damaged: .*Restore a backup"):
        await Database.open(state)
    (state / "control.head").unlink()
    assert await value(state, "key-2") == "value"


async def test_a_head_that_links_to_nothing_is_refused(tmp_path):
    state = await lived_in(tmp_path)
    (state / "control.head").unlink()
    (state / "control.head").symlink_to(tmp_path / "nothing")

    with pytest.raises(StoreDamagedError, match="is damaged: it is a link to nothing"):
        await Database.open(state)


async def test_the_head_never_says_more_than_is_on_the_disk(tmp_path):
    database = await Database.open(tmp_path)

    async def fails(tx):
        await meta.set(tx, "key", "value")
        raise ValueError("not so")

    with pytest.raises(ValueError, match="not so"):
        await database.write(fails)
    await database.write(lambda tx: meta.set(tx, "key", "value"))
    said = int((tmp_path / "control.head").read_text().split()[1])
    async with database.read() as tx:
        assert said == await meta.commits(tx)
    await database.close()
