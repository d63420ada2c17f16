"""Organizations, roles, members and keys over the asynchronous client, against the real API."""

from pathlib import Path

import pytest

from prsm_sdk import PRSMClient, errors
from tests.api.served import served
from tests.engine.harness import World


@pytest.fixture
async def client(tmp_path: Path):
    world = World(tmp_path / "state")
    await world.start()
    url = f"unix://{tmp_path}/api.sock"
    async with (
        world.life() as life,
        served(life, tmp_path),
        PRSMClient(base_url=url, timeout=20) as opened,
    ):
        yield opened
    await world.server.close()


async def test_an_organization_with_role_member_and_key_from_its_beginning_to_its_end(client):
    assert (await client.who_am_i()).appliance_wide
    lab = await client.organizations.create("lab", "The Lab")
    role = await client.roles.create("reader", ["models.read"], organization="lab")
    bindings = [{"role": "reader"}]
    member = await client.members.add("uid", "54321", bindings, organization="lab")
    key = await client.keys.create("ci", "lab", "reader", models=["custom_a"], requests_per_day=5)

    assert (lab.display_name, role.permissions) == ("The Lab", ("models.read",))
    assert [binding.role for binding in member.bindings] == ["reader"]
    assert (key.models, key.requests_per_day) == (["custom_a"], 5)
    assert [each.name for each in await client.roles.list() if not each.built_in] == ["reader"]
    assert [each.member_id for each in await client.members.list()] == [member.member_id]

    changed = await client.keys.change(key.key_id, models=None, role="viewer")
    rotated = await client.keys.rotate(key.key_id, overlap_seconds=0)
    assert (changed.models, changed.role) == (None, "viewer")
    assert rotated.key.startswith(f"prsm_{key.key_id}_")
    assert rotated.key != key.key
    await client.keys.revoke(key.key_id)
    assert (await client.keys.get(key.key_id)).revoked_at is not None

    await client.members.change(member.member_id, [{"role": "viewer"}])
    await client.roles.remove("reader", "lab")
    await client.organizations.change("lab", disabled=True)
    await client.organizations.remove("lab")
    assert [each.organization_id for each in await client.organizations.list()] == ["default"]
    assert list(await client.members.list()) == []


async def test_a_quota_is_seen_set_in_part_and_set_back(client):
    await client.organizations.create("lab")
    changed = await client.organizations.change_quota("lab", {"cpu": "500m", "keys": 1})
    assert (changed.quota["cpu"].hard, changed.quota["cpu"].used) == ("500m", "0")
    await client.organizations.change_quota("lab", {"gpu": "0.5"})
    seen = await client.organizations.quota("lab")
    assert seen.organization_id == "lab"
    assert (seen.quota["cpu"].hard, seen.quota["gpu"].hard) == ("500m", "0.5")
    assert not seen.quota["keys"].default
    await client.keys.create("ci", "lab", "viewer")
    with pytest.raises(errors.QuotaExceededError, match="keys: 1 of 1 used, 1 more asked"):
        await client.keys.create("ci", "lab", "viewer")
    back = await client.organizations.change_quota("lab", {"keys": "default", "cpu": "unlimited"})
    assert (back.quota["cpu"].hard, back.quota["cpu"].default) == (None, False)
    assert back.quota["keys"].default
    assert set((await client.who_am_i()).quota) == set(seen.quota)
    with pytest.raises(errors.InvalidInputError, match="did you mean keys"):
        await client.organizations.change_quota("lab", {"kyes": 1})


async def test_a_refusal_is_an_error_of_its_own_kind(client):
    with pytest.raises(errors.NotFoundError):
        await client.organizations.get("nowhere")
    with pytest.raises(errors.InvalidInputError, match="built-in"):
        await client.roles.create("owner", [])
    with pytest.raises(errors.ConflictError):
        await client.organizations.create("default")
