"""Secrets are stored only sealed, bound to their row, and sealed anew all or none."""

import dataclasses

import pytest

from prsmd.domain.replica import ReplicaState
from prsmd.domain.rollout import RolloutPhase
from prsmd.domain.spec import SecretUse
from prsmd.store import deployments, registries, replicas, revisions, rollouts, secrets
from prsmd.store.registries import StoredLogin
from prsmd.store.sealing import SealBrokenError, Sealer
from prsmd.store.secrets import StoredSecret
from tests.store.store_samples import DEPLOYMENT, REPLICA, REVISION, ROLLOUT, SPEC

OLD, NEW = b"o" * 32, b"n" * 32
VALUE = b"canary-4711"
TOKEN = StoredSecret(
    organization="acme",
    name="token",
    version=1,
    size_bytes=len(VALUE),
    textual=True,
    created_at=1.0,
    updated_at=1.0,
    updated_by="uid:0",
)
LOGIN = StoredLogin(
    organization="acme",
    server="r.example",
    username="robot",
    created_at=1.0,
    updated_at=1.0,
    updated_by="uid:0",
)


@pytest.fixture
async def kept(database):
    """Give a database with a secret and a login, sealed with the old key."""
    sealer = Sealer(OLD)

    async def write(tx):
        await secrets.save(tx, TOKEN, VALUE, sealer)
        await registries.save(tx, LOGIN, "password-4711", sealer)

    await database.write(write)
    return database


async def opened(database, sealer):
    async with database.read() as tx:
        value = await secrets.value(tx, "acme", "token", sealer)
        login = await registries.login(tx, "acme", "r.example", sealer)
        return value, login.password


async def test_what_may_be_shown_comes_back_with_the_name_of_the_key_and_without_the_value(kept):
    async with kept.read() as tx:
        found = await secrets.get(tx, "acme", "token")
        assert found == dataclasses.replace(TOKEN, key_id=Sealer(OLD).key_id)
        assert await secrets.list_for(tx, "acme") == await secrets.list_for(tx, None) == [found]
        assert await secrets.list_for(tx, "rival") == []
        assert await secrets.value(tx, "rival", "token", Sealer(OLD)) is None
    assert "canary" not in repr(found)


async def test_no_value_is_in_any_file_of_the_state(kept, tmp_path):
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert b"canary-4711" not in path.read_bytes()
        assert b"password-4711" not in path.read_bytes()


async def test_the_next_version_takes_the_place_of_the_one_before(kept):
    later = dataclasses.replace(TOKEN, version=2, size_bytes=3, textual=False, updated_at=2.0)
    await kept.write(lambda tx: secrets.save(tx, later, b"\xff\0x", Sealer(OLD)))
    async with kept.read() as tx:
        found = await secrets.get(tx, "acme", "token")
        assert (found.version, found.textual, found.created_at) == (2, False, 1.0)
        assert await secrets.value(tx, "acme", "token", Sealer(OLD)) == b"\xff\0x"


@pytest.mark.parametrize(
    "moved",
    [
        "UPDATE secrets SET organization = 'rival'",
        "UPDATE secrets SET name = 'other'",
        "UPDATE secrets SET version = 2",
        "UPDATE secrets SET value = (SELECT password FROM registries)",
    ],
)
async def test_a_value_does_not_open_in_another_place(kept, moved):
    await kept.write(lambda tx: tx.execute_fetchall(moved))
    async with kept.read() as tx:
        (row,) = await secrets.list_for(tx, None)
        with pytest.raises(SealBrokenError, match="changed or damaged"):
            await secrets.value(tx, row.organization, row.name, Sealer(OLD))


async def test_what_a_former_secret_or_login_of_the_name_held_does_not_open_for_the_next(kept):
    """Versions begin anew after a removal: the place alone does not tell the two apart."""

    async def again(tx):
        former = (
            (await tx.execute_fetchall("SELECT value FROM secrets"))[0][0],
            (await tx.execute_fetchall("SELECT password FROM registries"))[0][0],
        )
        await secrets.remove(tx, "acme", "token")
        await registries.remove(tx, "acme", "r.example")
        await secrets.save(tx, TOKEN, b"next", Sealer(OLD))
        await registries.save(tx, LOGIN, "next", Sealer(OLD))
        return former

    value, password = await kept.write(again)
    assert await opened(kept, Sealer(OLD)) == (b"next", "next")
    for sql, sealed in (
        ("UPDATE secrets SET value = ?", value),
        ("UPDATE registries SET password = ?", password),
    ):
        await kept.write(lambda tx, sql=sql, sealed=sealed: tx.execute_fetchall(sql, (sealed,)))
        with pytest.raises(SealBrokenError, match="changed or damaged"):
            await opened(kept, Sealer(OLD))
        await kept.write(again)


async def test_what_was_sealed_before_seals_had_names_still_opens(kept):
    place = "secrets/acme/token/1/value"
    row = (Sealer(OLD).seal(b"from before", place),)
    await kept.write(
        lambda tx: tx.execute_fetchall("UPDATE secrets SET seal_id = '', value = ?", row)
    )
    assert (await opened(kept, Sealer(OLD)))[0] == b"from before"


def test_the_same_value_is_never_sealed_the_same_way_twice():
    sealer = Sealer(OLD)
    sealed = [sealer.seal(VALUE, "place") for _ in range(1000)]
    assert len({each[5:17] for each in sealed}) == len(sealed), "a nonce came twice"
    assert {sealer.open(each, "place") for each in sealed} == {VALUE}


async def test_everything_is_sealed_anew_and_the_old_key_opens_nothing_afterwards(kept):
    sealer = Sealer(OLD)
    sealer.turn_to(NEW)
    assert await opened(kept, sealer) == (VALUE, "password-4711")

    async def reseal(tx):
        return await secrets.reseal(tx, sealer), await registries.reseal(tx, sealer)

    assert await kept.write(reseal) == (1, 1)
    assert await kept.write(reseal) == (0, 0)
    sealer.forget_earlier()
    assert await opened(kept, sealer) == await opened(kept, Sealer(NEW)) == (VALUE, "password-4711")
    with pytest.raises(SealBrokenError, match="another envelope key"):
        await opened(kept, Sealer(OLD))


async def test_one_that_cannot_be_opened_keeps_all_as_they_are(kept):
    broken = dataclasses.replace(TOKEN, name="aaa")
    await kept.write(lambda tx: secrets.save(tx, broken, b"x", Sealer(b"z" * 32)))

    async def reseal(tx):
        await registries.reseal(tx, Sealer(NEW, OLD))
        await secrets.reseal(tx, Sealer(NEW, OLD))

    with pytest.raises(SealBrokenError):
        await kept.write(reseal)
    assert await opened(kept, Sealer(OLD)) == (VALUE, "password-4711")


async def test_a_secret_is_forgotten_once(kept):
    assert await kept.write(lambda tx: secrets.remove(tx, "acme", "token"))
    assert not await kept.write(lambda tx: secrets.remove(tx, "acme", "token"))
    async with kept.read() as tx:
        assert await secrets.get(tx, "acme", "token") is None


async def deployed(database, given, *named: str) -> None:
    """Store a deployment whose revisions, from 1 on, each name one secret."""

    async def write(tx):
        await deployments.add(tx, given)
        for number, name in enumerate(named, start=1):
            spec = dataclasses.replace(SPEC, secrets={"A": SecretUse(name), "B": SecretUse(name)})
            revision = dataclasses.replace(
                REVISION, deployment_id=given.id, number=number, spec=spec
            )
            await revisions.add(tx, revision)

    await database.write(write)


async def test_a_secret_is_used_by_the_models_of_which_a_revision_that_matters_names_it(database):
    given = dataclasses.replace(DEPLOYMENT, revision=6, stable_revision=5)
    await deployed(database, given, "unused", "ended", "runs", "left", "stable", "wanted")
    ended = dataclasses.replace(REPLICA, id="ended", revision=2, state=ReplicaState.FAILED)
    runs = dataclasses.replace(REPLICA, id="runs", revision=3, slot=1)
    rollout = dataclasses.replace(ROLLOUT, from_revision=4, to_revision=6)
    over = dataclasses.replace(rollout, number=2, from_revision=1, phase=RolloutPhase.ABORTED)
    other = dataclasses.replace(given, id="deploy_2", model_id="custom_a", model_name="a")
    await deployed(database, dataclasses.replace(other, revision=1), "wanted")
    going = dataclasses.replace(other, id="deploy_3", model_id="custom_b", model_name="b")
    await deployed(database, dataclasses.replace(going, revision=1, deleting=True), "wanted")

    async def write(tx):
        for replica in (ended, runs):
            await replicas.add(tx, replica)
        for one in (over, rollout):
            await rollouts.add(tx, one)

    await database.write(write)
    async with database.read() as tx:
        used = await secrets.users(tx, "acme")
        assert await secrets.users(tx, None) == used
    own = dict.fromkeys(("ended", "runs", "left", "stable", "wanted"), ("custom_legal",))
    own["wanted"] = ("custom_a", "custom_legal")
    assert used == {("acme", name): models for name, models in own.items()}


async def test_of_replicas_that_ended_long_ago_the_secrets_are_not_used(database):
    given = dataclasses.replace(DEPLOYMENT, revision=2)
    await deployed(database, given, "long ago", "wanted")

    async def write(tx):
        for number in range(9):
            ended = dataclasses.replace(
                REPLICA,
                id=f"r{number}",
                revision=1 if number == 0 else 2,
                state=ReplicaState.STOPPED,
                created_at=100.0 + number,
            )
            await replicas.add(tx, ended)

    await database.write(write)
    async with database.read() as tx:
        assert await secrets.users(tx, "acme") == {("acme", "wanted"): ("custom_legal",)}


async def test_for_one_organization_s_secrets_nothing_of_another_s_models_is_read(database):
    """What the other's revision names could not even be read."""
    await deployed(database, DEPLOYMENT, "token")
    rival = dataclasses.replace(DEPLOYMENT, id="deploy_2", organization="rival")
    await deployed(database, rival, "token")

    async def break_it(tx):
        await tx.execute("UPDATE revisions SET secret_names = '{' WHERE deployment_id = 'deploy_2'")

    await database.write(break_it)
    async with database.read() as tx:
        assert await secrets.users(tx, "acme") == {("acme", "token"): ("custom_legal",)}
