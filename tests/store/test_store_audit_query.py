"""Audit records are found as a filter says, through an index, whatever the log is long."""

import dataclasses
import itertools

import pytest

from prsmd.domain.events import AuditFilter, AuditRecord
from prsmd.store import audit, audit_query, replicas
from prsmd.store.db import USAGE, Database

MANY = 3000
ORGANIZATIONS = ("acme", "globex")
ACTIONS = ("models.deploy", "models.scale", "keys.create")


def record(number):
    return AuditRecord(
        at=float(number if number % 100 else number - 500),  # the clock is set back at times
        principal=f"key_{number % 7}",
        organization=ORGANIZATIONS[number % 2],
        action=ACTIONS[number % 3],
        subject=f"deploy_{number % 50}",
        outcome="denied" if number % 11 == 0 else "allowed",
        request_id="r",
    )


@pytest.fixture
async def database(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_query, "_FEW", 200)
    monkeypatch.setattr(audit, "COUNTED", 500)
    opened = await Database.open(tmp_path / "state")
    records = [record(number) for number in range(1, MANY + 1)]
    await opened.write(lambda tx: audit.append_all(tx, records))
    yield opened
    await opened.close()


TEXTS = {
    "principal": (None, "key_3", "key_*", "nobody"),
    "organization": (None, "acme"),
    "action": (None, "models.*", "keys.create", "*"),
    "subject": (None, "deploy_7", "deploy_4*"),
    "outcome": (None, "denied"),
}
TIMES = ((None, None), (2950.0, None), (None, 40.0), (10.0, 2900.0), (1000.0, 1050.0))
FILTERS = [
    AuditFilter(**dict(zip(TEXTS, texts, strict=True)), since=since, until=until)
    for texts in itertools.islice(itertools.product(*TEXTS.values()), 0, None, 5)
    for since, until in TIMES
]


async def test_every_filter_finds_what_it_says_newest_first(database):
    async with database.read() as tx:
        every = await audit.after(tx, 0, MANY)
        for wanted in FILTERS:
            for before in (None, 1500):
                narrowed = dataclasses.replace(wanted, before=before)
                right = [one for one in every if audit_query.matches(narrowed, one)]
                found, total = await audit.page(tx, narrowed, 20, 5)
                assert found == right[::-1][5:25], narrowed
                assert total == min(len(right), 505), narrowed
                assert (
                    await audit.after(tx, 700, 30, narrowed)
                    == [one for one in right if one.sequence > 700][:30]
                ), narrowed


async def plan(tx, wanted, table="audit"):
    found = await audit_query.select(tx, wanted, table)
    query = f"SELECT * FROM {found.source} {found.where} ORDER BY sequence DESC LIMIT 20"
    rows = await tx.execute_fetchall(f"EXPLAIN QUERY PLAN {query}", found.values)
    return [row["detail"] for row in rows]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (AuditFilter(subject="deploy_7", organization="acme"), "audit_of_subject"),
        (AuditFilter(principal="key_3", action="models.*"), "audit_of_principal"),
        (AuditFilter(action="models.scale", since=5.0), "audit_of_action"),
        (AuditFilter(organization="acme", outcome="denied"), "audit_of_organization"),
    ],
)
async def test_a_text_that_is_wanted_exactly_is_read_by_its_index_in_order(database, wanted, index):
    async with database.read() as tx:
        [line] = await plan(tx, wanted)
    assert index in line


async def test_a_short_time_and_a_rare_beginning_are_read_by_their_index(database):
    async with database.read() as tx:
        for wanted, index in (
            (AuditFilter(since=2950.0, organization="acme"), "audit_by_age"),
            (AuditFilter(subject="deploy_33*"), "audit_of_subject"),
        ):
            first, *_ = await plan(tx, wanted)
            assert first.startswith("SEARCH audit USING INDEX " + index)


async def test_what_many_records_meet_is_read_in_their_order_and_never_sorted(database):
    async with database.read() as tx:
        for wanted in (AuditFilter(since=5.0), AuditFilter(action="models.*"), AuditFilter()):
            assert await plan(tx, wanted) == ["SCAN audit"]


async def test_the_log_of_inferences_has_the_indexes_that_its_rate_allows(tmp_path):
    usage = await Database.open(tmp_path, file=USAGE)
    async with usage.read() as tx:
        [line] = await plan(tx, AuditFilter(organization="acme", principal="key_3"))
        assert "audit_of_organization" in line
    await usage.close()


async def test_a_deployment_s_replicas_are_read_by_index(tmp_path):
    database = await Database.open(tmp_path / "state")
    seen = []
    async with database.read() as tx:
        await tx.set_trace_callback(seen.append)
        await replicas.list_current(tx, 8, ["deploy_a"])
        rows = await tx.execute_fetchall(f"EXPLAIN QUERY PLAN {seen[-1]}")
    scans = [row["detail"] for row in rows if row["detail"].startswith("SCAN replicas")]
    assert scans == []
    await database.close()
