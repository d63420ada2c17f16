"""Making and revoking keys: nobody rises above their own role, and every try is on record."""

import pytest

from prsmd.domain.access import ROLES, Principal
from prsmd.domain.errors import InvalidApiKeyError, NotFoundError, PermissionDeniedError
from prsmd.domain.events import OWN_PRINCIPAL
from prsmd.service.access import KeyRing
from prsmd.service.caller import Caller
from prsmd.service.directory import Directory
from prsmd.service.keys import KeyRequest, Keys
from prsmd.service.organizations import ensure
from prsmd.service.registrar import Registrar
from prsmd.store import audit, keys
from prsmd.store.db import Database


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path / "state")
    yield opened
    await opened.close()


@pytest.fixture
async def directory(database):
    await ensure(database, ["company", "rival"])
    async with database.read() as tx:
        return await Directory.load(tx)


@pytest.fixture
def ring(directory):
    return KeyRing(b"p" * 32, directory)


@pytest.fixture
def service(database, directory, ring):
    return Keys(Registrar(database, directory), ring)


def caller(role="admin", organization="company"):
    principal = Principal(
        id=f"test:{role}", organization=organization, role=role, permissions=ROLES[role]
    )
    return Caller(principal, "req_1")


async def recorded(database):
    async with database.read() as tx:
        changes, _ = await audit.page(tx, None, 100, 0)
        denials, _ = await audit.page(tx, None, 100, 0, "denials")
    found = sorted([*changes, *denials], key=lambda each: each.at, reverse=True)
    by_callers = [record for record in found if record.principal != OWN_PRINCIPAL]
    return [(record.action, record.outcome, record.principal) for record in by_callers]


async def stored(database):
    async with database.read() as tx:
        return await keys.list_for(tx, None)


async def test_a_new_key_opens_the_door_and_is_stored_without_its_secret(service, ring, database):
    key, text = await service.create(caller(), KeyRequest(name="ci", role="deployer"))

    assert ring.identify(text).principal.role == "deployer"
    [row] = await stored(database)
    assert row == key
    assert text.split("_")[2][:32].encode() not in row.digest
    assert await recorded(database) == [("keys.create", "allowed", "test:admin")]


async def test_two_keys_have_nothing_in_common(service):
    texts = [(await service.create(caller(), KeyRequest(name="k", role="viewer")))[1] for _ in "ab"]

    one, two = (text.split("_") for text in texts)
    assert one[1] != two[1]
    assert one[2] != two[2]


@pytest.mark.parametrize(
    ("role", "wish"),
    [
        ("owner", KeyRequest(name="up", role="admin")),
        ("owner", KeyRequest(name="up", role="admin", models=("custom_plans",))),
        ("owner", KeyRequest(name="out", role="viewer", organization="rival")),
        ("viewer", KeyRequest(name="any", role="viewer")),
        ("auditor", KeyRequest(name="any", role="auditor")),
    ],
    ids=["above itself", "on models of all", "elsewhere", "without permission", "an auditor"],
)
async def test_a_denied_key_is_not_made_and_the_try_is_recorded(service, database, role, wish):
    with pytest.raises(PermissionDeniedError) as refusal:
        await service.create(caller(role), wish)

    assert refusal.value.details["required_permissions"]
    assert await stored(database) == []
    [(_, outcome, who)] = await recorded(database)
    assert (outcome, who) == ("denied", f"test:{role}")


@pytest.mark.parametrize("role", [role for role in ROLES if role != "admin"])
async def test_an_owner_can_make_keys_of_every_role_but_the_appliances(service, role):
    key, _ = await service.create(caller("owner"), KeyRequest(name="k", role=role))

    assert (key.organization, key.role) == ("company", role)


async def test_an_administrator_makes_keys_for_any_organization(service):
    wish = KeyRequest(name="k", role="owner", organization="rival")

    assert (await service.create(caller(), wish))[0].organization == "rival"


async def test_revoking_ends_a_key_at_once_and_is_recorded_once(service, ring, database):
    key, text = await service.create(caller(), KeyRequest(name="k", role="viewer"))

    first = await service.revoke(caller(), key.id)
    again = await service.revoke(caller(), key.id)

    assert first.revoked_at is not None
    assert again == first
    with pytest.raises(InvalidApiKeyError, match="revoked"):
        ring.identify(text)
    actions = [action for action, _, _ in await recorded(database)]
    assert actions == ["keys.revoke", "keys.create"]


async def test_another_organizations_key_is_as_unknown_as_none(service, database):
    key, _ = await service.create(caller(), KeyRequest(name="k", role="viewer"))
    messages = []

    for key_id in (key.id, "0000000000", "prsm_whole_key"):
        with pytest.raises(NotFoundError) as refusal:
            await service.revoke(caller("owner", "rival"), key_id)
        messages.append((refusal.value.message, refusal.value.details))

    assert len({str(message) for message in messages}) == 1
    assert (await stored(database))[0].revoked_at is None


async def test_keys_are_listed_by_organization_and_for_administrators_all(service):
    for organization in ("company", "rival"):
        wish = KeyRequest(name="k", role="viewer", organization=organization)
        await service.create(caller(), wish)

    own, total = await service.page(caller("owner", "rival"), 20, 0)
    everyones, of_all = await service.page(caller(), 20, 0)

    assert [key.organization for key in own] == ["rival"]
    assert (total, of_all) == (1, 2)
    assert {key.organization for key in everyones} == {"company", "rival"}
    with pytest.raises(PermissionDeniedError):
        await service.page(caller("viewer"), 20, 0)


async def test_a_new_key_ends_the_expired_ones_of_its_organization(
    service, directory, database, monkeypatch
):
    monkeypatch.setattr("prsmd.service.directory._KNOWN_EXPIRED", 1)
    made = []
    for _ in range(3):
        one, _ = await service.create(caller(), KeyRequest(name="k", role="viewer"))
        await service.change(caller(), one.id, {"expires_at": 1.0 + len(made)})
        made.append(one.id)
    last, _ = await service.create(caller(), KeyRequest(name="last", role="viewer"))

    async with database.read() as tx:
        for known in (directory, await Directory.load(tx)):
            assert [known.has_ended(id_) for id_ in [*made, last.id]] == [True, True, False, False]
    shown, _ = await service.page(caller(), 20, 0)
    assert {key.name for key in shown} == {"k", "last"}
