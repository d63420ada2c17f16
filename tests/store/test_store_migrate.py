"""Migrations are applied in order, once, whole or not at all; what does not fit is refused."""

import dataclasses
import json
import sqlite3

import aiosqlite
import pytest

from prsmd.domain.errors import ResourceQuotaExceededError
from prsmd.domain.quantity import GIB
from prsmd.domain.resource_quota import COMPUTE, Dimension
from prsmd.domain.spec import Resources, Scaling, Spec
from prsmd.engine.quota_ledger import refuse_more, used
from prsmd.store import (
    deployments,
    keys,
    members,
    organizations,
    replicas,
    resource_quotas,
    revisions,
    rollouts,
    secrets,
    specs,
)
from prsmd.store.db import Database
from prsmd.store.errors import StoreSchemaError
from prsmd.store.migrate import Migration, known_migrations, migrate
from tests.store.store_samples import ROLLOUT, SPEC

FIRST = Migration(1, "first", "CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (1);")
SECOND = Migration(2, "second", "-- a; b\nALTER TABLE a ADD COLUMN y TEXT;\n")
TRIGGER = Migration(
    3,
    "third",
    "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET y = 'set; by'; SELECT 1; END;\n",
)


@pytest.fixture
async def tx():
    async with aiosqlite.connect(":memory:", isolation_level=None) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


async def _versions(tx):
    return [row[0] for row in await tx.execute_fetchall("SELECT version FROM schema_migrations")]


@pytest.mark.parametrize("start", range(4))
async def test_every_older_schema_reaches_the_newest_with_its_data(tx, start):
    steps = (FIRST, SECOND, TRIGGER)
    await migrate(tx, steps[:start])
    await migrate(tx, steps)
    await migrate(tx, steps)
    assert await _versions(tx) == [1, 2, 3]
    await tx.execute_fetchall("INSERT INTO a (x) VALUES (2)")
    rows = await tx.execute_fetchall("SELECT x, y FROM a ORDER BY x")
    assert [tuple(row) for row in rows] == [(1, "set; by"), (2, "set; by")]


@pytest.mark.parametrize("start", range(len(known_migrations()) + 1))
async def test_the_shipped_migrations_apply_from_each_older_schema(tx, start):
    await migrate(tx, known_migrations()[:start])
    await migrate(tx, known_migrations())
    assert await _versions(tx) == [step.version for step in known_migrations()]


async def test_organizations_that_were_only_words_are_there_after_the_update(tx):
    await migrate(tx, [step for step in known_migrations() if step.version < 4])
    await tx.execute_fetchall(
        "INSERT INTO api_keys (id, organization, role, name, digest, created_at) "
        "VALUES ('k', 'acme', 'owner', 'n', x'00', 1.0)"
    )
    await tx.execute_fetchall(
        "INSERT INTO registries VALUES ('rival', 's', 'u', x'00', 1.0, 1.0, 'k')"
    )
    await migrate(tx, known_migrations())

    known = await organizations.list_all(tx)
    assert [(one.id, one.disabled_at, one.removed_at) for one in known] == [
        ("acme", None, None),
        ("rival", None, None),
    ]
    [key] = await keys.list_for(tx, None)
    assert (key.organization, key.models, key.requests_per_day) == ("acme", None, None)


async def test_models_that_were_there_before_quotas_count_and_nothing_stops(tx):
    await migrate(tx, [step for step in known_migrations() if step.version < 12])
    await tx.execute_fetchall(
        "INSERT INTO deployments (id, organization, model_id, model_name, revision, "
        "asked_replicas, scaling_strategy, deleting, created_at, updated_at) VALUES "
        "('d', 'acme', 'custom_m', 'm', 1, 5, 'immediate', 0, 1.0, 1.0)"
    )
    spec = Spec(
        image="m:1",
        model_type="t",
        resources=Resources(cpu_millis=500, memory_bytes=GIB, gpu_millis=250),
        scaling=Scaling(min_replicas=2, max_replicas=4),
    )
    await tx.execute_fetchall(
        "INSERT INTO revisions (deployment_id, number, spec, spec_hash, created_at, created_by) "
        "VALUES ('d', 1, ?, 'h', 1.0, 'k')",
        (specs.encode(spec),),
    )
    await migrate(tx, known_migrations())

    asked = await used(tx, "acme", (*COMPUTE, Dimension.MODELS))
    assert asked == {
        Dimension.CPU: 2000,
        Dimension.MEMORY: 4 * GIB,
        Dimension.GPU: 1000,
        Dimension.REPLICAS: 4,
        Dimension.MODELS: 1,
    }
    await resource_quotas.set_defaults(tx, {Dimension.REPLICAS: 3, Dimension.MODELS: 1})
    assert (await resource_quotas.limits(tx, "acme"))[Dimension.REPLICAS].hard == 3
    with pytest.raises(ResourceQuotaExceededError, match="replicas: 4 of 3 used, 1 more asked"):
        await refuse_more(tx, "acme", {Dimension.REPLICAS: 1})
    await refuse_more(tx, "acme", {Dimension.REPLICAS: 0})


async def test_secrets_that_were_named_before_their_names_were_kept_apart_are_used(tx):
    await migrate(tx, [step for step in known_migrations() if step.version < 18])
    await tx.execute_fetchall(
        "INSERT INTO deployments (id, organization, model_id, model_name, revision, "
        "asked_replicas, scaling_strategy, deleting, created_at, updated_at) VALUES "
        "('d', 'acme', 'custom_m', 'm', 2, 5, 'immediate', 0, 1.0, 1.0)"
    )
    named = '{"secrets": {"A": {"name": "token"}, "B": {"name": "token"}, "C": {"name": "pass"}}}'
    for number, spec in enumerate(("{}", named), start=1):
        await tx.execute_fetchall(
            "INSERT INTO revisions (deployment_id, number, spec, spec_hash, created_at, created_by)"
            " VALUES ('d', ?, ?, 'h', 1.0, 'k')",
            (number, spec),
        )
    await migrate(tx, known_migrations())

    rows = await tx.execute_fetchall("SELECT secret_names FROM revisions ORDER BY number")
    assert [sorted(json.loads(row[0])) for row in rows] == [[], ["pass", "token"]]
    assert await secrets.users(tx, "acme") == {
        ("acme", name): ("custom_m",) for name in ("pass", "token")
    }


def test_shipped_migrations_are_numbered_in_order_and_none_twice():
    numbers = [step.version for step in known_migrations()]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1


async def test_a_step_that_fails_leaves_nothing_of_itself(tx):
    broken = dataclasses.replace(SECOND, sql="CREATE TABLE b (x); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        await migrate(tx, (FIRST, broken))
    assert await _versions(tx) == [1]
    assert await tx.execute_fetchall("SELECT * FROM sqlite_schema WHERE name = 'b'") == []
    await migrate(tx, (FIRST, SECOND))
    assert await _versions(tx) == [1, 2]


async def test_a_changed_migration_is_refused_before_anything_is_applied(tx):
    await migrate(tx, (FIRST,))
    changed = dataclasses.replace(FIRST, sql=FIRST.sql + " ")
    with pytest.raises(StoreSchemaError, match=r"Migration 1 \(first\).*checksum differs"):
        await migrate(tx, (changed, SECOND))
    assert await _versions(tx) == [1]


async def test_a_newer_schema_is_refused(tx):
    await migrate(tx, (FIRST, SECOND))
    with pytest.raises(StoreSchemaError, match=r"written by a newer prsmd.*knows up to 1"):
        await migrate(tx, (FIRST,))


async def test_half_a_statement_is_refused(tx):
    with pytest.raises(StoreSchemaError, match="middle of a statement"):
        await migrate(tx, (dataclasses.replace(FIRST, sql="CREATE TABLE a (x); SELECT 'open"),))
    assert await _versions(tx) == []


@pytest.mark.parametrize(
    ("tampering", "words"),
    [
        ("INSERT INTO schema_migrations VALUES (999, 'later', 'x', 1.0)", "newer prsmd"),
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1", "checksum differs"),
    ],
)
async def test_opening_refuses_a_schema_that_does_not_fit_and_lets_go_of_the_folder(
    tmp_path, tampering, words
):
    first = await Database.open(tmp_path)
    await first.close()
    with sqlite3.connect(first.path) as connection:
        connection.execute(tampering)
    connection.close()
    for _ in range(2):
        with pytest.raises(StoreSchemaError, match=words):
            await Database.open(tmp_path)


_BEFORE_ROLLOUTS = """
INSERT INTO deployments VALUES
    ('d_good', 'acme', 'custom_a', 'a', 1, 2, 'immediate', NULL, 0, 10.0, 20.0),
    ('d_never', 'acme', 'custom_b', 'b', 1, 1, 'gradual', NULL, 0, 11.0, 21.0);
INSERT INTO revisions
    SELECT id, 1, :spec, :hash, NULL, created_at, 'key_1' FROM deployments;
INSERT INTO replicas (id, deployment_id, organization, revision, slot, state, placement,
    created_at, ready_at) VALUES
    ('r1', 'd_good', 'acme', 1, 0, 'running', :placement, 12.0, 15.5),
    ('r2', 'd_good', 'acme', 1, 1, 'running', :placement, 12.0, 14.5),
    ('r3', 'd_never', 'acme', 1, 0, 'starting', :placement, 12.0, NULL);
"""


async def _state_of_the_first_release(folder):
    folder.mkdir()
    async with aiosqlite.connect(folder / "control.db", isolation_level=None) as tx:
        tx.row_factory = sqlite3.Row
        await migrate(tx, known_migrations()[:1])
        values = {
            "spec": specs.encode(SPEC),
            "hash": specs.spec_hash(SPEC),
            "placement": '{"node": "local", "cpu_millis": 1, "memory_bytes": 2}',
        }
        for statement in _BEFORE_ROLLOUTS.split(";")[:-1]:
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            await tx.execute_fetchall(statement, used)


async def test_a_state_from_before_rollouts_opens_with_its_rows_and_what_was_ready_is_good(
    tmp_path,
):
    await _state_of_the_first_release(tmp_path / "state")
    database = await Database.open(tmp_path / "state")
    async with database.read() as tx:
        found = {each.id: each for each in await deployments.list_all(tx)}
        good = await revisions.get(tx, "d_good", 1)
        never = await revisions.get(tx, "d_never", 1)
        assert [each.id for each in await replicas.list_current(tx)] == ["r1", "r2", "r3"]
        assert await rollouts.latest(tx, "d_good") is None
    await database.close()
    assert {each: value.stable_revision for each, value in found.items()} == {
        "d_good": 1,
        "d_never": None,
    }
    assert found["d_good"].asked_replicas == 2
    assert found["d_good"].gradual_level is None
    assert (good.good_at, good.diff, good.spec) == (14.5, (), SPEC)
    assert never.good_at is None


async def test_the_upgraded_state_takes_a_rollout(tmp_path):
    await _state_of_the_first_release(tmp_path / "state")
    database = await Database.open(tmp_path / "state")
    rollout = dataclasses.replace(ROLLOUT, deployment_id="d_good")

    async def update(tx):
        first = await revisions.get(tx, "d_good", 1)
        await revisions.add(tx, dataclasses.replace(first, number=2, good_at=None))
        await rollouts.add(tx, rollout)

    await database.write(update)
    async with database.read() as tx:
        assert await rollouts.latest(tx, "d_good") == rollout
    await database.close()


async def test_memberships_of_older_schemas_stay_in_force_with_their_roles(tx):
    await tx.execute_fetchall("PRAGMA foreign_keys = ON")
    await migrate(tx, [step for step in known_migrations() if step.version < 16])
    await tx.execute_fetchall(
        "INSERT INTO organizations (id, display_name, created_at, created_by) "
        "VALUES ('acme', 'Acme', 1.0, 'x'), ('rival', 'Rival', 1.0, 'x')"
    )
    await tx.execute_fetchall(
        "INSERT INTO members VALUES ('m1', 'acme', 'uid', '7', 'n', 5.0, 'x'), "
        "('m2', 'rival', 'oidc', 'ann', 'n', 6.0, 'x')"
    )
    await tx.execute_fetchall("INSERT INTO bindings VALUES ('m1', 0, 'owner', NULL)")
    await migrate(tx, known_migrations())

    known = {member.id: member for member in await members.list_for(tx, None)}
    assert [binding.role for binding in known["m1"].bindings] == ["owner"]
    assert {name: member.accepted_at for name, member in known.items()} == {"m1": 5.0, "m2": 6.0}
    assert all(member.in_force(1e12) for member in known.values())
    await members.add(tx, dataclasses.replace(known["m1"], id="m3", organization="rival"))
    await members.remove(tx, "m1")
    assert [row["member_id"] for row in await tx.execute_fetchall("SELECT * FROM bindings")] == [
        "m3"
    ]
    assert await tx.execute_fetchall("PRAGMA foreign_key_check") == []
