"""What becomes of what an organization has, lends and borrows: when it is disabled, and removed."""

import asyncio
from typing import Any

import aiohttp
import pytest

from prsmd.domain.errors import PermissionDeniedError
from prsmd.service.directory import Directory
from prsmd.store import secrets, shares
from tests.api.served import LEGAL, Told
from tests.api.test_shares import MODEL, SHARES, Site, life, site, world
from tests.engine.harness import caller, spec

__all__ = ["life", "site", "world"]

PARTNER = "/v1/organizations/partner"
ONE = "/v1/custom-models/deployments/legal"


async def disable(site: Site, *, disabled: bool = True, what: str = PARTNER) -> Told:
    told = await site.door.ask("PATCH", what, {"disabled": disabled})
    assert told.status == 200, told
    return told


async def until_broken_off(stream: aiohttp.ClientResponse) -> bytes:
    text = b""
    try:
        async with asyncio.timeout(30):
            async for chunk in stream.content.iter_any():
                text += chunk
    except aiohttp.ClientPayloadError:
        return text
    raise AssertionError("it was ended, not broken off")


async def borrowers(site: Site) -> list[Any]:
    told = await site.door.ask("GET", SHARES, key=site.owner)
    return [sorted(one["allowed_organizations"]) for one in told.body["shares"]]


async def test_an_organization_with_models_is_disabled_at_once_and_enabled_again(
    site: Site,
) -> None:
    deployed = {**LEGAL, "model_name": "own"}
    told = await site.door.ask("POST", "/v1/custom-models/deploy", deployed, key=site.partner)
    assert told.status == 202
    await site.life.settle()
    before = await site.life.active()

    assert "run on" in (await disable(site)).body["message"]
    refused = await site.door.ask("GET", "/v1/models", key=site.partner)
    assert (refused.status, refused.body["error"]["code"]) == (401, "INVALID_API_KEY")
    await site.life.settle()
    assert await site.life.active() == before, "nothing is stopped"

    assert "message" not in (await disable(site, disabled=False)).body
    assert (await site.infer(site.partner, "own")).status == 200


async def test_what_a_disabled_organizations_callers_follow_ends(site: Site) -> None:
    await site.share()
    headers = {"X-API-Key": site.partner, "Accept": "text/event-stream"}
    url = f"http://localhost{ONE}/events"
    async with site.door.session.get(url, headers=headers) as stream:
        assert stream.status == 200
        await disable(site)
        text = await until_broken_off(stream)
    assert b"event: error" in text
    assert b"disabled" in text


async def test_those_who_borrow_of_a_disabled_organization_go_on(site: Site) -> None:
    told = await site.door.ask("POST", "/v1/custom-models/deploy", LEGAL, key=site.stranger)
    assert told.status == 202
    body = {"allowed_organizations": ["partner"], "permissions": ["infer"]}
    lent = await site.door.ask("POST", f"{MODEL}/share", body, key=site.stranger)
    assert lent.status == 201, lent
    await site.life.settle()
    await site.life.tick()
    await disable(site, what="/v1/organizations/stranger")

    assert (await site.infer(site.stranger)).status == 401
    assert (await site.infer(site.partner)).status == 200


async def test_an_organization_that_is_removed_takes_nothing_with_it_and_leaves_nothing(
    site: Site,
) -> None:
    only = await site.share(allowed_organizations=["partner"], usage_limits={"total_requests": 9})
    key_id = (await site.key("viewer", "partner")).split("_")[1]
    by_key = await site.share(share_type="key", allowed_organizations=[], allowed_keys=[key_id])
    await site.infer(site.partner)
    secret = {"name": "token", "value": "hush"}
    assert (await site.door.ask("POST", "/v1/secrets", secret, key=site.partner)).status == 201

    assert (await site.door.ask("DELETE", PARTNER)).status == 200

    assert await borrowers(site) == []
    async with site.life.database.read() as tx:
        assert await secrets.list_for(tx, "partner") == []
        assert await shares.list_all(tx) == []
    lendings = site.life.appliance.sharing.lendings
    assert len(lendings) == 0
    assert not lendings.named(caller("viewer", "partner").principal, "legal")
    record = await last_record(site, "organizations.remove", "organization:partner")
    assert record["details"]["secrets"] == ["token"]
    assert key_id in record["details"]["api_keys"]
    assert sorted(record["details"]["shares"]) == sorted(
        told.body["share_id"] for told in (only, by_key)
    )
    taken_back = await records(site, "models.unshare")
    assert {one["organization"] for one in taken_back} == {"default"}
    assert len(taken_back) == 2
    assert (await site.life.reasons(only.body["deployment_id"])).count("ShareRevoked") == 2


async def test_what_others_borrow_too_goes_on_without_the_one_that_is_removed(site: Site) -> None:
    share = await site.share(allowed_organizations=["partner", "stranger"])
    assert (await site.door.ask("DELETE", PARTNER)).status == 200

    assert await borrowers(site) == [["stranger"]]
    assert (await site.infer(site.stranger)).status == 200
    lendings, borrower = site.life.appliance.sharing.lendings, caller("viewer", "stranger")
    [held] = lendings.of(borrower.principal, share.body["deployment_id"])
    assert held.organizations == {"stranger"}
    [_, changed] = await records(site, "models.share")
    assert changed["details"]["share"] == share.body["share_id"]


async def test_a_removal_that_fails_changes_nothing_in_store_or_memory(site: Site) -> None:
    await site.share()
    told = await site.door.ask("POST", "/v1/custom-models/deploy", LEGAL, key=site.partner)
    assert told.status == 202

    assert (await site.door.ask("DELETE", PARTNER)).status == 409
    assert await borrowers(site) == [["partner"]]
    async with site.life.database.read() as tx:
        directory = await Directory.load(tx)
    assert directory.organization("partner") is not None


async def test_a_deploy_that_was_under_way_leaves_no_model_in_a_removed_organization(
    site: Site,
) -> None:
    late = caller("owner", "partner")  # it was let in before
    assert (await site.door.ask("DELETE", PARTNER)).status == 200
    with pytest.raises(PermissionDeniedError, match="was removed"):
        await site.life.services.deployments.deploy(late, "late", spec())
    assert [one.organization for one in await site.life.deployments()] == ["default"]


async def records(site: Site, action: str) -> list[Any]:
    told = await site.door.ask("GET", f"/v1/audit?action={action}&limit=100")
    return list(reversed(told.body["records"]))


async def last_record(site: Site, action: str, subject: str) -> Any:
    return [one for one in await records(site, action) if one["subject"] == subject][-1]
