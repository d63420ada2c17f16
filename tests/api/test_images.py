"""Images and registry logins over the API: who may, what arrives, what stays behind."""

import asyncio
import contextlib
import dataclasses
import gzip
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.domain.image import Login
from prsmd.domain.quantity import GIB
from prsmd.store import revisions
from tests.api.served import DEPLOY, LEGAL, Door, Told, served
from tests.engine.conftest import life, world
from tests.engine.harness import IMAGE, Life, World
from tests.gateway.backends import until
from tests.support import archives

__all__ = ["life", "world"]
IMAGES, PRUNE, LOGINS = "/v1/images", "/v1/images/prune", "/v1/registries"
PASSWORD = "correct horse battery staple"
TAR = {"Content-Type": "application/x-tar"}


@pytest.fixture
async def door(life: Life, tmp_path: Path) -> AsyncIterator[Door]:
    life.world.engine.shelf.free_bytes = 100 * GIB
    async with served(life, tmp_path) as door:
        yield door


async def send(door: Door, content: Any, query: str = "", **headers: str) -> Told:
    url = f"http://localhost{IMAGES}{query}"
    async with door.session.post(url, data=content, headers={**TAR, **headers}) as answer:
        return Told(answer.status, dict(answer.headers), await answer.json())


async def key_of(door: Door, role: str, organization: str) -> str:
    made = await door.ask("POST", "/v1/organizations", {"organization_id": organization})
    assert made.status in {201, 409}, made
    body = {"name": role, "role": role, "organization": organization}
    return str((await door.ask("POST", "/v1/api-keys", body)).body["key"])


def left_behind(life: Life) -> list[str]:
    """What of uploads can be seen in the state folder, or is still open without a name."""
    folder = life.world.folder
    found = [path.name for path in folder.iterdir() if "upload" in path.name]
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith((f"{folder}/#", f"{folder}/upload")):
                found.append(target)
    return found


async def by_reference(door: Door, **more: Any) -> dict[str, dict[str, Any]]:
    listed = (await door.ask("GET", IMAGES, **more)).body["images"]
    return {reference: image for image in listed for reference in image["references"]}


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 700):
        yield content[start : start + 700]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("files", [archives.saved("a/b:1"), archives.laid_out("a/b:1")])
async def test_an_archive_is_loaded_and_listed(life: Life, door: Door, files, chunked: bool):
    content = archives.tar(files)
    told = await send(door, pieces(content) if chunked else content)

    assert told.status == 201
    assert told.body["archive_digest"] == f"sha256:{archives.digest(content)}"
    assert told.body["archive_bytes"] == len(content)
    [image] = told.body["images"]
    assert (image["reference"], image["digest"]) == ("a/b:1", archives.image_id(files))
    listed = (await by_reference(door))["a/b:1"]
    assert (listed["origin"], listed["in_use"], listed["would_be_pruned"]) == (
        "loaded",
        False,
        True,
    )
    assert listed["brought_by"]
    assert ("images.load", "allowed") in await life.audit()
    assert left_behind(life) == []


async def test_an_archive_may_be_larger_than_other_bodies(door: Door):
    content = archives.tar(archives.saved(layers=[archives.some_layer(17 << 20)]))
    assert (await send(door, io.BytesIO(content))).status == 201


async def test_what_prsmd_did_not_bring_is_listed_with_who_uses_it(life: Life, door: Door):
    await door.ask("POST", DEPLOY, LEGAL)
    listed = (await by_reference(door))[IMAGE]
    assert listed["origin"] is None
    assert listed["kept_for"] == "prsmd did not bring it"
    [use] = listed["used_by"]
    assert (use["model_id"], use["revision"]) == ("custom_legal", 1)


async def test_the_digest_of_an_archive_is_checked_before_anything_is_loaded(life, door: Door):
    content = archives.tar(archives.saved())
    right = f"sha256:{archives.digest(content)}"
    wrong = f"sha256:{'0' * 64}"

    told = await send(door, content, f"?digest={wrong}")

    assert told.status == 400
    assert right in told.body["message"]
    assert "load" not in life.world.engine.calls
    assert (await send(door, content, f"?digest={right}")).status == 201
    assert (await send(door, content, "?digest=md5:1")).status == 400


async def test_an_image_can_be_given_a_name(door: Door):
    told = await send(door, archives.tar(archives.laid_out(None)), "?name=company/legal:3")
    assert [image["reference"] for image in told.body["images"]] == ["company/legal:3"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a tar file"),
        (b"hello", "not a tar file"),
        (gzip.compress(archives.tar(archives.saved())), "gunzip it first"),
        (archives.tar({**archives.saved(), "../x": b""}), "lead out"),
        (archives.tar({"a": b""}), "holds no image"),
        (archives.tar(archives.saved())[:3000], "cut off"),
    ],
)
async def test_a_bad_archive_is_refused_with_what_is_wrong(life: Life, door: Door, content, words):
    told = await send(door, content)
    assert (told.status, told.body["error"]["code"]) == (400, "INVALID_INPUT")
    assert words in told.body["message"]
    assert "load" not in life.world.engine.calls
    assert left_behind(life) == []


async def test_a_name_that_moves_is_told_to_everyone_concerned(life: Life, door: Door):
    first = (await send(door, archives.tar(archives.saved("legal:9")))).body["images"][0]
    body = json.loads(json.dumps(LEGAL))
    body["deployment_config"]["container_image"] = "legal:9"
    deployment = (await door.ask("POST", DEPLOY, body)).body["deployment_id"]
    launcher = life.appliance.parts.launcher
    async with life.database.read() as tx:
        revision = await revisions.get(tx, deployment, 1)
    await launcher.prepare("default", revision)

    told = await send(door, archives.tar(archives.saved("legal:9")))

    [image] = told.body["images"]
    assert image["replaced_digest"] == first["digest"]
    assert [use["model_id"] for use in image["still_run_by"]] == ["custom_legal"]
    assert "ImageNameMoved" in await life.reasons(deployment)
    async with life.database.read() as tx:
        assert (await revisions.get(tx, deployment, 1)).image_digest == first["digest"]


async def test_an_upload_that_is_cut_leaves_nothing(life: Life, door: Door):
    reading = asyncio.Event()

    async def cut() -> AsyncIterator[bytes]:
        yield archives.tar(archives.saved())[:2048]
        reading.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(send(door, cut()))
    await reading.wait()
    await until(lambda: left_behind(life) != [])
    upload.cancel()
    await asyncio.wait([upload])
    await until(lambda: left_behind(life) == [])
    assert (await door.ask("GET", IMAGES)).status == 200


async def test_an_upload_that_comes_to_a_standstill_is_given_up(life: Life, door: Door):
    life.appliance.door.body_seconds = 0.05

    async def stall() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    told = await send(door, stall())
    assert told.status == 400
    assert "standstill" in told.body["message"]
    assert left_behind(life) == []


async def test_an_archive_that_is_too_large_is_refused_unread_or_as_it_comes(life, door: Door):
    stock = life.appliance.parts.launcher.stock
    stock._settings = dataclasses.replace(stock.settings, max_archive_bytes=4096)
    content = archives.tar(archives.saved())
    for body in (content, pieces(content)):
        told = await send(door, body)
        assert (told.status, told.body["error"]["code"]) == (413, "REQUEST_TOO_LARGE")
    assert left_behind(life) == []


async def test_a_full_disk_is_told_with_what_is_free_and_needed(life: Life, door: Door):
    life.world.engine.shelf.free_bytes = GIB
    told = await send(door, archives.tar(archives.saved()))
    assert (told.status, told.body["error"]["code"]) == (507, "STORAGE_FULL")
    details = told.body["error"]["details"]
    assert details["free_bytes"] == GIB < details["needed_bytes"]


@pytest.mark.parametrize("role", ["owner", "deployer", "operator", "viewer"])
async def test_only_administrators_load_and_prune(life: Life, door: Door, role: str):
    key = await door.api_key(role)
    told = await send(door, archives.tar(archives.saved()), **{"X-API-Key": key})
    assert told.status == 403
    assert (await door.ask("POST", PRUNE, {}, key=key)).status == 403
    assert "load" not in life.world.engine.calls
    assert (await life.audit()).count(("node.manage", "denied")) == 2


async def test_a_repeated_load_gets_the_first_answer(life: Life, door: Door):
    content = archives.tar(archives.saved())
    first = await send(door, content, **{"Idempotency-Key": "k"})
    again = await send(door, content, **{"Idempotency-Key": "k"})
    assert (first.status, first.body) == (again.status, again.body)
    assert again.replayed
    assert life.world.engine.calls.count("load") == 1


async def test_a_prune_tells_and_then_removes_what_nobody_needs(life: Life, door: Door):
    await send(door, archives.tar(archives.saved("old:1")))
    rehearsal = await door.ask("POST", PRUNE, {"dry_run": True})
    assert [image["names"] for image in rehearsal.body["removed"]] == [["old:1"]]
    assert "old:1" in await by_reference(door)

    done = await door.ask("POST", PRUNE, {"keep_revisions": 1})

    assert done.body["removed"] == rehearsal.body["removed"]
    assert done.body["freed_bytes"] > 0
    assert [image["reason"] for image in done.body["kept"]] == ["prsmd did not bring it"]
    assert set(await by_reference(door)) == {IMAGE}
    assert (await life.audit()).count(("images.prune", "allowed")) == 1


@pytest.mark.parametrize("body", [{"keep_revisions": 0}, {"keep": 1}, {"dry_run": "yes"}])
async def test_a_wrong_prune_is_refused(door: Door, body):
    assert (await door.ask("POST", PRUNE, body)).status == 400


async def test_one_organizations_private_images_and_models_are_not_listed_for_another(
    life: Life, world: World, door: Door
):
    login = Login(server="registry.acme.example", username="acme", password=PASSWORD)
    world.engine.make_pullable("registry.acme.example/legal:1", login=login)
    acme, rival = [await key_of(door, "owner", name) for name in ("acme", "rival")]
    body = {"server": login.server, "username": login.username, "password": PASSWORD}
    assert (await door.ask("POST", LOGINS, body, key=acme)).status == 201
    config = {**LEGAL["deployment_config"], "container_image": "registry.acme.example/legal:1"}
    told = await door.ask("POST", DEPLOY, {**LEGAL, "deployment_config": config}, key=acme)
    async with life.database.read() as tx:
        revision = await revisions.get(tx, told.body["deployment_id"], 1)
    await life.appliance.parts.launcher.prepare("acme", revision)

    hers = await by_reference(door, key=acme)
    assert hers["registry.acme.example/legal:1"]["private"]
    assert "registry.acme.example/legal:1" not in await by_reference(door, key=rival)
    assert "registry.acme.example/legal:1" in await by_reference(door)


async def test_what_another_organization_pulled_is_not_listed_and_what_was_loaded_is(
    life: Life, world: World, door: Door
):
    """Not even where anyone may pull it: that it is here tells what they run."""
    name = "public.example.com/secret-plan:1"
    world.engine.make_pullable(name)
    acme, rival = [await key_of(door, "owner", each) for each in ("acme", "rival")]
    config = {**LEGAL["deployment_config"], "container_image": name}
    told = await door.ask("POST", DEPLOY, {**LEGAL, "deployment_config": config}, key=acme)
    async with life.database.read() as tx:
        revision = await revisions.get(tx, told.body["deployment_id"], 1)
    await life.appliance.parts.launcher.prepare("acme", revision)
    assert (await send(door, archives.tar(archives.saved("a/b:1")))).status == 201

    assert name in await by_reference(door, key=acme)
    theirs = await by_reference(door, key=rival)
    assert name not in theirs
    assert theirs["a/b:1"]["kept_for"] == "whether others need it, administrators see"


# Logins


async def test_a_login_is_kept_replaced_listed_and_forgotten_without_its_password(
    life: Life, door: Door
):
    key = await key_of(door, "owner", "acme")
    body = {"server": "https://Registry.Example:5000/", "username": "robot", "password": PASSWORD}
    added = await door.ask("POST", LOGINS, body, key=key)
    path = f"{LOGINS}/registry.example:5000"
    again = await door.ask("PUT", path, {"username": "other", "password": PASSWORD}, key=key)
    listed = await door.ask("GET", LOGINS, key=key)
    removed = await door.ask("DELETE", path, key=key)
    gone = await door.ask("DELETE", path, key=key)

    assert [told.status for told in (added, again, listed, removed, gone)] == [
        201,
        200,
        200,
        200,
        404,
    ]
    assert added.body["server"] == "registry.example:5000"
    assert [login["username"] for login in listed.body["registries"]] == ["other"]
    for told in (added, again, listed, removed):
        assert "password" not in json.dumps(told.body)
    audit = await life.audit()
    assert audit.count(("registries.save", "allowed")) == 2
    assert audit.count(("registries.remove", "allowed")) == 1


async def test_the_password_is_in_no_file_of_the_state(life: Life, door: Door):
    body = {"server": "r.example", "username": "robot", "password": PASSWORD}
    await door.ask("POST", LOGINS, body, once="k")
    await door.ask("POST", LOGINS, {**body, "username": "bad:name"})
    assert all(
        PASSWORD.encode() not in path.read_bytes()
        for path in life.world.folder.rglob("*")
        if path.is_file()
    )


@pytest.mark.parametrize(
    "change",
    [
        {"server": "not a server"},
        {"server": ""},
        {"username": "a:b"},
        {"password": ""},
        {"password": "a\0b" + PASSWORD},
        {"password": 5},
        {"extra": 1},
    ],
)
async def test_a_wrong_login_is_refused_without_quoting_the_password(door: Door, change):
    body = {"server": "r.example", "username": "robot", "password": PASSWORD} | change
    told = await door.ask("POST", LOGINS, body)
    assert told.status == 400
    assert PASSWORD not in json.dumps(told.body)


async def test_logins_are_each_organizations_own(door: Door):
    acme, rival = [await key_of(door, "owner", name) for name in ("acme", "rival")]
    body = {"server": "r.example", "username": "robot", "password": PASSWORD}
    await door.ask("POST", LOGINS, body, key=acme)

    assert (await door.ask("GET", LOGINS, key=rival)).body["total"] == 0
    assert (await door.ask("DELETE", f"{LOGINS}/r.example", key=rival)).status == 404
    theirs = {**body, "organization": "acme"}
    assert (await door.ask("POST", LOGINS, theirs, key=rival)).status == 404
    assert (await door.ask("GET", LOGINS, key=acme)).body["total"] == 1
    assert (await door.ask("POST", LOGINS, theirs)).status == 200  # the administrator may
    removed = await door.ask("DELETE", f"{LOGINS}/r.example?organization=acme")
    assert (removed.status, removed.body["organization"]) == (200, "acme")


@pytest.mark.parametrize("role", ["deployer", "operator", "viewer", "auditor"])
async def test_logins_need_their_permission(life: Life, door: Door, role: str):
    key = await door.api_key(role)
    body = {"server": "r.example", "username": "robot", "password": PASSWORD}
    asked = [("GET", LOGINS, None), ("POST", LOGINS, body), ("DELETE", f"{LOGINS}/r.example", None)]
    for method, path, sent in asked:
        told = await door.ask(method, path, sent, key=key)
        assert told.body["error"]["details"]["required_permissions"] == ["secrets.manage"]
    assert (await life.audit()).count(("secrets.manage", "denied")) == 3
