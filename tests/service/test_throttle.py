"""What keys may send: so many a minute, so many a day, and no more across a crash."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from prsmd.core.meter import DAY_SECONDS
from prsmd.domain.access import ApiKey
from prsmd.domain.errors import RateLimitedError
from prsmd.engine.lessor import Lessor
from prsmd.service.throttle import LeasedCount, Throttle
from prsmd.store.db import Database

NOON = 20_000 * DAY_SECONDS + DAY_SECONDS / 2


def key(**limits: int) -> ApiKey:
    made = ApiKey(id="k1", organization="acme", role="invoker", name="", digest=b"", created_at=0.0)
    for name, value in limits.items():
        object.__setattr__(made, name, value)
    return made


@contextlib.asynccontextmanager
async def throttle(folder: Path, *, clean: bool = True) -> AsyncIterator[Throttle]:
    database = await Database.open(folder)
    lessor = await Lessor.begin(database, lambda: NOON)
    task = asyncio.create_task(lessor.run(), name="lessor")
    try:
        yield Throttle(LeasedCount(lessor.meters), lambda: NOON)
    finally:
        task.cancel()
        await asyncio.wait([task])
        if clean:
            await lessor.close()
        await database.close()


async def passed(throttle: Throttle, asker: ApiKey, wanted: int) -> int:
    count = 0
    for _ in range(wanted):
        with contextlib.suppress(RateLimitedError):
            await throttle.admit(asker)
            count += 1
    return count


async def test_exactly_so_many_pass_in_a_day_also_after_a_stop(tmp_path: Path) -> None:
    asker = key(requests_per_day=30)
    async with throttle(tmp_path) as first:
        assert await passed(first, asker, 20) == 20
    async with throttle(tmp_path) as second:
        assert await passed(second, asker, 20) == 10


async def test_a_crash_lets_none_too_many(tmp_path: Path) -> None:
    asker, done = key(requests_per_day=30), 0
    for _ in range(5):
        async with throttle(tmp_path, clean=False) as each:
            done += await passed(each, asker, 7)
    assert 25 <= done <= 30


async def test_many_at_once_share_what_there_is(tmp_path: Path) -> None:
    async with throttle(tmp_path) as each:
        asked = (each.admit(key(requests_per_day=17)) for _ in range(60))
        told = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(not isinstance(one, RateLimitedError) for one in told) == 17


async def test_what_the_minute_refuses_is_not_counted_in_the_day(tmp_path: Path) -> None:
    async with throttle(tmp_path) as each:
        assert await passed(each, key(requests_per_minute=2, requests_per_day=5), 20) == 2
        assert await passed(each, key(requests_per_day=5), 20) == 3


async def test_what_is_left_is_of_the_tighter_limit(tmp_path: Path) -> None:
    async with throttle(tmp_path) as each:
        left = await each.admit(key(requests_per_minute=50, requests_per_day=5))
    assert left is not None
    assert (left.limit, left.remaining, left.reset_at) == (5, 4, 20_001 * DAY_SECONDS)
