"""Limits over the API as shares and keys come, change and go."""

import asyncio

from tests.api.served import LEGAL
from tests.api.test_shares import MODEL, SHARES, Site, life, site, world

__all__ = ["life", "site", "world"]


async def test_a_share_that_is_revoked_while_a_request_waits_for_a_block_lets_nothing_through(
    site: Site,
) -> None:
    share = (await site.share(usage_limits={"total_requests": 5})).body["share_id"]
    lessor = site.life.appliance.sharing.lessor
    wanted, lessor.meters.wanted = lessor.meters.wanted, asyncio.Event()
    asked = asyncio.create_task(site.infer(site.partner), name="asked")
    await lessor.meters.wanted.wait()
    told = await site.door.ask("DELETE", f"{SHARES}/{share}", key=site.owner)
    assert told.status == 200, told
    lessor.meters.wanted = wanted
    wanted.set()

    assert (await asked).status == 404
    assert sum(site.life.appliance.gateway.in_flight().values()) == 0


async def test_the_shares_of_a_model_that_was_deleted_are_nowhere_any_more(site: Site) -> None:
    await site.share(usage_limits={"total_requests": 5})
    assert (await site.infer(site.partner)).status == 200
    sharing = site.life.appliance.sharing
    assert len(sharing.lendings) == 1
    told = await site.door.ask("DELETE", MODEL, key=site.owner)
    assert told.status == 202, told

    async def gone() -> bool:
        return len(sharing.lendings) == 0

    await site.life.until(gone)
    await sharing.lessor.tidy()
    await sharing.lessor.tidy()
    assert len(sharing.lessor.meters) == 0
    told = await site.door.ask("POST", "/v1/custom-models/deploy", LEGAL)
    assert (await site.infer(site.partner)).status == 404


async def test_a_share_that_is_made_again_is_another_one_and_counts_anew(site: Site) -> None:
    share = (await site.share(usage_limits={"total_requests": 1})).body["share_id"]
    assert [(await site.infer(site.partner)).status for _ in range(2)] == [200, 429]
    await site.door.ask("DELETE", f"{SHARES}/{share}", key=site.owner)
    await site.share(usage_limits={"total_requests": 1})
    assert [(await site.infer(site.partner)).status for _ in range(2)] == [200, 429]


async def test_the_limits_of_a_key_and_of_a_share_count_in_both_or_in_none(site: Site) -> None:
    await site.share(usage_limits={"total_requests": 2})
    body = {"name": "k", "role": "invoker", "organization": "partner", "requests_per_day": 3}
    key = (await site.door.ask("POST", "/v1/api-keys", body)).body["key"]
    first, second, third, fourth = [await site.infer(key) for _ in range(4)]

    assert [one.status for one in (first, second, third, fourth)] == [200, 200, 429, 429]
    assert third.body["error"]["code"] == fourth.body["error"]["code"] == "QUOTA_EXCEEDED"
    told = await site.door.ask("GET", "/v1/models", key=key)
    assert (told.status, told.headers["X-RateLimit-Remaining"]) == (200, "0")
    told = await site.infer(key)
    assert told.body["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert told.body["error"]["details"]["limit_type"] == "requests_per_day"


async def test_what_is_left_is_told_of_the_limits_as_they_are_now(site: Site) -> None:
    share = (await site.share(usage_limits={"total_requests": 100})).body["share_id"]
    for _ in range(4):
        assert (await site.infer(site.partner)).status == 200
    limits = {"total_requests": 10, "requests_per_minute": 7, "concurrent_requests": 3}
    told = await site.door.ask(
        "PATCH", f"{SHARES}/{share}", {"usage_limits": limits}, key=site.owner
    )
    seen = await site.door.ask("GET", MODEL, key=site.partner)
    listed = await site.door.ask("GET", SHARES, key=site.owner)

    left = {"total_requests": 6, "requests_per_minute": 7, "concurrent_requests": 3}
    for found in (
        told.body["borrowers"][0]["left"],
        seen.body["share"]["left"],
        listed.body["shares"][0]["borrowers"][0]["left"],
    ):
        assert {one["limit_type"]: one["remaining"] for one in found} == left
    lifted = {"usage_limits": {"total_requests": None, "requests_per_minute": None}}
    told = await site.door.ask("PATCH", f"{SHARES}/{share}", lifted, key=site.owner)
    assert [one["limit_type"] for one in told.body["borrowers"][0]["left"]] == [
        "concurrent_requests"
    ]


async def test_two_who_change_a_share_at_once_both_have_their_way(site: Site) -> None:
    share = f"{SHARES}/{(await site.share()).body['share_id']}"
    days = [{"usage_limits": {"requests_per_day": 500 + n}} for n in range(5)]
    totals = [{"usage_limits": {"total_requests": 5000 + n}} for n in range(5)]
    wanted = [*days, {"permissions": ["infer"]}, *totals]
    told = await asyncio.gather(
        *(site.door.ask("PATCH", share, body, key=site.owner) for body in wanted)
    )

    assert {each.status for each in told} == {200}
    [found] = (await site.door.ask("GET", SHARES, key=site.owner)).body["shares"]
    assert found["permissions"] == ["infer"]
    assert found["usage_limits"]["requests_per_day"] in range(500, 505)
    assert found["usage_limits"]["total_requests"] in range(5000, 5005)
