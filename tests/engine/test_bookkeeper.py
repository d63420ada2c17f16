"""Sums of use reach the usage file part by part; what could not be written is added up further."""

import pytest

from prsmd.core.meter import DAY_SECONDS
from prsmd.domain.errors import StorageFullError
from prsmd.engine.bookkeeper import Bookkeeper
from prsmd.gateway.uses import Uses
from prsmd.store import usage
from prsmd.store.db import USAGE, Database
from tests.engine.test_witness import SometimesFull, note

DAY = 20_000
SUMS = 450  # several parts


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path, file=USAGE)
    yield SometimesFull(opened)
    await opened.close()


def used(uses, times=1):
    for number in range(SUMS):
        for _ in range(times):
            at = DAY * DAY_SECONDS + number
            uses.note(note(at=at, principal=f"key:{number}", reached=True))


async def stored(database):
    async with database.read() as tx:
        found, total = await usage.page(tx, "deploy_a", (DAY, DAY))
    assert len(found) == total
    return {use.principal: use.requests for use in found}


async def test_all_sums_are_stored_and_none_twice(database):
    uses = Uses()
    bookkeeper = Bookkeeper(uses, database, lambda: DAY * DAY_SECONDS)
    used(uses)
    await bookkeeper.flush(everything=False)
    assert len(uses) == 0
    used(uses, times=2)
    await bookkeeper.flush(everything=False)
    await bookkeeper.flush(everything=False)
    assert await stored(database) == {f"key:{number}": 3 for number in range(SUMS)}


async def test_a_full_disk_keeps_the_sums_and_what_is_used_meanwhile_is_added(database):
    uses = Uses()
    bookkeeper = Bookkeeper(uses, database, lambda: DAY * DAY_SECONDS)
    used(uses)
    database.full = True
    for _ in range(3):
        with pytest.raises(StorageFullError):
            await bookkeeper.flush(everything=False)
    used(uses)
    database.full = False
    await bookkeeper.flush(everything=False)
    assert await stored(database) == {f"key:{number}": 2 for number in range(SUMS)}
