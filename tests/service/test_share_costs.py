"""What a request about one share, or one page of them, costs where there are many."""

import asyncio
import collections
import dataclasses

import pytest

from prsmd.domain.access import Permission
from prsmd.domain.errors import ConflictError
from prsmd.domain.quota import UsageLimits
from prsmd.engine.recorder import Recorder
from prsmd.gateway.meters import Meters
from prsmd.service.deployments import find_model
from prsmd.service.shares import ShareRequest, Shares
from prsmd.service.status import Page
from prsmd.store import deployments, leases
from prsmd.store import shares as stored
from prsmd.store.db import Database
from tests.service.identity import Office, caller, model_of

SHARES, BORROWERS = 12, 5


@pytest.fixture
async def office(tmp_path):
    database = await Database.open(tmp_path / "state")
    await database.write(lambda tx: deployments.add(tx, model_of("plans")))
    yield await Office.open(database)
    await database.close()


@pytest.fixture
async def shares(office):
    made = Shares(office.database, Recorder(office.database), office.lendings)
    for number in range(SHARES):
        await made.create(caller(), "plans", lent(*(f"o{number}-{n}" for n in range(BORROWERS))))
    return made


def lent(*organizations: str) -> ShareRequest:
    return ShareRequest(
        organizations=frozenset(organizations),
        permissions=frozenset({Permission.MODELS_READ}),
        limits=UsageLimits(total_requests=9),
    )


async def statements(database: Database) -> list[str]:
    """What every connection is asked from now on."""
    seen: list[str] = []
    own = [database._readers._own.get_nowait() for _ in range(database._readers._own.qsize())]
    for tx in (*own, database._writer._tx):
        await tx.set_trace_callback(seen.append)
    for tx in own:
        database._readers._own.put_nowait(tx)
    return seen


async def test_a_page_costs_what_is_on_it(office, shares):
    seen = await statements(office.database)
    one, total = await shares.page(caller(), "plans", Page(limit=1, offset=3))
    of_one = len(seen)
    ten, _ = await shares.page(caller(), "plans", Page(limit=10))

    assert (len(one), len(ten), total) == (1, 10, SHARES)
    assert one == ten[3:4]
    assert len(one[0].left) == BORROWERS
    assert len(seen) - of_one == of_one


async def test_what_is_left_of_each_is_what_the_store_set_aside_for_it(office, shares):
    [first], _ = await shares.page(caller(), "plans", Page(limit=1))
    used = [(first.share.account_of("o0-1"), -1, 4)]
    await office.database.write(lambda tx: leases.settle(tx, used, {}))

    [first], _ = await shares.page(caller(), "plans", Page(limit=1))
    assert {name: left[0].remaining for name, left in first.left.items()} == {
        "o0-0": 9,
        "o0-1": 5,
        "o0-2": 9,
        "o0-3": 9,
        "o0-4": 9,
    }


async def test_to_find_one_lent_model_costs_the_same_however_many_were_lent(office, shares):
    borrower = caller("viewer", "rival")
    seen = await statements(office.database)
    costs = []
    for number in range(4):
        name = f"lent-{number}"
        await office.database.write(lambda tx, name=name: deployments.add(tx, model_of(name)))
        await shares.create(caller(), name, lent("rival"))
        seen.clear()
        async with office.database.read() as tx:
            await find_model(tx, borrower, "lent-0", Permission.MODELS_READ)
        costs.append(len(seen))
    assert len(set(costs)) == 1


async def test_a_change_writes_only_the_borrowers_that_come_or_go(office, shares):
    [first], _ = await shares.page(caller(), "plans", Page(limit=1))
    seen = await statements(office.database)
    more = frozenset({Permission.MODELS_READ, Permission.MODELS_INFER})
    await shares.change(caller(), "plans", first.share.id, {"permissions": more})
    assert written(seen) == []
    assert not any("borrowers own" in sql for sql in seen)

    names = first.share.organizations - {"o0-0"} | {"another"}
    await shares.change(caller(), "plans", first.share.id, {"organizations": names})
    assert [sql.split()[0] for sql in written(seen)] == ["DELETE", "INSERT"]
    [first], _ = await shares.page(caller(), "plans", Page(limit=1))
    assert first.share.organizations == names


async def test_who_has_the_model_already_is_found_without_reading_other_shares(office, shares):
    seen = await statements(office.database)
    with pytest.raises(ConflictError) as refused:
        await shares.create(caller(), "plans", lent("new", "o3-2", "o3-1", "o5-1"))
    assert "o3-1, o3-2 has share_" in refused.value.message

    [known], _ = await shares.page(caller(), "plans", Page(limit=1, offset=3))
    assert refused.value.details["share_id"] == known.share.id
    whole = [sql for sql in seen if "json_group_array" in sql and "INSERT" not in sql]
    assert all("LIMIT 1 OFFSET 3" in sql for sql in whole)


def written(seen: list[str]) -> list[str]:
    return [
        sql for sql in seen if sql.startswith(("INSERT INTO borrowers", "DELETE FROM borrowers"))
    ]


async def test_a_change_gives_nobody_a_model_twice_by_a_new_borrower_or_a_new_end(office, shares):
    [first, second], _ = await shares.page(caller(), "plans", Page(limit=2))
    more = first.share.organizations | {"o1-0"}
    with pytest.raises(ConflictError, match=f"o1-0 has {second.share.id}"):
        await shares.change(caller(), "plans", first.share.id, {"organizations": more})

    over = dataclasses.replace(first.share, expires_at=1.0)
    await office.database.write(lambda tx: stored.put(tx, over))
    again = await shares.create(caller(), "plans", lent("o0-3"))
    with pytest.raises(ConflictError, match=f"o0-3 has {again.share.id}"):
        await shares.change(caller(), "plans", over.id, {"expires_at": None})


async def test_others_have_their_turn_while_a_page_with_many_borrowers_is_made(office, shares):
    [first], _ = await shares.page(caller(), "plans", Page(limit=1))
    many = frozenset(f"m{number}" for number in range(100))
    await shares.change(caller(), "plans", first.share.id, {"organizations": many})

    turns: list[None] = []
    turning = asyncio.create_task(counting(turns))
    meters = RecordingMeters(turns)
    office.lendings._meters = meters
    await shares.page(caller(), "plans", Page(limit=1))
    turning.cancel()
    assert len(meters.turns) == 100
    assert max(collections.Counter(meters.turns).values()) <= 20


async def counting(turns: list[None]) -> None:
    """Count the turns of the event loop."""
    while True:
        turns.append(None)
        await asyncio.sleep(0)


class RecordingMeters(Meters):
    """Meters that note in which turn of the event loop each is looked at."""

    def __init__(self, turns: list[None]) -> None:
        super().__init__()
        self.turns: list[int] = []
        self._now = turns

    def view(self, account, limits):
        self.turns.append(len(self._now))
        return super().view(account, limits)
