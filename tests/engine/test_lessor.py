"""Leases over a real store: exact limits, blocks ahead, clean stops, crashes, failing stores."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prsmd.core.blocks import LARGEST_BLOCK, TOTAL
from prsmd.core.clock_steps import ClockSteps
from prsmd.core.meter import DAY_SECONDS, Meter, Refuse, Short
from prsmd.domain.errors import PrsmdError, ResourceUnavailableError, StorageFullError
from prsmd.domain.quota import UsageLimits
from prsmd.engine.lessor import Lessor
from prsmd.gateway.meters import Held
from prsmd.store import leases
from prsmd.store.db import Database
from tests.gateway.backends import until
from tests.store.test_store_faults import small_disk

__all__ = ["small_disk"]

NOON = 20_000 * DAY_SECONDS + DAY_SECONDS / 2
ACCOUNT = "key:k1"


class FullDatabase(Database):
    """A store whose disk is full."""

    async def write(self, transaction):
        raise StorageFullError("the disk is full")


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def lessor(folder: Path, clock: Clock, *, clean: bool = True) -> AsyncIterator[Lessor]:
    """Run a lessor; leaving is a clean stop, or else a crash."""
    database = await Database.open(folder)
    made = await Lessor.begin(database, clock)
    task = asyncio.create_task(made.run(), name="lessor")
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])
        if clean:
            await made.close()
        await database.close()


class LimitedError(PrsmdError):
    """A limit is reached."""

    def __init__(self, refusal: Refuse) -> None:
        super().__init__("limited")
        self.refusal = refusal


async def take(lessor: Lessor, meter: Meter) -> Held | Refuse:
    try:
        return await lessor.meters.admit(meter.account, meter.limits, LimitedError)
    except LimitedError as limited:
        return limited.refusal


async def passed(lessor: Lessor, meter: Meter, wanted: int) -> int:
    verdicts = [await take(lessor, meter) for _ in range(wanted)]
    return sum(isinstance(verdict, Held) for verdict in verdicts)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_hundred_race_for_the_last_one_and_one_gets_it(tmp_path, clock):
    limits = UsageLimits(total_requests=30)
    async with lessor(tmp_path, clock) as bank:
        meter = bank.meters.meter(ACCOUNT, limits)
        assert await passed(bank, meter, 29) == 29
        verdicts = await asyncio.gather(*(take(bank, meter) for _ in range(100)))
    assert sum(isinstance(verdict, Held) for verdict in verdicts) == 1
    assert {v.limit_type for v in verdicts if isinstance(v, Refuse)} == {"total_requests"}


async def test_a_hundred_at_once_share_what_there_is_and_no_more(tmp_path, clock):
    async with lessor(tmp_path, clock) as bank:
        meter = bank.meters.meter("s/o", UsageLimits(requests_per_day=73))
        verdicts = await asyncio.gather(*(take(bank, meter) for _ in range(100)))
    assert sum(isinstance(verdict, Held) for verdict in verdicts) == 73


async def test_a_clean_stop_gives_back_what_was_not_spent(tmp_path, clock):
    limits = UsageLimits(total_requests=1000)
    for _ in range(3):
        async with lessor(tmp_path, clock) as bank:
            assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 10) == 10
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 2000) == 970


async def test_a_crash_forfeits_at_most_a_block(tmp_path, clock):
    limits, done = UsageLimits(total_requests=1000), 0
    for _ in range(3):
        async with lessor(tmp_path, clock, clean=False) as bank:
            done += await passed(bank, bank.meters.meter(ACCOUNT, limits), 10)
    async with lessor(tmp_path, clock) as bank:
        done += await passed(bank, bank.meters.meter(ACCOUNT, limits), 2000)
    assert 1000 - 3 * LARGEST_BLOCK <= done < 1000


async def test_after_a_crash_a_pace_begins_at_nothing_and_after_a_clean_stop_where_it_was(
    tmp_path, clock
):
    limits = UsageLimits(requests_per_minute=10)
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 4) == 4
    async with lessor(tmp_path, clock, clean=False) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 10) == 6
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 10) == 0
        clock.now += 30
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 10) == 5


async def test_the_next_block_is_leased_before_anybody_has_to_wait(tmp_path, clock):
    database = await Database.open(tmp_path)
    bank = await Lessor.begin(database, clock)
    meter = bank.meters.meter(ACCOUNT, UsageLimits(total_requests=100_000))
    assert isinstance(meter.take(NOON), Short)
    bank.meters.lease(meter)
    await bank.serve()
    leases_made = 0
    for _ in range(500):
        assert isinstance(await take(bank, meter), Held)
        if bank.meters.wanted.is_set():
            leases_made += 1
            await bank.serve()
    assert leases_made == 500 // (LARGEST_BLOCK // 2)
    await database.close()


async def test_past_days_are_forgotten_by_the_next_lease(tmp_path, clock):
    limits = UsageLimits(requests_per_day=5)
    async with lessor(tmp_path, clock) as bank:
        meter = bank.meters.meter(ACCOUNT, limits)
        await take(bank, meter)
        clock.now += DAY_SECONDS
        await take(bank, meter)
        async with bank._database.read() as tx:
            assert await leases.reserved(tx, ACCOUNT, 20_000) == 1, "the clock may be set back"
        clock.now += 7 * DAY_SECONDS
        await take(bank, meter)
        async with bank._database.read() as tx:
            assert await leases.reserved(tx, ACCOUNT, 20_000) == 0
            assert await leases.reserved(tx, ACCOUNT, 20_001) == 1


async def test_a_store_that_cannot_be_written_lets_nothing_through_and_says_so(tmp_path, clock):
    async with lessor(tmp_path, clock, clean=False) as bank:
        meter = bank.meters.meter(ACCOUNT, UsageLimits(total_requests=5))
        bank._database.__class__ = FullDatabase
        with pytest.raises(ResourceUnavailableError, match="the disk is full"):
            await take(bank, meter)
        bank._database.__class__ = Database
        assert await passed(bank, meter, 10) == 5


async def test_a_store_that_hangs_is_not_waited_for_without_end(tmp_path, clock):
    database = await Database.open(tmp_path)
    bank = await Lessor.begin(database, clock)
    bank.meters._patience = 0.01
    meter = bank.meters.meter(ACCOUNT, UsageLimits(total_requests=5))
    with pytest.raises(ResourceUnavailableError, match="did not answer within"):
        await take(bank, meter)
    await bank.serve()
    assert isinstance(await take(bank, meter), Held)
    await database.close()


async def test_one_that_does_not_count_is_there_for_the_next(tmp_path, clock):
    async with lessor(tmp_path, clock) as bank:
        meter = bank.meters.meter(ACCOUNT, UsageLimits(total_requests=1))
        for counts in (False, False, True):
            held = await take(bank, meter)
            assert isinstance(held, Held)
            held.end(counts=counts)
        assert isinstance(await take(bank, meter), Refuse)
    assert meter.windows[0].used == 1
    assert meter.windows[0].day == TOTAL


async def test_meters_that_nobody_uses_are_put_away_and_a_crash_costs_them_nothing(tmp_path, clock):
    limits = UsageLimits(total_requests=2000, requests_per_day=1500)
    async with lessor(tmp_path, clock, clean=False) as bank:
        for number in range(50):
            for _ in range(3):
                (await take(bank, bank.meters.meter(f"key:{number}", limits))).end(counts=True)
        held = await take(bank, bank.meters.meter("key:7", limits))
        await bank.tidy()
        await bank.tidy()
        assert list(bank.meters._meters) == ["key:7"], "it has something under way"
        held.end(counts=True)
        await bank.tidy()
        assert len(bank.meters) == 0
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter("key:7", limits), 5000) == 1500 - 4


async def test_tidying_is_done_without_being_asked_with_and_without_requests(tmp_path, clock):
    database = await Database.open(tmp_path)
    bank = await Lessor.begin(database, clock)
    bank.tidy_seconds = 0.01
    clock.now += 60
    task = asyncio.create_task(bank.run(), name="lessor")
    busy = bank.meters.meter("key:busy", UsageLimits(total_requests=10**6))
    idle = bank.meters.meter(ACCOUNT, UsageLimits(total_requests=1000))
    (await take(bank, idle)).end(counts=True)
    async with asyncio.timeout(10):
        while bank.meters._meters.get(ACCOUNT) is idle:
            (await take(bank, busy)).end(counts=True)
            await asyncio.sleep(0)
        await until(lambda: len(bank.meters) == 0)
    async with database.read() as tx:
        assert await leases.reserved(tx, ACCOUNT, TOTAL) == 1
        assert await leases.reserved(tx, "key:busy", TOTAL) == busy.windows[0].used
    task.cancel()
    await asyncio.wait([task])
    await database.close()


async def test_what_is_used_while_it_is_put_away_is_not_lost(tmp_path, clock):
    limits = UsageLimits(total_requests=1000)
    async with lessor(tmp_path, clock) as bank:
        meter = bank.meters.meter(ACCOUNT, limits)
        (await take(bank, meter)).end(counts=True)
        await bank.tidy()
        tidying = asyncio.create_task(bank.tidy(), name="tidy")
        await asyncio.sleep(0)
        assert await passed(bank, meter, 20) == 20
        await tidying
        assert bank.meters._meters.get(ACCOUNT) is meter
        assert await passed(bank, meter, 2000) == 979


async def test_a_store_that_refuses_costs_nothing_of_what_was_set_aside(tmp_path, clock):
    limits = UsageLimits(total_requests=1000)
    async with lessor(tmp_path, clock) as bank:
        meter = bank.meters.meter(ACCOUNT, limits)
        (await take(bank, meter)).end(counts=True)
        bank._database.__class__ = FullDatabase
        await bank.tidy()
        await bank.tidy()
        bank._database.__class__ = Database
        assert bank.meters._meters.get(ACCOUNT) is meter
        assert await passed(bank, meter, 2000) == 999


async def test_who_waits_for_a_replica_keeps_its_place_and_forfeits_nothing_in_a_crash(
    tmp_path, clock
):
    limits = UsageLimits(total_requests=1600)
    async with lessor(tmp_path, clock, clean=False) as bank:
        meter = bank.meters.meter(ACCOUNT, limits)
        for _ in range(200):
            held = await take(bank, meter)
            assert isinstance(held, Held)
            held.wait()
        assert meter.windows[0].left == 1400
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 2000) >= 1600 - LARGEST_BLOCK


async def test_who_waited_goes_on_when_a_block_was_leased(tmp_path, clock):
    limits = UsageLimits(total_requests=40)
    async with lessor(tmp_path, clock) as bank:
        meter = bank.meters.meter(ACCOUNT, limits)
        waiting = [await take(bank, meter) for _ in range(40)]
        for held in waiting:
            assert isinstance(held, Held)
            held.wait()
        assert isinstance(await take(bank, meter), Refuse), "all places are kept"
        await asyncio.gather(*(held.go_on() for held in waiting if isinstance(held, Held)))
        assert meter.windows[0].used == 40
        assert isinstance(await take(bank, meter), Refuse)


@pytest.mark.parametrize("step", [365, -365, 1, -1])
async def test_a_clock_that_was_wrong_for_a_while_blocks_nobody_and_gives_no_day_twice(
    tmp_path, clock, step
):
    limits, steady = UsageLimits(requests_per_day=100), clock.now
    async with lessor(tmp_path, clock) as bank:
        bank.meters._steady = lambda: steady
        bank.meters.steps = ClockSteps(clock.now, steady)
        meter = bank.meters.meter(ACCOUNT, limits)
        assert await passed(bank, meter, 30) == 30
        clock.now += step * DAY_SECONDS
        assert await passed(bank, meter, 200) == 70
        clock.now -= step * DAY_SECONDS
        assert await passed(bank, meter, 200) == 0
        clock.now += DAY_SECONDS
        steady += DAY_SECONDS
        assert await passed(bank, meter, 200) == 100
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 200) == 0


@pytest.mark.parametrize("step", [365, -365])
async def test_a_start_with_a_wrong_clock_has_no_real_day_forgotten(tmp_path, clock, step):
    limits = UsageLimits(requests_per_day=100)
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 100) == 100
    clock.now += step * DAY_SECONDS
    async with lessor(tmp_path, clock):
        pass
    clock.now -= step * DAY_SECONDS
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 100) == 0


async def served_until_refused(bank, meter):
    for served in range(10_000):
        try:
            assert isinstance(await take(bank, meter), Held)
        except ResourceUnavailableError as refusal:
            return served, refusal
    raise AssertionError("nothing was refused")


async def until_written(bank):
    while True:
        with contextlib.suppress(StorageFullError):
            return await bank._database.write(
                lambda tx: tx.execute_fetchall("UPDATE schema_migrations SET name = name")
            )
        await asyncio.sleep(0.05)


async def test_on_a_full_disk_what_is_set_aside_is_served_and_no_more_than_the_limit_ever(
    small_disk, clock
):
    limits, ballast = UsageLimits(requests_per_day=640), small_disk / "ballast"
    async with lessor(small_disk / "state", clock) as bank:
        meter = bank.meters.meter(ACCOUNT, limits)
        assert await passed(bank, meter, 100) == 100
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        ahead = meter.windows[0].ahead
        assert ahead > 10
        served, refusal = await served_until_refused(bank, meter)
        assert served >= ahead
        assert "the disk that keeps the state takes no more" in refusal.message
        ballast.unlink()
        await until_written(bank)
        assert await passed(bank, meter, 2000) == 640 - 100 - served
    async with lessor(small_disk / "state", clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 10) == 0


@pytest.mark.parametrize("by", ["tidy", "grant", "close"])
async def test_a_start_on_a_full_disk_counts_as_after_a_crash_and_is_written_later(
    tmp_path, clock, monkeypatch, by
):
    limits = UsageLimits(requests_per_minute=1)
    async with lessor(tmp_path, clock) as bank:
        assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 1) == 1
    clock.now += 120
    with monkeypatch.context() as full:
        full.setattr(Database, "write", FullDatabase.write)
        async with lessor(tmp_path, clock, clean=False) as bank:
            assert await passed(bank, bank.meters.meter(ACCOUNT, limits), 1) == 0
            full.undo()
            if by == "tidy":
                await bank.tidy()
            elif by == "grant":
                daily = bank.meters.meter("key:k2", UsageLimits(requests_per_day=100))
                assert await passed(bank, daily, 1) == 1
            else:
                await bank.close()
    clock.now += 120
    async with lessor(tmp_path, clock) as bank:
        fresh = await passed(bank, bank.meters.meter(ACCOUNT, limits), 1)
        assert fresh == (by == "close"), "only after a clean stop a pace is full at once"
