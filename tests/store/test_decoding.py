"""Rows that hold what prsmd never wrote are damage; what a caller raises is not."""

import contextlib
import dataclasses
import sqlite3

import pytest

from prsmd.domain.access import ApiKey, Permission, Role
from prsmd.engine.rows import load_desired
from prsmd.store import (
    deployments,
    future_times,
    keys,
    meta,
    replicas,
    resource_quotas,
    revisions,
    roles,
    rollouts,
    secrets,
)
from prsmd.store.db import Database
from prsmd.store.errors import StoreDamagedError
from tests.store.store_samples import DEPLOYMENT, REPLICA, REVISION, ROLLOUT, bare_schema

KEY = ApiKey(
    id="k", organization="acme", role="viewer", name="k", digest=b"d", created_at=1.0,
    networks=("10.0.0.0/8",), models=("legal",),
)  # fmt: skip


async def fill(tx):
    await deployments.add(tx, DEPLOYMENT)
    await revisions.add(tx, REVISION)
    await revisions.add(tx, dataclasses.replace(REVISION, number=2))
    await rollouts.add(tx, ROLLOUT)
    await replicas.add(tx, REPLICA)
    await keys.add(tx, KEY)
    await tx.execute_fetchall(
        "INSERT INTO organizations VALUES ('acme', 'a', 1.0, 'k', NULL, NULL)"
    )
    role = Role(
        organization="acme", name="own", description="", created_at=1.0, updated_at=1.0,
        permissions=frozenset({Permission.MODELS_READ}),
    )  # fmt: skip
    await roles.put(tx, role)


READS = {
    "api_keys.networks": (("garbled", "[1]", '["no network"]', "{}"), lambda tx: keys.get(tx, "k")),
    "api_keys.models": (("garbled", "[1]", '"text"', "{}"), lambda tx: keys.list_for(tx, None)),
    "roles.permissions": (("garbled", '["all"]', "{}", '"text"'), roles.list_all),
    "revisions.spec": (("garbled", "{}", "[1]"), lambda tx: revisions.get(tx, "deploy_1", 1)),
    "revisions.diff": (("garbled", "{}"), lambda tx: revisions.list_for(tx, "deploy_1")),
    "rollouts.value": (("garbled", "{}"), lambda tx: rollouts.get(tx, "deploy_1", 1)),
    "replicas.placement": (("garbled", "{}"), replicas.list_current),
    "replicas.exit": (("garbled", "{}"), lambda tx: replicas.get(tx, REPLICA.id)),
    "deployments.recommendation": (
        ("garbled", '{"replicas": "x"}'),
        lambda tx: resource_quotas.needs(tx, "acme"),
    ),
}


@pytest.mark.parametrize("column", READS)
async def test_what_prsmd_never_wrote_is_damage_of_file_and_column(database, column):
    await database.write(fill)
    texts, read = READS[column]
    table, _, name = column.partition(".")
    for text in texts:
        with contextlib.closing(sqlite3.connect(database.path)) as other, other:
            other.execute(f"UPDATE {table} SET {name} = ?", (text,))
        told = rf"{database.path} is damaged: {column} .*Restore a backup, or move the file away"
        with pytest.raises(StoreDamagedError, match=told) as caught:
            async with database.read() as tx:
                await read(tx)
        assert text not in caught.value.message
        assert database.damage == caught.value.message


@pytest.mark.parametrize(
    ("key", "read"), [("commits", meta.commits), ("accepted", meta.take_accepted)]
)
async def test_a_number_in_the_metadata_that_is_none_is_damage(key, read):
    async with bare_schema() as tx:
        await meta.set(tx, key, "garbled")
        with pytest.raises(StoreDamagedError, match=r"meta\.value holds what"):
            await read(tx)


@pytest.mark.parametrize("column", ["revisions.secret_names", "rollouts.value"])
async def test_json_that_is_none_is_damage_to_sql_too(database, column):
    await database.write(fill)
    table, _, name = column.partition(".")
    await database.write(lambda tx: tx.execute_fetchall(f"UPDATE {table} SET {name} = 'garbled'"))
    reads = {
        "revisions.secret_names": lambda tx: secrets.users(tx, None),
        "rollouts.value": lambda tx: future_times.clamp(tx, 1.0),
    }
    with pytest.raises(StoreDamagedError, match=f"control.db is damaged: {column} "):
        await database.write(reads[column])
    assert f"{column} " in database.damage


async def test_an_error_of_who_reads_or_writes_is_no_damage(database):
    async def refuse(_tx):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await database.write(refuse)
    with pytest.raises(ValueError, match="mine"):
        async with database.read() as tx:
            await refuse(tx)
    assert database.damage is None


async def test_a_row_that_belongs_to_none_refuses_the_start(database):
    await database.write(fill)
    await database.close()
    with contextlib.closing(sqlite3.connect(database.path)) as raw:
        raw.execute("DELETE FROM revisions WHERE number = 2")
        raw.commit()
    with pytest.raises(StoreDamagedError, match=r"rollouts has a row .* revisions lacks"):
        await Database.open(database.path.parent)


async def test_a_deployment_whose_revision_is_gone_is_damage(database):
    await database.write(fill)
    await database.write(lambda tx: tx.execute_fetchall("UPDATE deployments SET revision = 9"))
    with pytest.raises(StoreDamagedError, match=r"deployments.revision says revision 9 of"):
        async with database.read() as tx:
            await load_desired(tx)
