"""What those see of a model who borrow it: how it does, and nothing of how it is made or runs."""

import asyncio
import collections
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from prsm_sdk import models as sdk
from prsmd.api.app import OPERATIONS
from prsmd.domain.access import PERMISSIONS
from prsmd.domain.events import Event
from tests.api.served import DEPLOY, LEGAL
from tests.api.test_organizations_close import until_broken_off
from tests.api.test_shares import INFER, MODEL, QUESTION, Site, life, site, world
from tests.engine.harness import IMAGE

__all__ = ["life", "site", "world"]

ONE = "/v1/custom-models/deployments/legal"
INSIDE = [f"{MODEL}/versions", f"{MODEL}/diff", f"{MODEL}/rollout"]
READS = [
    each for each in OPERATIONS
    if each.method == "GET" and each.path not in {"/openapi.json", "/v1/images"}
]  # fmt: skip


async def words_of(site: Site) -> list[str]:
    """What is the owner's alone: replicas, where they run, what they are made of."""
    found = [IMAGE]
    for replica in await site.life.replicas():
        found += [replica.id, str(replica.endpoint), *replica.placement.gpu_uuids]
        found += [replica.container_id] if replica.container_id else []
    return found


@contextlib.asynccontextmanager
async def lent(site: Site) -> AsyncIterator[list[str]]:
    """Lend for everything but the logs; give what a borrower must not be told."""
    await site.share(permissions=["read", "infer", "usage"])
    words = await words_of(site)
    assert len(words) >= 3, words
    yield words


@pytest.mark.parametrize("operation", READS, ids=lambda each: each.path)
async def test_nothing_that_a_borrower_reads_names_what_is_the_owners_alone(site: Site, operation):
    async with lent(site) as words:
        path = operation.path.format_map(collections.defaultdict(lambda: "legal"))
        headers = {"X-API-Key": site.partner}
        async with site.door.session.get(f"http://localhost{path}", headers=headers) as answer:
            text = await answer.text()
        assert [word for word in words if word in text] == []
        if operation.permission and (
            "deployment_id}" in operation.path or "model_id}" in operation.path
        ):
            given = operation.lent and PERMISSIONS[operation.permission].shareable
            logs = operation.path.endswith("/logs")
            assert answer.status == (200 if given and not logs else 403), text


async def test_an_image_that_is_there_for_everyone_does_not_tell_who_runs_it(site: Site):
    async with lent(site) as words:
        told = await site.door.ask("GET", "/v1/images", key=site.partner)
        [image] = told.body["images"]
        assert (image["in_use"], image["used_by"]) == (False, [])
        assert [word for word in words if word in json.dumps(told.body)] == [IMAGE]
        owners = await site.door.ask("GET", "/v1/images", key=site.owner)
        assert owners.body["images"][0]["in_use"]


async def test_the_owner_is_told_all_of_that(site: Site):
    async with lent(site) as words:
        told = await site.door.ask("GET", ONE, key=site.owner)
        assert IMAGE in json.dumps(told.body)
        assert any(word in json.dumps(told.body["replica_details"]) for word in words)


@pytest.mark.parametrize("path", INSIDE)
async def test_how_it_is_made_is_denied_to_who_borrows_and_hidden_from_others(
    site: Site, path: str
):
    await site.share()
    told = await site.door.ask("GET", path, key=site.partner)
    assert (told.status, told.body["error"]["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert (await site.door.ask("GET", path, key=site.stranger)).status == 404


async def test_a_borrower_is_told_how_it_does_and_what_is_left(site: Site):
    await site.share(usage_limits={"total_requests": 5})
    await site.infer(site.partner)
    one = (await site.door.ask("GET", f"{ONE}?wait=1", key=site.partner)).body
    listed = (await site.door.ask("GET", "/v1/custom-models/deployments", key=site.partner)).body

    assert listed["deployments"] == [one]
    assert (one["status"], one["health_status"]) == ("running", "healthy")
    assert one["replicas"] == {"desired": 1, "ready": 1, "available": 1}
    assert one["message"] == "1 of 1 replicas can serve"
    assert one["share"]["left"][0]["remaining"] == 4
    owners = (await site.door.ask("GET", ONE, key=site.owner)).body
    assert set(owners) - set(one) >= {"replica_details", "conditions", "container_image", "rollout"}
    assert set(one) - set(owners) == {"share"}


async def test_the_sdk_reads_what_a_borrower_is_told(site: Site):
    await site.share()
    told = await site.door.ask("GET", ONE, key=site.partner)
    status = sdk.DeploymentStatus.decode(told.body)
    assert (status.replicas.ready, status.replica_details, status.reason) == (1, (), "")
    answer = (await site.infer(site.partner)).body
    assert sdk.InferenceResult.decode(answer).metadata.model_version == "1.0.0"


async def test_a_borrower_hears_of_the_model_and_not_of_its_replicas(site: Site):
    await site.share()
    told = await site.door.ask("GET", f"{ONE}/events", key=site.partner)
    heard = [(one["reason"], one["message"], one["replica_id"]) for one in told.body["events"]]
    assert heard == [("Deployed", "the model was deployed", None)]
    owners = await site.door.ask("GET", f"{ONE}/events", key=site.owner)
    assert {"Scheduled", "Ready", "Shared"} <= {one["reason"] for one in owners.body["events"]}


async def test_a_borrower_that_follows_hears_the_same(site: Site):
    await site.share()
    headers = {"X-API-Key": site.partner, "Accept": "text/event-stream"}
    url = f"http://localhost{ONE}/events"
    async with site.door.session.get(url, headers=headers) as stream:
        asked = await site.door.ask("DELETE", MODEL, key=site.owner)
        assert asked.status == 202
        await site.life.settle()
        text = (await stream.read()).decode()
    told = [Event(**_event(line)) for line in text.splitlines() if line.startswith("data:")]
    assert [event.reason for event in told] == ["Deployed", "DeleteRequested"]
    assert {event.replica_id for event in told} == {None}


def _event(line: str) -> dict:
    body = json.loads(line.removeprefix("data:"))
    return {**body, "deployment_id": "", "organization": ""}


async def test_why_nothing_answers_is_told_to_the_owner_only(site: Site):
    await site.share()
    (pool,) = site.life.appliance.gateway._pools.values()
    pool.close("slot 0: GPU-0 is reserved whole by repl_1", 0.0)
    borrower = await site.door.ask("POST", INFER, QUESTION, key=site.partner)
    owner = await site.door.ask("POST", INFER, QUESTION, key=site.owner)

    assert borrower.status == owner.status == 503
    assert "GPU-0" in json.dumps(owner.body)
    assert "GPU-0" not in json.dumps(borrower.body)
    assert "retry_after_seconds" in borrower.body["error"]["details"]


@pytest.mark.parametrize("how", ["revoked", "expired", "less"])
@pytest.mark.parametrize("what", ["events", "logs?follow=true"])
async def test_what_a_borrower_follows_breaks_off_when_it_is_taken_back(
    site: Site, what: str, how: str
):
    share = await site.share(permissions=["read", "infer", "logs"])
    path = f"{MODEL}/shares/{share.body['share_id']}"
    headers = {"X-API-Key": site.partner, "Accept": "text/event-stream"}
    async with site.door.session.get(f"http://localhost{ONE}/{what}", headers=headers) as stream:
        assert stream.status == 200
        if how == "revoked":
            told = await site.door.ask("DELETE", path, key=site.owner)
        elif how == "less":
            told = await site.door.ask("PATCH", path, {"permissions": ["infer"]}, key=site.owner)
        else:
            soon = datetime.now(UTC) + timedelta(seconds=1)
            told = await site.door.ask(
                "PATCH", path, {"expires_at": soon.isoformat()}, key=site.owner
            )
        assert told.status == 200, told
        text = await until_broken_off(stream)
    assert b"event: error" in text
    assert b"DEPLOYMENT_NOT_FOUND" in text


async def test_what_the_owner_follows_goes_on_when_a_share_ends(site: Site):
    share = await site.share()
    headers = {"X-API-Key": site.owner, "Accept": "text/event-stream"}
    async with site.door.session.get(f"http://localhost{ONE}/events", headers=headers) as stream:
        path = f"{MODEL}/shares/{share.body['share_id']}"
        assert (await site.door.ask("DELETE", path, key=site.owner)).status == 200
        text = b""
        async with asyncio.timeout(30):
            while b"ShareRevoked" not in text:
                text += await stream.content.readany()


async def test_the_endpoint_of_what_is_lent_reaches_it_and_not_an_own_model_of_that_name(
    site: Site,
):
    await site.share(usage_limits={"total_requests": 9})
    told = await site.door.ask("POST", DEPLOY, LEGAL, key=site.partner)
    assert told.status == 202
    await site.life.settle()
    await site.life.tick()
    left = []
    for path, name in (
        ("/v1/custom-models", "custom_models"),
        ("/v1/custom-models/deployments", "deployments"),
        ("/v1/custom-models", "custom_models"),
    ):
        listed = (await site.door.ask("GET", path, key=site.partner)).body[name]
        [theirs] = [one for one in listed if one["organization"] == "default"]
        left.append(theirs["share"]["left"][0]["remaining"])
        url = theirs["endpoint_url"].removeprefix(site.life.services.public_url)
        assert (await site.door.ask("POST", url, QUESTION, key=site.partner)).status == 200
    assert left == [9, 8, 7]
