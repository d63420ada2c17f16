"""Idempotency keys: what is asked for twice is done once, and both are told the same."""

import asyncio
import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from prsmd.api.app import OPERATIONS
from prsmd.api.idempotency import carry_out
from prsmd.api.openapi import describe
from prsmd.api.operations import Operation
from prsmd.api.requests import refuse_unknown
from prsmd.domain.access import Permission
from prsmd.domain.errors import ConflictError, InvalidInputError, PermissionDeniedError
from prsmd.service.answers import Answers
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer, Once
from prsmd.store import idempotency
from prsmd.store.idempotency import KEPT_SECONDS
from tests.api.served import DEPLOY, LEGAL, SCALE, Door, Told, served
from tests.engine.conftest import life, world
from tests.engine.harness import Fuse, Life, World, caller, finished

__all__ = ["life", "world"]

MODEL = "/v1/custom-models/legal"
KEYS = "/v1/api-keys"
CHANGES = [operation for operation in OPERATIONS if operation.answer is not None]


@pytest.fixture
async def door(life: Life, tmp_path: Path) -> AsyncIterator[Door]:
    async with served(life, tmp_path) as door:
        yield door


async def remembered(life: Life) -> list[Any]:
    async with life.database.read() as tx:
        rows = await tx.execute_fetchall("SELECT * FROM remembered_answers ORDER BY created_at")
    return [dict(row) for row in rows]


def same(first: Told, again: Told) -> bool:
    return (first.status, first.body) == (again.status, again.body)


async def test_a_repeated_deploy_gets_the_first_answer_and_deploys_nothing(life: Life, door: Door):
    first = await door.ask("POST", DEPLOY, LEGAL, once="k1")
    again = await door.ask("POST", DEPLOY, LEGAL, once="k1")

    assert first.status == 202
    assert not first.replayed
    assert same(first, again)
    assert again.replayed
    assert first.headers["X-Request-ID"] != again.headers["X-Request-ID"]
    assert len(await life.deployments()) == 1
    assert await life.audit() == [("models.deploy", "allowed")]


async def test_a_repeated_scale_does_not_undo_what_came_after_it(life: Life, door: Door):
    await door.ask("POST", DEPLOY, LEGAL)
    first = await door.ask("POST", SCALE, {"target_replicas": 3}, once="up")
    await door.ask("POST", SCALE, {"target_replicas": 2}, once="down")
    again = await door.ask("POST", SCALE, {"target_replicas": 3}, once="up")

    assert same(first, again)
    assert again.replayed
    assert (await life.deployments())[0].asked_replicas == 2


async def test_a_repeated_delete_is_answered_when_the_model_is_long_gone(life: Life, door: Door):
    await door.ask("POST", DEPLOY, LEGAL)
    first = await door.ask("DELETE", MODEL, once="bye")
    await life.settle()
    assert await life.deployments() == []
    await door.ask("POST", DEPLOY, LEGAL)
    again = await door.ask("DELETE", MODEL, once="bye")

    assert first.status == 202
    assert same(first, again)
    assert [one.deleting for one in await life.deployments()] == [False]


async def test_the_secret_of_a_key_is_in_the_first_answer_only_and_stored_nowhere(
    life: Life, door: Door
):
    wish = {"name": "ci", "role": "viewer"}
    first = await door.ask("POST", KEYS, wish, once="k")
    again = await door.ask("POST", KEYS, wish, once="k")

    assert first.status == again.status == 201
    secret = first.body["key"]
    assert "key" not in again.body
    assert "kept nowhere" in again.body["message"]
    assert again.body["key_id"] == first.body["key_id"]
    assert "message" not in first.body
    assert secret not in json.dumps(await remembered(life))
    assert (await door.ask("GET", KEYS)).body["total"] == 1
    assert (await door.ask("GET", "/v1/auth/me", key=secret)).status == 200


async def test_a_repeated_revocation_gets_the_first_answer_and_is_on_record_once(
    life: Life, door: Door
):
    await door.api_key("viewer")
    [key] = (await door.ask("GET", KEYS)).body["api_keys"]
    path = f"{KEYS}/{key['key_id']}"
    first = await door.ask("DELETE", path, once="r")
    assert same(first, await door.ask("DELETE", path, once="r"))
    assert same(first, await door.ask("DELETE", path, once="another"))
    assert same(first, await door.ask("DELETE", path, once="another"))
    assert (await life.audit()).count(("keys.revoke", "allowed")) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", DEPLOY, {**LEGAL, "model_name": "other"}),
        ("POST", SCALE, {"target_replicas": 2}),
        ("POST", f"{DEPLOY}?x=1", LEGAL),
        ("DELETE", MODEL, None),
    ],
    ids=["body", "path", "query", "method"],
)
async def test_a_key_that_came_with_another_request_is_a_conflict_and_does_nothing(
    life: Life, door: Door, method: str, path: str, body: Any
):
    first = await door.ask("POST", DEPLOY, LEGAL, once="k1")
    told = await door.ask(method, path, body, once="k1")

    assert told.status == 409
    assert told.body["error"]["code"] == "CONFLICT"
    assert "Idempotency-Key came with another request" in told.body["message"]
    assert not told.replayed
    [deployment] = await life.deployments()
    assert (deployment.asked_replicas, deployment.deleting) == (1, False)
    assert same(first, await door.ask("POST", DEPLOY, LEGAL, once="k1"))


async def test_what_is_stored_does_not_let_anyone_guess_at_the_body(life: Life, door: Door):
    await door.ask("POST", DEPLOY, LEGAL, once="k1")
    [row] = await remembered(life)
    request = f"POST {DEPLOY}\n{json.dumps(LEGAL)}".encode()

    assert row["fingerprint"] == life.services.answers.fingerprint(request)
    assert row["fingerprint"] != Answers(life.database, str.encode).fingerprint(request)
    assert row["fingerprint"] != hashlib.sha256(request).hexdigest()


async def test_every_principal_has_keys_of_its_own(life: Life, door: Door):
    keys = [await door.api_key("owner") for _ in range(2)]
    await door.ask("POST", DEPLOY, LEGAL)
    scale = {"target_replicas": 2}
    answers = [await door.ask("POST", SCALE, scale, once="k", key=key) for key in keys]

    assert [answer.status for answer in answers] == [202, 202]
    assert not any(answer.replayed for answer in answers)
    assert len(await remembered(life)) == 2


async def test_who_may_less_by_now_is_not_given_the_stored_answer(life: Life, door: Door):
    key, scale = await door.api_key("owner"), {"target_replicas": 2}
    path = f"{KEYS}/{key.split('_')[1]}"
    await door.ask("POST", DEPLOY, LEGAL)
    first = await door.ask("POST", SCALE, scale, once="k", key=key)
    assert (await door.ask("PATCH", path, {"role": "viewer"})).status == 200
    told = await door.ask("POST", SCALE, scale, once="k", key=key)

    assert (told.status, told.body["error"]["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert not told.replayed
    assert first.body["deployment_id"] not in json.dumps(told.body)
    assert ("answers.repeat", "denied") in await life.audit()

    assert (await door.ask("PATCH", path, {"role": "owner"})).status == 200
    assert same(first, await door.ask("POST", SCALE, scale, once="k", key=key))


async def test_who_acts_for_another_organization_by_now_is_not_given_the_stored_answer(
    life: Life, door: Door
):
    wish = {"name": "ci", "role": "viewer"}
    here = await asked_as(life, "default", wish)
    assert here is not None
    assert await asked_as(life, "default", wish) == here
    with pytest.raises(PermissionDeniedError, match="may do less now"):
        await asked_as(life, "rival", wish)
    with pytest.raises(PermissionDeniedError, match="may do less now"):
        await asked_as(life, "default", wish, role="deployer")
    assert await asked_as(life, "default", wish, role="admin") == here


async def asked_as(life: Life, organization: str, wish: Any, role: str = "owner") -> Answer | None:
    """Ask as one and the same local user; return what is told, from the store if it is there."""
    by = caller(role, organization)
    by = dataclasses.replace(by, principal=dataclasses.replace(by.principal, id="uid:4242"))
    once = Once(lambda done: Answer(body=done), "k", "fingerprint")
    stored = await life.services.answers.first(by, once, "POST /v1/api-keys")
    if stored is None:
        await life.database.write(lambda tx: once.remember(tx, by.principal, wish))
    return stored or once.answer


async def test_a_refusal_is_not_kept_and_its_key_can_be_used_again(life: Life, door: Door):
    refused = await door.ask("POST", SCALE, {"target_replicas": 2}, once="k")
    wrong = await door.ask("POST", DEPLOY, {"model_name": "legal"}, once="k")
    assert (refused.status, wrong.status) == (404, 400)
    assert await remembered(life) == []

    assert (await door.ask("POST", DEPLOY, LEGAL, once="k")).status == 202
    assert len(await life.deployments()) == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "clé", "tab\there"])
async def test_a_key_that_is_no_key_is_refused_naming_the_header(life: Life, door: Door, key: str):
    told = await door.ask("POST", DEPLOY, LEGAL, once=key)

    assert told.status == 400
    [problem] = told.body["error"]["details"]["validation_errors"]
    assert problem["field"] == "Idempotency-Key"
    assert await life.deployments() == []


@pytest.mark.parametrize("key", ["k", "k" * 255, "with spaces, and: punctuation~"])
async def test_every_printable_key_up_to_255_characters_is_taken(door: Door, key: str):
    assert (await door.ask("POST", DEPLOY, LEGAL, once=key)).status == 202
    assert (await door.ask("POST", DEPLOY, LEGAL, once=key)).replayed


async def test_an_answer_is_given_again_for_a_day_and_not_longer(life: Life, door: Door):
    await door.ask("POST", DEPLOY, LEGAL)
    scale = {"target_replicas": 2}
    await door.ask("POST", SCALE, scale, once="k")

    async def age(tx: Any, seconds: float) -> None:
        await tx.execute_fetchall(
            "UPDATE remembered_answers SET created_at = created_at - ?", (seconds,)
        )

    async def prune(tx: Any) -> None:
        await idempotency.prune(tx, time.time() - KEPT_SECONDS)

    await life.database.write(lambda tx: age(tx, KEPT_SECONDS - 60))
    await life.database.write(prune)
    assert (await door.ask("POST", SCALE, scale, once="k")).replayed
    await life.database.write(lambda tx: age(tx, 61))
    await life.database.write(prune)
    assert not (await door.ask("POST", SCALE, {"target_replicas": 3}, once="k")).replayed
    assert (await life.deployments())[0].asked_replicas == 3
    assert len(await remembered(life)) == 1


async def test_of_twenty_at_once_one_deploys_and_all_are_told_the_same(life: Life, door: Door):
    asked = (door.ask("POST", DEPLOY, LEGAL, once="k") for _ in range(20))
    answers = await asyncio.gather(*asked)

    assert {answer.status for answer in answers} == {202}
    assert all(same(answers[0], answer) for answer in answers)
    assert sum(not answer.replayed for answer in answers) == 1
    [deployment] = await life.deployments()
    assert answers[0].body["deployment_id"] == deployment.id
    assert await life.audit() == [("models.deploy", "allowed")]
    assert await life.reasons(deployment.id) == ["Deployed"]


async def test_of_twenty_at_once_one_key_is_made_and_one_answer_has_its_text(
    life: Life, door: Door
):
    wish = {"name": "ci", "role": "viewer"}
    asked = (door.ask("POST", KEYS, wish, once="k") for _ in range(20))
    answers = await asyncio.gather(*asked)

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["key_id"] for answer in answers}) == 1
    assert sum("key" in answer.body for answer in answers) == 1
    assert (await door.ask("GET", KEYS)).body["total"] == 1


async def test_of_two_at_once_with_one_key_and_different_bodies_one_is_refused(
    life: Life, door: Door
):
    bodies = [{**LEGAL, "model_name": name} for name in ("one", "two")]
    answers = await asyncio.gather(*(door.ask("POST", DEPLOY, body, once="k") for body in bodies))

    assert sorted(answer.status for answer in answers) == [202, 409]
    assert len(await life.deployments()) == 1


async def _until_cut(world: World, folder: Path, point: int) -> tuple[Told | None, bool]:
    """Deploy until the power is cut; return what the client was told and whether it was cut."""
    fuse = Fuse(point)
    async with world.life(fuse) as life, served(life, folder) as door:
        asking = asyncio.ensure_future(door.ask("POST", DEPLOY, LEGAL, once="k"))
        cut = asyncio.ensure_future(fuse.blown.wait())
        await asyncio.wait([asking, cut], return_when=asyncio.FIRST_COMPLETED)
        told = asking.result() if asking.done() else None
        await finished(cut, asking)
    return told, fuse.blown.is_set()


async def test_after_a_crash_at_any_point_the_retry_is_told_what_was_done_and_does_it_once(
    tmp_path: Path,
):
    replays = []
    for point in itertools.count(1):
        world = World(tmp_path / str(point))
        await world.start()
        told, was_cut = await _until_cut(world, tmp_path, point)
        async with world.life() as life, served(life, tmp_path) as door:
            before = len(await life.deployments())
            again = await door.ask("POST", DEPLOY, LEGAL, once="k")
            assert again.status == 202
            assert again.replayed == (before == 1), "stored together or not at all"
            [deployment] = await life.deployments()
            assert again.body["deployment_id"] == deployment.id
            assert told is None or same(told, again)
        await world.server.close()
        replays.append((told is not None, again.replayed))
        if not was_cut:
            break
    assert replays == [(False, False), (False, True), (True, True)]


def test_every_operation_that_is_no_reading_and_no_inference_says_how_it_is_answered():
    silent = [
        f"{operation.method} {operation.path}"
        for operation in OPERATIONS
        if operation.answer is None
        and operation.method not in {"GET", "HEAD"}
        and operation.permission is not Permission.MODELS_INFER
    ]
    assert silent == []
    assert {"POST", "DELETE"} <= {operation.method for operation in CHANGES}


@pytest.mark.parametrize("operation", CHANGES, ids=lambda each: f"{each.method} {each.path}")
async def test_every_change_reads_the_key(door: Door, operation: Operation):
    path = operation.path.replace("{", "").replace("}", "")
    told = await door.ask(operation.method, path, once="")

    assert told.status == 400
    [problem] = told.body["error"]["details"]["validation_errors"]
    assert problem["field"] == "Idempotency-Key"


def _operation(handler: Any, method: str = "DELETE") -> Operation:
    return Operation(
        method=method,
        path="/v1/thing",
        handler=handler,
        summary="Change the thing",
        permission=Permission.NODE_MANAGE,
        answer=lambda _, done: Answer(body={"done": done}),
        uploads=True,
    )


async def _do(services: Any, _: web.Request, by: Caller) -> str:
    done = "as asked"
    await services.answers._database.write(lambda tx: by.remember(tx, done))
    return done


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["no key", "a key"])
async def test_a_change_that_forgets_to_remember_its_answer_fails_at_its_first_use(
    life: Life, headers: dict[str, str]
):
    async def forgetful(*_: Any) -> str:
        return "done, and remembered by nobody"

    async def answers_itself(*_: Any) -> web.Response:
        return web.Response(text="done, and remembered by nobody")

    for handler in (forgetful, answers_itself):
        request = make_mocked_request("DELETE", "/v1/thing", headers=headers)
        with pytest.raises(RuntimeError, match="DELETE /v1/thing did not remember"):
            await carry_out(_operation(handler), life.services, request, caller())


async def test_a_dry_run_has_no_use_for_a_key_used_or_not(life: Life):
    async def rehearse(*_: Any) -> web.Response:
        return web.Response(text="would be done")

    operation = dataclasses.replace(_operation(_do), rehearsal=rehearse)
    once = {"Idempotency-Key": "k"}
    dry = make_mocked_request("DELETE", "/v1/thing?dry_run=true", headers=once)
    assert (await carry_out(operation, life.services, dry, caller())).text == "would be done"
    assert await remembered(life) == []
    wet = make_mocked_request("DELETE", "/v1/thing?dry_run=false", headers=once)
    assert (await carry_out(operation, life.services, wet, caller())).status == 200
    assert len(await remembered(life)) == 1
    assert (await carry_out(operation, life.services, dry, caller())).text == "would be done"
    assert len(await remembered(life)) == 1


async def test_what_has_no_dry_run_is_not_carried_out_instead_of_one(life: Life):
    asked = []

    async def handler(_: Any, request: web.Request, __: Any) -> None:
        asked.append(request)
        refuse_unknown(request)

    dry = make_mocked_request("DELETE", "/v1/thing?dry_run=true")
    with pytest.raises(InvalidInputError, match="dry_run: is not a parameter here"):
        await carry_out(_operation(handler), life.services, dry, caller())
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("method", "length"), [("PUT", "10"), ("DELETE", "11")], ids=["method", "length of an upload"]
)
async def test_one_path_with_another_method_or_an_upload_of_another_length_is_another_request(
    life: Life, method: str, length: str
):
    async def ask(method: str, length: str) -> web.StreamResponse:
        headers = {"Idempotency-Key": "k", "Content-Length": length}
        request = make_mocked_request(method, "/v1/thing", headers=headers)
        return await carry_out(_operation(_do, method), life.services, request, caller())

    assert "Idempotent-Replayed" not in (await ask("DELETE", "10")).headers
    assert (await ask("DELETE", "10")).headers["Idempotent-Replayed"] == "true"
    with pytest.raises(ConflictError, match="another request"):
        await ask(method, length)


async def test_a_key_given_twice_is_refused(life: Life):
    twice = CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    request = make_mocked_request("DELETE", "/v1/thing", headers=twice)
    with pytest.raises(InvalidInputError, match="Idempotency-Key: must be given once"):
        await carry_out(_operation(_do), life.services, request, caller())
    assert await remembered(life) == []


def test_the_header_is_described_exactly_where_it_counts():
    paths = describe(OPERATIONS, ())["paths"]
    for operation in OPERATIONS:
        described = paths[operation.path][operation.method.lower()]["parameters"]
        headers = [each["name"] for each in described if each["in"] == "header"]
        assert ("Idempotency-Key" in headers) == (operation.answer is not None)


async def test_a_key_on_what_changes_nothing_is_ignored(life: Life, door: Door):
    assert (await door.ask("GET", KEYS, once="k")).status == 200
    assert (await door.ask("GET", "/v1/custom-models", once="k")).status == 200
    assert await remembered(life) == []
