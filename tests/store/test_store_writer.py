"""One writer: groups commit together, failures stay with their caller, cancelling is harmless."""

import asyncio
import sqlite3

import pytest

from prsmd.domain.errors import ConflictError, ResourceUnavailableError
from prsmd.store import meta
from prsmd.store.db import Database, WriterLimits
from prsmd.store.errors import StoreBusyError, StoreFailedError, TransactionTimeoutError


async def _value(database, key):
    async with database.read() as tx:
        return await meta.get(tx, key)


def _setting(key, value="v"):
    async def transaction(tx):
        await meta.set(tx, key, value)
        return value

    return transaction


class Gate:
    """A transaction that holds the writer until it is told to go on."""

    def __init__(self, key):
        self.key = key
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, tx):
        await meta.set(tx, self.key, "half")
        self.entered.set()
        await self.go_on.wait()
        await meta.set(tx, self.key, "done")


async def test_a_write_returns_what_its_callable_returns_and_is_read_afterwards(database):
    assert await database.write(_setting("k", "v1")) == "v1"
    assert await _value(database, "k") == "v1"


async def test_waiting_transactions_share_one_commit(database):
    gate = Gate("gate")
    first = asyncio.create_task(database.write(gate))
    await gate.entered.wait()
    commits = []

    async def trace(tx):
        await tx.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    rest = [asyncio.create_task(database.write(trace))]
    rest += [asyncio.create_task(database.write(_setting(f"k{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    gate.go_on.set()
    await asyncio.gather(first, *rest)
    assert commits == ["COMMIT"]


async def test_one_failure_in_a_group_reaches_only_its_caller(database):
    gate = Gate("gate")
    first = asyncio.create_task(database.write(gate))
    await gate.entered.wait()

    async def fails(tx):
        await meta.set(tx, "bad", "half")
        raise LookupError("mine")

    async def clashes(tx):
        await meta.set(tx, "worse", "half")
        await tx.execute_fetchall("INSERT INTO meta VALUES ('good0', 'twice')")

    rest = [
        database.write(each)
        for each in (_setting("good0"), fails, _setting("good1"), clashes, _setting("good2"))
    ]
    answers = asyncio.gather(*rest, return_exceptions=True)
    await asyncio.sleep(0)
    gate.go_on.set()
    await first
    one, failed, two, clashed, three = await answers
    assert [one, two, three] == ["v"] * 3
    assert isinstance(failed, LookupError)
    assert isinstance(clashed, ConflictError)
    assert isinstance(clashed.__cause__, sqlite3.IntegrityError)
    assert [await _value(database, key) for key in ("good0", "good2")] == ["v", "v"]
    assert [await _value(database, key) for key in ("bad", "worse")] == [None, None]


async def test_a_caller_cancelled_inside_its_transaction_does_not_stop_it(database):
    gate = Gate("k")
    caller = asyncio.create_task(database.write(gate))
    await gate.entered.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.go_on.set()
    await database.write(_setting("next"))
    assert await _value(database, "k") == "done"


async def test_a_caller_cancelled_while_it_waits_gets_its_write_done_all_the_same(database):
    gate = Gate("gate")
    first = asyncio.create_task(database.write(gate))
    await gate.entered.wait()
    waiting = asyncio.create_task(database.write(_setting("k")))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.go_on.set()
    await first
    await database.ping()
    assert waiting.cancelled()
    assert await _value(database, "k") == "v"


async def test_a_cancelled_callers_failing_transaction_is_logged_and_hurts_nobody(database, caplog):
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def fails_late(tx):
        await meta.set(tx, "k", "half")
        entered.set()
        await go_on.wait()
        raise LookupError("too late to tell")

    caller = asyncio.create_task(database.write(fails_late))
    await entered.wait()
    caller.cancel()
    go_on.set()
    await database.write(_setting("next"))
    assert await _value(database, "k") is None
    assert "too late to tell" in caplog.text


async def test_a_transaction_that_is_cancelled_from_within_is_rolled_back(database):
    async def cancelled(tx):
        await meta.set(tx, "k", "half")
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await database.write(cancelled)
    await database.write(_setting("next"))
    assert await _value(database, "k") is None


async def test_a_transaction_that_never_ends_is_rolled_back_and_the_next_one_runs(tmp_path):
    database = await Database.open(tmp_path, WriterLimits(transaction_seconds=0.05))
    with pytest.raises(TransactionTimeoutError, match=r"longer than 0\.05 s"):
        await database.write(Gate("k"))
    await database.write(_setting("next"))
    assert await _value(database, "k") is None
    await database.close()


async def test_a_callables_own_timeout_stays_its_own(database):
    async def gives_up(tx):
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await database.write(gives_up)


async def test_a_callable_that_ends_the_transaction_itself_is_refused(database):
    async def commits(tx):
        await meta.set(tx, "k", "v")
        await tx.commit()

    with pytest.raises(Exception, match="could not be read or written"):
        await database.write(commits)
    await database.write(_setting("next"))


async def test_a_lock_held_by_another_process_is_a_retryable_refusal(database):
    async def impatient(tx):
        await tx.execute_fetchall("PRAGMA busy_timeout = 0")

    await database.write(impatient)
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError) as refusal:
        await database.write(_setting("k"))
    assert isinstance(refusal.value, ResourceUnavailableError)
    other.execute("ROLLBACK")
    other.close()
    assert await database.write(_setting("k")) == "v"


async def test_an_idle_writer_proves_that_it_lives(database):
    before = database.last_tick
    assert await database.ping() >= before
    first, second = await database.ping(), await database.ping()
    assert second > first


async def test_readers_go_on_while_a_transaction_is_open_and_see_nothing_of_it(database):
    await database.write(_setting("k", "old"))
    gate = Gate("k")
    writing = asyncio.create_task(database.write(gate))
    await gate.entered.wait()
    assert await _value(database, "k") == "old"
    gate.go_on.set()
    await writing
    assert await _value(database, "k") == "done"


async def test_a_reader_sees_one_snapshot_and_holds_up_no_writer(database):
    await database.write(_setting("k", "old"))
    async with database.read() as tx:
        assert await meta.get(tx, "k") == "old"
        await database.write(_setting("k", "new"))
        assert await meta.get(tx, "k") == "old"
    assert await _value(database, "k") == "new"


async def test_a_reader_cannot_write(database):
    async with database.read() as tx:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await meta.set(tx, "k", "v")


async def test_sqlite_errors_that_leave_a_reader_are_translated(database):
    with pytest.raises(Exception, match="could not be read") as refusal:
        async with database.read() as tx:
            await tx.execute_fetchall("SELECT no_such_function()")
    assert refusal.value.code == "INTERNAL"


async def test_cancelled_readers_leave_neither_snapshot_nor_connection_behind(database):
    inside = asyncio.Event()

    async def reads_for_ever():
        async with database.read() as tx:
            await meta.get(tx, "k")
            inside.set()
            await asyncio.Event().wait()

    for number in range(5):
        reader = asyncio.create_task(reads_for_ever())
        await inside.wait()
        inside.clear()
        await database.write(_setting("k", str(number)))
        reader.cancel()
        await asyncio.wait([reader])
        assert await _value(database, "k") == str(number)


async def test_more_readers_than_connections_take_turns(database):
    await database.write(_setting("k"))
    assert await asyncio.gather(*(_value(database, "k") for _ in range(20))) == ["v"] * 20


async def test_a_writer_task_that_is_cancelled_strands_nobody(tmp_path):
    database = await Database.open(tmp_path)
    gate = Gate("k")
    inside = asyncio.create_task(database.write(gate))
    await gate.entered.wait()
    waiting = asyncio.create_task(database.write(_setting("waits")))
    await asyncio.sleep(0)
    [task] = [each for each in asyncio.all_tasks() if each.get_name() == "store-writer"]
    task.cancel()
    answers = await asyncio.gather(inside, waiting, return_exceptions=True)
    assert isinstance(answers[0], StoreFailedError)
    with pytest.raises(Exception, match="closed"):
        raise answers[1]
    await database.close()
