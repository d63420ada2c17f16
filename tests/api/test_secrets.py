"""Secrets over the API: who may, what is told, what uses them, and the key that seals them."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.domain.quantity import GIB
from prsmd.domain.resource_quota import Dimension
from prsmd.service.resource_quotas import LimitChange
from prsmd.store.sealing import Sealer
from tests.api.served import DEPLOY, LEGAL, Door, served
from tests.engine.conftest import life, world
from tests.engine.harness import Life, World, caller

__all__ = ["life", "world"]
SECRETS, ROTATE = "/v1/secrets", "/v1/secrets/rotate-key"
CANARY = "canary-4711-correct-horse"
TOKEN = {"name": "token", "value": CANARY}


@pytest.fixture
async def door(life: Life, tmp_path: Path) -> AsyncIterator[Door]:
    life.world.engine.shelf.free_bytes = 100 * GIB
    async with served(life, tmp_path) as door:
        yield door


def legal(name: str = "legal", **secrets: Any) -> dict[str, Any]:
    config = {**LEGAL["deployment_config"], "secrets": secrets}
    return {**LEGAL, "model_name": name, "deployment_config": config}


async def test_a_value_goes_in_and_never_comes_out(door: Door):
    made = await door.ask("POST", SECRETS, TOKEN)
    assert made.status == 201
    shown = {key: made.body[key] for key in ("name", "organization", "version", "size_bytes")}
    assert shown == {
        "name": "token",
        "organization": "default",
        "version": 1,
        "size_bytes": len(CANARY),
    }
    again = await door.ask("PUT", f"{SECRETS}/token", {"value": CANARY + "2"})
    assert (again.status, again.body["version"]) == (200, 2)
    listed = await door.ask("GET", SECRETS)
    assert [one["version"] for one in listed.body["secrets"]] == [2]
    for told in (made, again, listed):
        assert CANARY not in json.dumps(told.body)


async def test_binary_values_come_as_base64(door: Door):
    body = {"name": "cert", "value_base64": base64.b64encode(b"\x00\xff").decode()}
    made = await door.ask("POST", SECRETS, body)
    assert (made.status, made.body["size_bytes"]) == (201, 2)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "token"},
        {"name": "token", "value": CANARY, "value_base64": "eA=="},
        {"name": "token", "value": ""},
        {"name": "token", "value": 4711},
        {"name": "token", "value": [CANARY]},
        {"name": "token", "value_base64": f"!{CANARY}"},
        {"name": "../token", "value": CANARY},
        {"name": "token", "valeu": CANARY},
        {"name": "token", "value": "x" * (256 * 1024 + 1)},
        {"name": "token", "value": CANARY, "organization": "No Such"},
    ],
    ids=lambda body: str(body)[:50],
)
async def test_what_is_wrong_is_named_and_never_quoted(door: Door, body: Any):
    told = await door.ask("POST", SECRETS, body)
    assert told.status == 400
    assert told.body["error"]["details"]["validation_errors"]
    assert CANARY not in json.dumps(told.body)
    assert "4711" not in json.dumps(told.body)
    assert (await door.ask("GET", SECRETS)).body["total"] == 0


async def test_a_repeated_request_makes_no_second_version_and_stores_no_value(
    door: Door, life: Life
):
    first = await door.ask("POST", SECRETS, TOKEN, once="k1")
    second = await door.ask("POST", SECRETS, TOKEN, once="k1")
    assert second.replayed
    assert second.body == first.body
    assert (await door.ask("POST", SECRETS, {**TOKEN, "value": "x"}, once="k1")).status == 409
    async with life.database.read() as tx:
        rows = [*await tx.execute_fetchall("SELECT * FROM remembered_answers")]
    assert rows
    assert not any(CANARY in str(value) for row in rows for value in tuple(row))


async def test_only_who_manages_secrets_may_and_denials_are_on_record(door: Door, life: Life):
    key = await door.api_key("deployer")
    for method, path, body in [
        ("POST", SECRETS, TOKEN),
        ("PUT", f"{SECRETS}/token", {"value": CANARY}),
        ("GET", SECRETS, None),
        ("DELETE", f"{SECRETS}/token", None),
        ("POST", ROTATE, None),
    ]:
        assert (await door.ask(method, path, body, key=key)).status == 403
    assert (await life.audit()).count(("secrets.manage", "denied")) == 4
    owner = await door.api_key("owner")
    assert (await door.ask("POST", SECRETS, TOKEN, key=owner)).status == 201
    assert (await door.ask("POST", ROTATE, key=owner)).status == 403


async def test_a_container_gets_files_and_variables_only_where_asked(door: Door, life: Life):
    await door.ask("POST", SECRETS, TOKEN)
    await door.ask("POST", SECRETS, {"name": "level", "value": "debug"})
    body = legal(API_TOKEN="token", LEVEL={"name": "level", "as": "environment"})
    assert (await door.ask("POST", DEPLOY, body)).status == 202
    await life.settle()
    (replica,) = await life.active()
    environment = life.world.engine.environment(replica.id)
    assert environment["API_TOKEN_FILE"] == "/run/secrets/API_TOKEN"
    assert environment["LEVEL"] == "debug"
    assert "API_TOKEN" not in environment
    assert "LEVEL_FILE" not in environment
    assert life.world.engine.secret(replica.id, "/run/secrets/API_TOKEN") == CANARY
    shown = await door.ask("GET", "/v1/custom-models/legal")
    assert shown.body["deployment_config"]["secrets"] == body["deployment_config"]["secrets"]
    listed = await door.ask("GET", SECRETS)
    assert {one["name"]: one["used_by"] for one in listed.body["secrets"]} == {
        "token": ["custom_legal"],
        "level": ["custom_legal"],
    }


async def test_new_replicas_get_the_new_version_and_running_ones_are_left_alone(
    door: Door, life: Life
):
    await door.ask("POST", SECRETS, TOKEN)
    await door.ask("POST", DEPLOY, legal(TOKEN="token"))
    await life.settle()
    await door.ask("PUT", f"{SECRETS}/token", {"value": "second"})
    await door.ask("POST", "/v1/custom-models/legal/scale", {"target_replicas": 2})
    await life.settle()
    found = [
        life.world.engine.secret(one.id, "/run/secrets/TOKEN")
        for one in sorted(await life.active(), key=lambda one: one.created_at)
    ]
    assert found == [CANARY, "second"]


@pytest.mark.parametrize("path", [DEPLOY, f"{DEPLOY}?dry_run=true"])
async def test_a_missing_secret_is_told_before_anything_is_stored(door: Door, path: str):
    told = await door.ask("POST", path, legal(TOKEN="token"))
    assert told.status == 409
    assert "default has no secret token: set it with" in told.body["error"]["message"]
    assert (await door.ask("GET", "/v1/custom-models")).body["total"] == 0


async def test_an_update_to_a_missing_secret_touches_nothing(door: Door, life: Life):
    await door.ask("POST", DEPLOY, LEGAL)
    await life.settle()
    before = [one.id for one in await life.active()]
    patch = {"deployment_config": {"secrets": {"TOKEN": "token"}}}
    for query in ("", "?dry_run=true"):
        told = await door.ask("PUT", f"/v1/custom-models/legal{query}", patch)
        assert told.status == 409
    await life.settle()
    assert [one.id for one in await life.active()] == before
    versions = await door.ask("GET", "/v1/custom-models/legal/versions")
    assert len(versions.body["versions"]) == 1


async def test_another_organizations_secret_is_no_secret(door: Door):
    await door.ask("POST", "/v1/organizations", {"organization_id": "rival"})
    body = {**TOKEN, "organization": "rival"}
    assert (await door.ask("POST", SECRETS, body)).status == 201
    assert (await door.ask("POST", DEPLOY, legal(TOKEN="token"))).status == 409
    key = await door.api_key("owner")
    assert (await door.ask("GET", SECRETS, key=key)).body["total"] == 0
    told = await door.ask("DELETE", f"{SECRETS}/token?organization=rival", key=key)
    never = await door.ask("DELETE", f"{SECRETS}/token?organization=never", key=key)
    assert told.status == never.status == 404


async def test_a_binary_secret_cannot_be_a_variable(door: Door):
    await door.ask("POST", SECRETS, {"name": "cert", "value_base64": "AP8="})
    body = legal(CERT={"name": "cert", "as": "environment"})
    told = await door.ask("POST", DEPLOY, body)
    assert (told.status, "give it as a file" in told.body["message"]) == (409, True)
    assert (await door.ask("POST", DEPLOY, legal(CERT="cert"))).status == 202


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"value": "x" * 9_000}, "environment, secrets in variables, command and args may have"),
        ({"value": "x" * 200_000}, "secret token is binary or too long for a variable"),
        ({"value_base64": "AP8="}, "secret token is binary or too long for a variable"),
    ],
    ids=["beyond the quota", "beyond a variable", "binary"],
)
async def test_a_next_version_that_a_model_could_not_be_started_with_is_refused(
    door: Door, life: Life, value: dict[str, str], why: str
):
    limits = {Dimension.ENVIRONMENT_PER_MODEL: LimitChange(hard=8192)}
    await life.services.quotas.change(caller(), "default", limits)
    await door.ask("POST", SECRETS, TOKEN)
    body = legal(CERT="token", LEVEL={"name": "token", "as": "environment"})
    assert (await door.ask("POST", DEPLOY, body)).status == 202

    told = await door.ask("PUT", f"{SECRETS}/token", value)

    assert told.status == 400
    [problem] = told.body["error"]["details"]["validation_errors"]
    assert problem["field"] == "value"
    assert problem["error"].startswith("revision 1 of custom_legal has it in a variable; ")
    assert why in problem["error"]
    assert CANARY not in json.dumps(told.body)
    [kept] = (await door.ask("GET", SECRETS)).body["secrets"]
    assert kept["version"] == 1
    assert (await door.ask("PUT", f"{SECRETS}/token", {"value": "y" * 4_000})).status == 200


async def test_a_secret_in_files_may_be_as_large_as_any(door: Door):
    await door.ask("POST", SECRETS, TOKEN)
    assert (await door.ask("POST", DEPLOY, legal(CERT="token"))).status == 202

    assert (await door.ask("PUT", f"{SECRETS}/token", {"value": "x" * 60_000})).status == 200
    assert (await door.ask("PUT", f"{SECRETS}/token", {"value_base64": "AP8="})).status == 200


async def test_a_removed_secret_comes_back_no_larger_than_its_models_can_take(door: Door):
    await door.ask("POST", SECRETS, TOKEN)
    body = legal(LEVEL={"name": "token", "as": "environment"})
    assert (await door.ask("POST", DEPLOY, body)).status == 202
    assert (await door.ask("DELETE", f"{SECRETS}/token?force=true")).status == 200

    assert (await door.ask("POST", SECRETS, {**TOKEN, "value": "x" * 200_000})).status == 400


@pytest.mark.parametrize(
    "secrets",
    [
        {"NVIDIA_VISIBLE_DEVICES": "token"},
        {"PRSMD_X": "token"},
        {"bad name": "token"},
        {"A": "../etc/passwd"},
        {"A": {"name": "token", "as": "argument"}},
        {"A": {"name": "token", "as": ["file"]}},
        {"A": {"as": "file"}},
        {"A": 7},
        {"A": "token", "A_FILE": {"name": "token", "as": "environment"}},
        {"MODE": {"name": "token", "as": "environment"}},
        "token",
    ],
    ids=str,
)
async def test_what_cannot_be_given_is_refused_by_its_field(door: Door, secrets: Any):
    await door.ask("POST", SECRETS, TOKEN)
    body = legal()
    body["deployment_config"] |= {"secrets": secrets, "environment": {"MODE": "x"}}
    told = await door.ask("POST", DEPLOY, body)
    assert told.status == 400
    (problem,) = told.body["error"]["details"]["validation_errors"]
    assert problem["field"].startswith("deployment_config.secrets")


async def test_a_secret_in_use_is_removed_only_by_force_and_then_launches_say_why(
    door: Door, life: Life
):
    await door.ask("POST", SECRETS, TOKEN)
    deployed = await door.ask("POST", DEPLOY, legal(TOKEN="token"))
    await life.settle()
    told = await door.ask("DELETE", f"{SECRETS}/token")
    assert told.status == 409
    assert "used by custom_legal" in told.body["message"]
    assert (await door.ask("DELETE", f"{SECRETS}/token?force=true")).status == 200
    (replica,) = await life.active()
    life.world.engine.crash(replica.id)
    await life.settle()
    life.world.ahead += 600  # past its backoff

    async def refused() -> bool:
        events = await life.events(deployed.body["deployment_id"])
        return any("has no secret token" in event.message for event in events)

    await life.until(refused)


async def test_a_secret_of_a_deleted_model_can_go(door: Door, life: Life):
    await door.ask("POST", SECRETS, TOKEN)
    await door.ask("POST", DEPLOY, legal(TOKEN="token"))
    await life.settle()
    await door.ask("DELETE", "/v1/custom-models/legal")
    assert (await door.ask("DELETE", f"{SECRETS}/token")).status == 200
    assert (await door.ask("DELETE", f"{SECRETS}/token")).status == 404


async def test_rotating_the_key_seals_everything_anew_and_replaces_the_file(
    door: Door, life: Life, world: World
):
    await door.ask("POST", SECRETS, TOKEN)
    await door.ask("POST", "/v1/registries", {"server": "r", "username": "u", "password": CANARY})
    before = (world.folder / "envelope-key").read_bytes()
    told = await door.ask("POST", ROTATE)
    assert told.status == 200
    assert (told.body["resealed_secrets"], told.body["resealed_registries"]) == (1, 1)
    after = (world.folder / "envelope-key").read_bytes()
    assert before != after
    assert not (world.folder / "envelope-key.next").exists()
    assert told.body["key_id"] == Sealer(after).key_id
    assert (await door.ask("GET", SECRETS)).body["secrets"][0]["key_id"] == told.body["key_id"]
    await door.ask("POST", DEPLOY, legal(TOKEN="token"))
    await life.settle()
    (replica,) = await life.active()
    assert life.world.engine.secret(replica.id, "/run/secrets/TOKEN") == CANARY


@pytest.mark.parametrize("sealed_anew", [False, True])
async def test_a_rotation_that_was_cut_off_is_finished_by_the_next_start(
    world: World, tmp_path: Path, sealed_anew: bool
):
    async with world.life() as first, served(first, tmp_path) as door:
        await door.ask("POST", SECRETS, TOKEN)
        if sealed_anew:
            envelope = first.services.secrets._envelope
            with contextlib.suppress(ZeroDivisionError):
                envelope.adopt = lambda: 1 / 0
                await door.ask("POST", ROTATE)
            assert (world.folder / "envelope-key.next").exists()
        else:
            first.services.secrets._envelope.prepare()
    following = (world.folder / "envelope-key.next").read_bytes()
    async with world.life() as second, served(second, tmp_path) as door:
        assert (world.folder / "envelope-key").read_bytes() == following
        assert not (world.folder / "envelope-key.next").exists()
        (row,) = (await door.ask("GET", SECRETS)).body["secrets"]
        assert row["key_id"] == Sealer(following).key_id
        await door.ask("POST", DEPLOY, legal(TOKEN="token"))
        await second.settle()
        (replica,) = await second.active()
        assert world.engine.secret(replica.id, "/run/secrets/TOKEN") == CANARY


async def test_no_audit_record_event_or_log_line_has_a_value(door: Door, life: Life, caplog):
    caplog.set_level("DEBUG")
    await door.ask("POST", SECRETS, TOKEN)
    await door.ask("PUT", f"{SECRETS}/token", {"value": CANARY})
    deployed = await door.ask("POST", DEPLOY, legal(TOKEN="token"))
    await life.settle()
    async with life.database.read() as tx:
        records = [tuple(row) for row in await tx.execute_fetchall("SELECT * FROM audit")]
    events = await life.events(deployed.body["deployment_id"])
    actions = {one[0] for one in await life.audit()}
    assert "secrets.save" in actions
    for text in (str(records), str(events), caplog.text):
        assert CANARY not in text
