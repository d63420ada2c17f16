"""Callers write in turn and within bounds; the daemon's own writes never wait for theirs."""

import asyncio
import contextlib

import pytest

from prsmd.core.fair_queue import Asker
from prsmd.domain.errors import ResourceUnavailableError
from prsmd.store import meta
from prsmd.store.asking import asking_for
from prsmd.store.db import Database, WriterLimits

LOUD, OTHER, QUIET = Asker("acme", "loud"), Asker("acme", "other"), Asker("globex", "quiet")


class Held:
    """A database whose writer is busy until it is let go; `order` is who was written, in turn."""

    def __init__(self, database):
        self.database = database
        self.order = []
        self.go_on = asyncio.Event()
        self.tasks = []

    async def hold(self):
        entered = asyncio.Event()

        async def transaction(tx):
            entered.set()
            await self.go_on.wait()

        self.tasks.append(asyncio.create_task(self.database.write(transaction)))
        await entered.wait()

    async def ask(self, who, name, then=None):
        async def transaction(tx):
            self.order.append(name)
            await meta.set(tx, name, "v")
            return name

        with contextlib.nullcontext() if who is None else asking_for(who):
            task = asyncio.create_task(self.database.write(transaction, then))
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    async def let_go(self):
        self.go_on.set()
        return await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def held(tmp_path):
    limits = WriterLimits(waiting=3, group_seconds=60.0)
    database = await Database.open(tmp_path / "state", limits)
    made = Held(database)
    await made.hold()
    yield made
    await made.let_go()
    await database.close()


async def test_organizations_take_turns_and_their_principals_each_in_its_own_order(held):
    for number in range(3):
        await held.ask(LOUD, f"loud-{number}")
    for number in range(2):
        await held.ask(OTHER, f"other-{number}")
    await held.ask(QUIET, "quiet")
    await held.let_go()
    assert held.order == ["loud-0", "quiet", "other-0", "loud-1", "other-1", "loud-2"]


async def test_the_daemon_s_own_writes_come_before_those_of_callers(held):
    await held.ask(LOUD, "loud")
    for number in range(5):
        await held.ask(None, f"own-{number}")
    await held.let_go()
    assert held.order == [*(f"own-{number}" for number in range(5)), "loud"]


async def test_a_caller_has_so_many_waiting_and_is_told_when_one_is_too_many(held):
    for number in range(3):
        await held.ask(LOUD, f"loud-{number}")
    refused = await held.ask(LOUD, "one too many")
    await held.ask(QUIET, "quiet")
    with pytest.raises(ResourceUnavailableError, match="3 of your changes wait") as refusal:
        await refused
    assert refusal.value.status_hint == 503
    assert refusal.value.details["reason"] == "too many changes of one caller wait to be written"
    await held.let_go()
    assert held.order == ["loud-0", "quiet", "loud-1", "loud-2"]
    await held.ask(LOUD, "again")
    assert "again" in await held.let_go()


async def test_a_commit_that_takes_long_leaves_the_rest_to_the_next_one(tmp_path):
    database = await Database.open(tmp_path / "state", WriterLimits(group_seconds=0.0))
    held, commits = Held(database), []

    async def trace(tx):
        await tx.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    await database.write(trace)
    commits.clear()
    await held.hold()
    for number in range(4):
        await held.ask(None, f"own-{number}")
    await held.let_go()
    assert commits == ["COMMIT"] * 5
    await database.close()


async def test_memory_follows_the_store_in_the_order_of_the_commits(held):
    taken = []
    for name in ("loud-0", "loud-1"):
        await held.ask(LOUD, name, taken.append)
    quiet = await held.ask(QUIET, "quiet", taken.append)
    quiet.cancel()
    await asyncio.sleep(0)
    assert quiet.cancelled()
    await held.let_go()
    assert taken == held.order == ["loud-0", "quiet", "loud-1"]


async def test_what_cannot_be_taken_over_fails_its_own_caller_only(held):
    def fails(name):
        raise LookupError(name)

    await held.ask(LOUD, "loud", fails)
    await held.ask(QUIET, "quiet")
    _, failed, written = await held.let_go()
    assert isinstance(failed, LookupError)
    assert written == "quiet"
