"""Invariant 7: whatever changes something, allowed or denied, leaves exactly one audit record."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.api.app import OPERATIONS
from prsmd.domain.quantity import GIB
from prsmd.service.belonging import Needs
from prsmd.store import attestations, audit
from tests.api.audited import KEYS, ORGANIZATIONS, SAMPLES, do, send
from tests.api.served import Door, served
from tests.engine.conftest import life, world
from tests.engine.harness import Life

__all__ = ["life", "world"]

INFER = "POST /v1/models/{model_id}/infer"  # changes nothing; it has a log of its own
# What is one's own only its owner can do: tests/service/test_invitations.py looks at the records.
OWN = {f"{each.method} {each.path}" for each in OPERATIONS if each.needs is Needs.IDENTITY}
CHANGES = sorted(
    {f"{each.method} {each.path}" for each in OPERATIONS if each.method != "GET"} - {INFER} - OWN
)
_SECRETS = ("correct horse battery staple", "hush", "prsm_")


@pytest.fixture
async def door(life: Life, tmp_path: Path) -> AsyncIterator[Door]:
    life.world.engine.shelf.free_bytes = 100 * GIB
    async with served(life, tmp_path) as door:
        yield door


async def since(life: Life, heads: tuple[int, int]) -> list[Any]:
    async with life.database.read() as tx:
        changes = await audit.after(tx, heads[0], 100)
        return [*changes, *await audit.after(tx, heads[1], 100, table="denials")]


async def last(life: Life) -> tuple[int, int]:
    """The last record of each of the two logs."""
    async with life.database.read() as tx:
        changes = (await attestations.chain(tx)).head.sequence
        return changes, (await attestations.chain(tx, "denials")).head.sequence


def test_every_operation_that_changes_something_has_a_sample() -> None:
    assert sorted(SAMPLES) == CHANGES
    assert {f"POST /v1/members/{{member_id}}/{verb}" for verb in ("accept", "leave")} == OWN


@pytest.mark.parametrize("operation", sorted(SAMPLES))
async def test_every_change_is_audited_once_when_it_is_allowed(
    life: Life, door: Door, operation: str
) -> None:
    asked = await SAMPLES[operation](life, door)
    before = await last(life)
    status, body = await send(door, operation.split(maxsplit=1)[0], asked)
    found = await since(life, before)
    assert status < 300, body
    assert [each.outcome for each in found] == ["allowed"], found
    assert found[0].principal.startswith("uid:")
    assert found[0].request_id
    assert not [secret for secret in _SECRETS if secret in repr(found)]


@pytest.mark.parametrize("operation", sorted(SAMPLES))
async def test_every_change_is_audited_once_when_it_is_denied(
    life: Life, door: Door, operation: str
) -> None:
    asked = await SAMPLES[operation](life, door)
    viewer = await door.api_key("viewer")
    before = await last(life)
    status, body = await send(door, operation.split(maxsplit=1)[0], asked, viewer)
    found = await since(life, before)
    assert status == 403, body
    assert [each.outcome for each in found] == ["denied"], found
    assert found[0].principal.startswith("key:")
    assert not [secret for secret in _SECRETS if secret in repr(found)]


async def test_a_change_that_is_wrong_leaves_none(life: Life, door: Door) -> None:
    before = await last(life)
    told = await door.ask("POST", "/v1/custom-models/deploy", {"model_name": "x"})
    assert told.status == 400
    assert await since(life, before) == []


@pytest.mark.parametrize("operation", [each for each in sorted(SAMPLES) if "{model_id}" in each])
async def test_a_try_on_another_organizations_model_is_in_the_log_of_who_tried(
    life: Life, door: Door, operation: str
) -> None:
    asked = await SAMPLES[operation](life, door)
    await do(door, "POST", ORGANIZATIONS, {"organization_id": "stranger"})
    made = {"name": "k", "role": "owner", "organization": "stranger"}
    stranger = (await do(door, "POST", KEYS, made))["key"]
    before = await last(life)
    status, body = await send(door, operation.split(maxsplit=1)[0], asked, stranger)
    found = await since(life, before)
    assert status == 404, body
    assert [(each.outcome, each.organization) for each in found] == [("denied", "stranger")]


@pytest.mark.parametrize("operation", sorted(SAMPLES))
async def test_what_cannot_be_recorded_is_refused_and_not_done(
    life: Life, door: Door, operation: str
) -> None:
    asked = await SAMPLES[operation](life, door)
    before, path = await last(life), life.database.path
    path.rename(path.with_name("aside"))
    status, body = await send(door, operation.split(maxsplit=1)[0], asked)
    path.with_name("aside").rename(path)
    assert status == 507, body
    assert body["error"]["message"]
    assert await since(life, before) == []
    status, body = await send(door, operation.split(maxsplit=1)[0], asked)
    assert status < 300, body
    assert [each.outcome for each in await since(life, before)] == ["allowed"]
