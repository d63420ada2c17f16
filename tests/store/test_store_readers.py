"""Callers read in turn and within bounds; the daemon's own loops never wait for them."""

import asyncio
import contextlib

import pytest

from prsmd.core.fair_queue import Asker
from prsmd.domain.errors import ResourceUnavailableError
from prsmd.store.asking import asker, asking_for, for_nobody
from prsmd.store.db import Database, ReadLimits
from prsmd.store.errors import QueryTooExpensiveError, StoreClosedError
from tests.gateway.backends import until

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
LOUD, QUIET = Asker("acme", "loud"), Asker("globex", "quiet")


@pytest.fixture
async def database(tmp_path):
    reads = ReadLimits(readers=2, waiting=3, seconds=0.05)
    opened = await Database.open(tmp_path / "state", reads=reads)
    yield opened
    await opened.close()


async def read(database, sql="SELECT 1"):
    async with database.read() as tx:
        return [tuple(row) for row in await tx.execute_fetchall(sql)]


class Holder:
    """A reading that goes on until it is let go."""

    def __init__(self, database, who, order, name):
        self.go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(database, who, order, name), name=name)

    async def _hold(self, database, who, order, name):
        with contextlib.nullcontext() if who is None else asking_for(who):
            async with database.read() as tx:
                order.append(name)
                await tx.execute_fetchall("SELECT 1")
                await self.go.wait()


async def test_a_caller_s_query_that_costs_too_much_is_given_up_in_words(database):
    with asking_for(LOUD):
        with pytest.raises(QueryTooExpensiveError) as refused:
            await read(database, ENDLESS)
        assert refused.value.status_hint == 400
        assert "Narrow it: since and until" in refused.value.message
        assert await read(database) == [(1,)], "the connection is as good as before"


async def test_the_cost_is_of_one_reading_and_not_of_all_on_its_connection(database):
    work = ENDLESS.replace("FROM n)", "FROM n LIMIT 20000)")
    with asking_for(LOUD):
        for _ in range(30):
            await read(database, work)


async def test_the_daemon_s_own_queries_may_cost_anything(database):
    long = ENDLESS.replace("FROM n)", "FROM n LIMIT 1000000)")
    assert await read(database, long) == [(1_000_000,)]


async def test_a_caller_has_one_connection_and_others_go_on(database):
    order = []
    first = Holder(database, LOUD, order, "loud-1")
    second = Holder(database, LOUD, order, "loud-2")
    await until(lambda: order == ["loud-1"])
    other = Holder(database, QUIET, order, "quiet")
    own = Holder(database, None, order, "own")
    await until(lambda: set(order) == {"loud-1", "quiet", "own"})
    first.go.set()
    await until(lambda: "loud-2" in order)
    for holder in (second, other, own):
        holder.go.set()
        await holder.task


async def test_callers_never_hold_up_the_daemon_s_own_loops(database):
    order = []
    holders = [Holder(database, Asker(f"o{n}", "p"), order, str(n)) for n in range(2)]
    await until(lambda: len(order) == 2)
    assert await read(database) == [(1,)]
    for holder in holders:
        holder.go.set()
        await holder.task


async def test_who_has_too_much_waiting_is_refused(database):
    order = []
    holders = [Holder(database, LOUD, order, str(n)) for n in range(4)]
    await until(lambda: order == ["0"])
    with asking_for(LOUD), pytest.raises(ResourceUnavailableError, match="3 of your requests"):
        await read(database)
    with asking_for(QUIET):
        await read(database)
    for holder in holders:
        holder.go.set()
    await asyncio.gather(*(holder.task for holder in holders))


@pytest.mark.parametrize("served", [False, True], ids=["while it waits", "when its turn came"])
async def test_a_caller_that_goes_away_leaves_its_turn_to_the_next(database, served):
    order = []
    first = Holder(database, LOUD, order, "first")
    await until(lambda: order == ["first"])
    gone = Holder(database, LOUD, order, "gone")
    await asyncio.sleep(0)
    last = Holder(database, LOUD, order, "last")
    await asyncio.sleep(0)
    if served:
        first.go.set()
    gone.task.cancel()
    first.go.set()
    await asyncio.wait([gone.task])
    last.go.set()
    await last.task
    assert "gone" not in order or served
    with asking_for(LOUD):
        await read(database)


async def test_what_waits_when_the_state_closes_is_told_so(tmp_path):
    database = await Database.open(tmp_path / "state", reads=ReadLimits(readers=1))
    order = []
    holding = Holder(database, LOUD, order, "holding")
    await until(lambda: order == ["holding"])
    waiting = Holder(database, QUIET, order, "waiting")
    await asyncio.sleep(0)
    closing = asyncio.create_task(database.close(), name="close")
    await asyncio.sleep(0)
    holding.go.set()
    await closing
    await holding.task
    with pytest.raises(StoreClosedError):
        await waiting.task


async def test_what_a_request_begins_for_everybody_is_read_for_nobody():
    with asking_for(LOUD):
        inherited = asyncio.create_task(_who(), name="inherited")
        shared = asyncio.create_task(_who(), name="shared", context=for_nobody())
        assert await inherited == LOUD
        assert await shared is None
    assert asker() is None


async def _who():
    return asker()
