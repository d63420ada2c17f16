"""The log of denials: whole or counted, written or counted again, provable like the others."""

import pytest

from prsmd.core.coalesce import Shares
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import AuditRecord
from prsmd.engine.denials import Denials
from prsmd.store import audit
from prsmd.store.db import Database

DENIED = AuditRecord(
    at=5.0, principal="key:a", organization="acme", action="models.deploy", subject="m",
    outcome="denied", request_id="r", details={"code": "NO"}, address="192.0.2.1",
)  # fmt: skip


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path)
    yield opened
    await opened.close()


def denials(database, now, **shares):
    return Denials(
        database, "appliance", Shares(**{"each": 2, **shares}), lambda: now[0], lambda: now[0]
    )


async def written(database, table="denials"):
    async with database.read() as tx:
        return await audit.after(tx, 0, 1000, table=table)


async def test_a_flood_of_denials_is_a_few_records_with_the_count_and_none_of_changes(database):
    now = [0.0]
    log = denials(database, now)
    whole = [await log.record(DENIED) for _ in range(800)]
    assert sum(whole) == 2
    now[0] = 60.0
    await log.flush(everything=False)
    *first, last = await written(database)
    assert [each.details for each in first] == [{"code": "NO"}] * 2
    assert last.details == {"code": "NO", "requests": 798, "first_at": 5.0, "last_at": 5.0}
    assert (last.action, last.organization, last.principal) == ("models.deploy", "acme", "key:a")
    assert await written(database, "audit") == []


async def test_a_caller_with_many_kinds_has_one_count_for_the_rest_of_them(database):
    now = [0.0]
    log = denials(database, now, caller=3, kinds=2)
    for n in range(100):
        await log.record(AuditRecord(**{**fields(DENIED), "action": f"a.{n}"}))
    await log.flush(everything=True)
    found = await written(database)
    assert len(found) == 6
    assert found[-1].action == "audit.denied"
    assert sum(each.details.get("requests", 1) for each in found) == 100


async def test_callers_without_room_are_counted_for_the_appliances_administrators(database):
    now = [0.0]
    log = denials(database, now, callers=2)
    for n in range(50):
        await log.record(AuditRecord(**{**fields(DENIED), "principal": f"key:{n}"}))
    await log.flush(everything=True)
    last = (await written(database))[-1]
    assert (last.principal, last.organization, last.subject) == ("prsmd", "appliance", "")
    assert last.address == ""
    assert last.details["requests"] == 48


async def test_networks_where_nobody_is_known_take_no_room_from_callers_who_are(database):
    now = [0.0]
    log = denials(database, now, callers=3, everybody=3)
    for n in range(50):
        await log.record(DENIED, f"2001:db8:{n}::/64")
    known = AuditRecord(**{**fields(DENIED), "principal": "key:known"})
    assert [await log.record(known) for _ in range(3)] == [True, True, False]
    await log.flush(everything=True)
    found = [each for each in await written(database) if each.principal == "key:known"]
    assert sum(each.details.get("requests", 1) for each in found) == 3
    assert sum(each.details.get("requests", 1) for each in await written(database)) == 53


async def test_what_cannot_be_written_is_refused_counted_and_written_later(database, monkeypatch):
    now = [0.0]
    log = denials(database, now)
    write = database.write

    async def full(_transaction):
        raise PrsmdError("the disk is full")

    monkeypatch.setattr(database, "write", full)
    with pytest.raises(PrsmdError):
        await log.record(DENIED)
    with pytest.raises(PrsmdError):
        await log.flush(everything=True)
    monkeypatch.setattr(database, "write", write)
    await log.flush(everything=True)
    assert [each.details["requests"] for each in await written(database)] == [1]


def fields(record):
    names = ("at", "principal", "organization", "action", "subject", "outcome", "request_id",
             "details", "address")  # fmt: skip
    return {name: getattr(record, name) for name in names}
