"""How many requests a key may make: exactly its limits, whichever is tighter, counted in blocks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prsmd.core.meter import DAY_SECONDS
from prsmd.domain.access import ApiKey, Principal
from prsmd.domain.errors import RateLimitedError
from prsmd.engine.lessor import Lessor
from prsmd.service.directory import Directory
from prsmd.service.throttle import Throttle
from prsmd.store.db import Database

MIDNIGHT = 20_000 * DAY_SECONDS


class Site:
    """Keys, what they may do, and a clock. `clean` False: the next stop is a crash."""

    def __init__(self, folder: Path) -> None:
        self.now = MIDNIGHT + 10.0
        self.directory = Directory()
        self._folder = folder

    def clock(self) -> float:
        return self.now

    @contextlib.asynccontextmanager
    async def life(self, *, clean: bool = True) -> AsyncIterator[Throttle]:
        database = await Database.open(self._folder)
        lessor = await Lessor.begin(database, self.clock)
        task = asyncio.create_task(lessor.run(), name="lessor")
        yield Throttle(self.directory, lessor.meters)
        task.cancel()
        await asyncio.wait([task])
        if clean:
            await lessor.close()
        await database.close()

    def key(self, name: str = "k", **limits: int) -> Principal:
        made = ApiKey(
            id=name, organization="o", role="viewer", name="n", digest=b"", created_at=0.0, **limits
        )
        self.directory.put_key(made)
        return self.directory.principal_of_key(made)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def admitted(throttle: Throttle, key: Principal, times: int) -> int:
    async def one() -> bool:
        limits = throttle.limits(key)
        assert limits is not None
        try:
            held = await throttle.admit(key, limits)
        except RateLimitedError:
            return False
        held.end(counts=True)
        return True

    return sum(await asyncio.gather(*(one() for _ in range(times))))


async def test_a_key_without_limits_and_who_has_no_key_are_not_counted(site):
    async with site.life() as throttle:
        assert throttle.limits(site.key()) is None
        peer = Principal(id="uid:0", organization="o", role="viewer", permissions=frozenset())
        assert throttle.limits(peer) is None


@pytest.mark.parametrize("limit", [1, 7, 130])
@pytest.mark.parametrize("kind", ["requests_per_minute", "requests_per_day"])
async def test_of_many_at_once_exactly_as_many_pass_as_may(site, kind, limit):
    async with site.life() as throttle:
        key = site.key(**{kind: limit})
        assert await admitted(throttle, key, 3 * limit + 20) == limit
        site.now += DAY_SECONDS
        assert await admitted(throttle, key, 3 * limit + 20) == limit


async def test_of_many_at_once_one_passes_where_one_is_left_of_either_limit(site):
    async with site.life() as throttle:
        key = site.key(requests_per_minute=3, requests_per_day=5)
        assert await admitted(throttle, key, 2) == 2
        assert await admitted(throttle, key, 100) == 1, "one was left of the minute"
        site.now += 61
        assert await admitted(throttle, key, 1) == 1
        assert await admitted(throttle, key, 100) == 1, "one was left of the day"


async def test_what_one_key_uses_is_not_taken_from_another(site):
    async with site.life() as throttle:
        assert await admitted(throttle, site.key("a", requests_per_day=2), 5) == 2
        assert await admitted(throttle, site.key("b", requests_per_day=2), 5) == 2


async def test_what_one_limit_refuses_is_not_counted_of_the_other(site):
    async with site.life() as throttle:
        key = site.key(requests_per_minute=1, requests_per_day=2)
        for passing in (1, 1, 0):
            assert await admitted(throttle, key, 10) == passing
            site.now += 61


async def test_a_crash_gives_neither_a_second_burst_nor_a_day_twice(site):
    key = site.key(requests_per_minute=10, requests_per_day=1000)
    async with site.life() as throttle:
        assert await admitted(throttle, key, 4) == 4
    async with site.life(clean=False) as throttle:
        assert await admitted(throttle, key, 20) == 6, "as a clean stop left it"
    async with site.life() as throttle:
        assert await admitted(throttle, key, 20) == 0
        site.now += 30
        assert await admitted(throttle, key, 20) == 5
        site.key(requests_per_day=15)
        assert await admitted(throttle, key, 20) == 0, "ten, five, and no more"


async def test_a_refusal_says_which_limit_and_when_the_next_one_passes(site):
    async with site.life() as throttle:
        key = site.key(requests_per_day=1)
        assert await admitted(throttle, key, 1) == 1
        with pytest.raises(RateLimitedError) as refusal:
            await throttle.admit(key, throttle.limits(key))
    assert refusal.value.details == {
        "limit_type": "requests_per_day",
        "limit": 1,
        "reset_time": MIDNIGHT + DAY_SECONDS,
        "retry_after_seconds": DAY_SECONDS - 10,
    }


async def test_another_limit_counts_from_the_next_request_on_and_what_was_used_stays_used(site):
    async with site.life() as throttle:
        assert await admitted(throttle, site.key(requests_per_day=2), 5) == 2
        assert await admitted(throttle, site.key(requests_per_day=3), 5) == 1
