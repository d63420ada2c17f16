"""Sharing over the API: the document's example, who may what, limits, changes, revocation."""

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.domain.access import Permission
from prsmd.domain.errors import QuotaExceededError
from prsmd.domain.quota import UsageLimits
from prsmd.gateway.infer import Gateway
from prsmd.service.shares import ShareRequest
from prsmd.store import shares
from tests.api.served import LEGAL, Door, Told, served
from tests.engine.conftest import life, world
from tests.engine.harness import Life, World, caller
from tests.support.asking import asking

__all__ = ["life", "world"]

EXAMPLE = {  # the document's, verbatim
    "share_type": "organization",
    "permissions": ["read", "infer"],
    "allowed_organizations": ["partner-org-id"],
    "usage_limits": {"requests_per_day": 1000, "total_requests": 10000},
}
SHARE = "/v1/custom-models/legal/share"
SHARES = "/v1/custom-models/legal/shares"
MODEL = "/v1/custom-models/legal"
INFER = "/v1/models/legal/infer"
QUESTION = {"inputs": {"text": "hello"}}


@dataclasses.dataclass(frozen=True)
class Site:
    """A running model of `default`, and keys of its owner, a partner and a stranger."""

    door: Door
    life: Life
    owner: str
    partner: str
    stranger: str

    async def share(self, **given: Any) -> Told:
        body = {**EXAMPLE, "allowed_organizations": ["partner"], **given}
        told = await self.door.ask("POST", SHARE, body, key=self.owner)
        assert told.status == 201, told
        return told

    async def infer(self, key: str, model: str = "legal") -> Told:
        return await self.door.ask("POST", f"/v1/models/{model}/infer", QUESTION, key=key)

    async def key(self, role: str, organization: str) -> str:
        body = {"name": role, "role": role, "organization": organization}
        told = await self.door.ask("POST", "/v1/api-keys", body)
        assert told.status == 201, told
        return str(told.body["key"])


@pytest.fixture
async def site(life: Life, tmp_path: Path) -> AsyncIterator[Site]:
    async with served(life, tmp_path) as door:
        for name in ("partner", "stranger"):
            body = {"organization_id": name, "display_name": name}
            told = await door.ask("POST", "/v1/organizations", body)
            assert told.status == 201, told
        made = Site(door, life, "", "", "")
        keys = {
            "owner": await made.key("owner", "default"),
            "partner": await made.key("owner", "partner"),
            "stranger": await made.key("owner", "stranger"),
        }
        told = await door.ask("POST", "/v1/custom-models/deploy", LEGAL)
        assert told.status == 202, told
        await life.settle()
        await life.tick()
        yield Site(door, life, **keys)


async def test_the_documents_example_is_taken_verbatim(site: Site) -> None:
    told = await site.door.ask("POST", SHARE, EXAMPLE, key=site.owner)

    assert told.status == 201
    assert {name: told.body[name] for name in EXAMPLE if name != "usage_limits"} == {
        name: value for name, value in EXAMPLE.items() if name != "usage_limits"
    }
    assert told.body["usage_limits"] == {
        "requests_per_day": 1000,
        "total_requests": 10000,
        "requests_per_minute": None,
        "concurrent_requests": None,
    }
    assert told.body["status"] == "active"


async def test_a_borrower_infers_within_its_limits_and_is_told_what_is_left(site: Site) -> None:
    await site.share(usage_limits={"requests_per_day": 2})
    first, second, third = [await site.infer(site.partner) for _ in range(3)]

    assert (first.status, second.status, third.status) == (200, 200, 429)
    assert first.headers["X-RateLimit-Limit"] == "2"
    assert [told.headers["X-RateLimit-Remaining"] for told in (first, second)] == ["1", "0"]
    midnight = (int(site.life.world.now()) // 86400 + 1) * 86400
    assert int(first.headers["X-RateLimit-Reset"]) == midnight
    error = third.body["error"]
    assert error["code"] == "QUOTA_EXCEEDED"
    assert error["details"]["limit_type"] == "requests_per_day"
    assert error["details"]["limit"] == 2
    assert error["details"]["reset_time"] == midnight
    assert int(third.headers["Retry-After"]) == error["details"]["retry_after_seconds"]
    assert third.headers["X-RateLimit-Remaining"] == "0"


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("total_requests", "QUOTA_EXCEEDED"),
        ("requests_per_day", "QUOTA_EXCEEDED"),
        ("requests_per_minute", "RATE_LIMIT_EXCEEDED"),
    ],
)
async def test_each_limit_is_named_when_it_is_reached(site: Site, limit: str, code: str) -> None:
    await site.share(usage_limits={limit: 1})
    assert (await site.infer(site.partner)).status == 200
    told = await site.infer(site.partner)

    assert told.status == 429
    assert told.body["error"]["code"] == code
    assert told.body["error"]["details"]["limit_type"] == limit
    assert "Retry-After" in told.headers


async def test_owners_are_not_under_the_limits_of_their_shares(site: Site) -> None:
    await site.share(usage_limits={"total_requests": 1})
    assert [(await site.infer(site.owner)).status for _ in range(3)] == [200] * 3
    assert (await site.infer(site.partner)).status == 200


async def test_each_borrower_has_the_limits_by_itself(site: Site) -> None:
    await site.share(
        allowed_organizations=["partner", "stranger"], usage_limits={"total_requests": 1}
    )
    for key in (site.partner, site.stranger):
        assert [(await site.infer(key)).status for _ in range(2)] == [200, 429]


async def test_what_reached_no_container_is_not_counted(site: Site) -> None:
    await site.share(usage_limits={"total_requests": 1})
    await site.door.ask("POST", f"{MODEL}/scale", {"target_replicas": 1}, key=site.owner)
    table = site.life.appliance.gateway._pools
    (pool,) = table.values()
    pool.close("closed for a test", 0.0)
    assert (await site.infer(site.partner)).status == 503
    pool._closed = None
    assert [(await site.infer(site.partner)).status for _ in range(2)] == [200, 429]


MATRIX = [
    ("GET", MODEL, "read"),
    ("GET", "/v1/custom-models/deployments/legal", "read"),
    ("GET", "/v1/custom-models/deployments/legal/events", "read"),
    ("GET", "/v1/custom-models/deployments/legal/logs", "logs"),
    ("POST", INFER, "infer"),
    ("GET", f"{MODEL}/usage", "usage"),
    ("POST", f"{MODEL}/scale", None),
    ("PUT", MODEL, None),
    ("DELETE", MODEL, None),
    ("GET", SHARES, None),
    ("POST", SHARE, None),
    ("GET", f"{MODEL}/versions", None),
]
BODIES = {
    INFER: QUESTION,
    f"{MODEL}/scale": {"target_replicas": 1},
    MODEL: {"model_metadata": {"description": "x"}},
    SHARE: {**EXAMPLE, "allowed_organizations": ["other"]},
}


@pytest.mark.parametrize("given", ["read", "infer", "logs", "usage"])
async def test_a_share_gives_exactly_its_permissions_and_strangers_see_nothing(
    site: Site, given: str
) -> None:
    await site.share(permissions=[given])
    for method, path, needed in MATRIX:
        body = BODIES.get(path) if method in {"POST", "PUT"} else None
        lent = await site.door.ask(method, path, body, key=site.partner)
        foreign = await site.door.ask(method, path, body, key=site.stranger)
        never = path.replace("legal", "never")
        unknown = await site.door.ask(method, never, body, key=site.stranger)

        assert lent.status == (200 if needed == given else 403), (method, path, lent)
        assert foreign.status == unknown.status == 404, (method, path, foreign)
        same = str(foreign.body["message"]).replace("legal", "never")
        assert same == unknown.body["message"]


async def test_a_borrower_sees_the_model_its_limits_and_what_is_left(site: Site) -> None:
    share = await site.share(usage_limits={"requests_per_day": 10, "concurrent_requests": 3})
    await site.infer(site.partner)
    told = await site.door.ask("GET", MODEL, key=site.partner)
    models = await site.door.ask("GET", "/v1/models", key=site.partner)
    custom = await site.door.ask("GET", "/v1/custom-models", key=site.partner)

    shown = told.body["share"]
    assert shown["share_id"] == share.body["share_id"]
    assert shown["permissions"] == ["read", "infer"]
    left = {one["limit_type"]: one["remaining"] for one in shown["left"]}
    assert left == {"requests_per_day": 9, "concurrent_requests": 3}
    assert "deployment_config" not in told.body
    assert told.body["organization"] == "default"
    assert [one["share"] for one in models.body["models"]] == [shown]
    assert [one["share"] for one in custom.body["custom_models"]] == [shown]
    assert (await site.door.ask("GET", "/v1/models", key=site.stranger)).body["total"] == 0
    own = await site.door.ask("GET", MODEL, key=site.owner)
    assert "share" not in own.body
    assert "deployment_config" in own.body


async def test_lists_show_a_model_only_where_it_is_lent_for_that(site: Site) -> None:
    await site.share(permissions=["infer"])
    [model] = (await site.door.ask("GET", "/v1/models", key=site.partner)).body["models"]
    assert (await site.infer(site.partner, model["deployment_id"])).status == 200
    assert (await site.door.ask("GET", "/v1/custom-models", key=site.partner)).body["total"] == 0


async def test_a_share_of_a_key_reaches_that_key_and_no_other(site: Site) -> None:
    key_id = site.stranger.split("_")[1]
    await site.share(share_type="key", allowed_organizations=[], allowed_keys=[key_id])
    other = await site.key("owner", "stranger")

    assert (await site.infer(site.stranger)).status == 200
    assert (await site.infer(other)).status == 404
    assert (await site.infer(site.partner)).status == 404


async def test_an_own_role_still_holds_for_what_is_lent(site: Site) -> None:
    await site.share()
    viewer = await site.key("viewer", "partner")

    assert (await site.infer(viewer)).status == 403
    assert (await site.door.ask("GET", MODEL, key=viewer)).status == 200


async def test_a_revoked_share_reaches_nobody_from_the_next_request_on(site: Site) -> None:
    share = (await site.share()).body["share_id"]
    assert (await site.infer(site.partner)).status == 200
    told = await site.door.ask("DELETE", f"{SHARES}/{share}", key=site.owner)

    assert (told.status, told.body["status"]) == (200, "revoked")
    assert (await site.infer(site.partner)).status == 404
    assert (await site.door.ask("GET", MODEL, key=site.partner)).status == 404
    again = await site.door.ask("DELETE", f"{SHARES}/{share}", key=site.owner)
    assert again.status == 404


async def test_a_share_has_a_hundred_borrowers_at_most_and_one_that_has_more_keeps_them(
    site: Site,
) -> None:
    one = f"{SHARES}/{(await site.share()).body['share_id']}"
    many = [f"partner-{number}" for number in range(101)]
    body = {"allowed_organizations": many}
    assert (await site.door.ask("PATCH", one, body, key=site.owner)).status == 400
    async with site.life.database.read() as tx:
        [(share, model)] = await shares.list_all(tx)
    older = dataclasses.replace(share, organizations=frozenset({"partner", *many}))
    await site.life.database.write(lambda tx: shares.put(tx, older))

    async with site.life.database.read() as tx:
        assert await shares.list_all(tx) == [(older, model)]
    told = await site.door.ask("PATCH", one, {"permissions": ["infer"]}, key=site.owner)
    assert (told.status, len(told.body["allowed_organizations"])) == (200, 102)
    assert (await site.infer(site.partner)).status == 200


async def test_an_expired_share_reaches_nobody_and_is_listed_as_expired(site: Site) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    await site.share(expires_at=soon)
    assert (await site.infer(site.partner)).status == 200
    lendings = site.life.appliance.sharing.lendings
    async with site.life.database.read() as tx:
        [(share, model)] = await shares.list_all(tx)
    over = dataclasses.replace(share, expires_at=time.time() - 1)
    await site.life.database.write(
        lambda tx: shares.put(tx, over), lambda _: lendings.put(over, model)
    )

    assert (await site.infer(site.partner)).status == 404
    assert (await site.door.ask("GET", MODEL, key=site.partner)).status == 404
    assert (await site.door.ask("GET", "/v1/models", key=site.partner)).body["total"] == 0
    listed = await site.door.ask("GET", SHARES, key=site.owner)
    assert [one["status"] for one in listed.body["shares"]] == ["expired"]
    await site.share()
    assert (await site.infer(site.partner)).status == 200


async def test_changed_limits_count_from_the_next_request_on(site: Site) -> None:
    share = (await site.share(usage_limits={"total_requests": 1})).body["share_id"]
    assert [(await site.infer(site.partner)).status for _ in range(2)] == [200, 429]
    path = f"{SHARES}/{share}"
    changes = {"usage_limits": {"total_requests": 2, "requests_per_day": 50}}
    told = await site.door.ask("PATCH", path, changes, key=site.owner)

    assert told.status == 200
    assert told.body["usage_limits"]["total_requests"] == 2
    assert [(await site.infer(site.partner)).status for _ in range(2)] == [200, 429]
    lifted = {"usage_limits": {"total_requests": None}}
    told = await site.door.ask("PATCH", path, lifted, key=site.owner)
    assert told.body["usage_limits"]["requests_per_day"] == 50
    assert (await site.infer(site.partner)).status == 200


async def test_changed_permissions_and_borrowers_count_at_once(site: Site) -> None:
    share = (await site.share()).body["share_id"]
    path = f"{SHARES}/{share}"
    await site.door.ask("PATCH", path, {"permissions": ["read"]}, key=site.owner)
    assert (await site.infer(site.partner)).status == 403
    await site.door.ask("PATCH", path, {"allowed_organizations": ["stranger"]}, key=site.owner)
    assert (await site.door.ask("GET", MODEL, key=site.stranger)).status == 200
    assert (await site.door.ask("GET", MODEL, key=site.partner)).status == 404


async def test_shares_are_listed_with_what_is_left_to_each_borrower(site: Site) -> None:
    await site.share(
        allowed_organizations=["partner", "stranger"], usage_limits={"total_requests": 5}
    )
    await site.infer(site.partner)
    told = await site.door.ask("GET", SHARES, key=site.owner)

    (share,) = told.body["shares"]
    left = {one["borrower"]: one["left"][0]["remaining"] for one in share["borrowers"]}
    assert left == {"partner": 4, "stranger": 5}
    assert told.body["total"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"permissions": []}, "permissions"),
        ({"permissions": ["deploy"]}, "permissions"),
        ({"share_type": "world"}, "share_type"),
        ({"allowed_organizations": []}, "body"),
        ({"allowed_organizations": ["Not A Name"]}, "allowed_organizations"),
        ({"allowed_organizations": ["default"]}, "allowed_organizations"),
        ({"usage_limits": {"requests_per_day": 0}}, "usage_limits.requests_per_day"),
        ({"usage_limits": {"per_day": 1}}, "usage_limits.per_day"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"share_type": "key", "allowed_keys": ["x"], "allowed_organizations": []}, "allowed_keys"),
    ],
)
async def test_a_wrong_share_is_refused_naming_the_field(
    site: Site, body: dict[str, Any], field: str
) -> None:
    told = await site.door.ask("POST", SHARE, {**EXAMPLE, **body}, key=site.owner)

    assert told.status == 400, told
    problems = [one["field"] for one in told.body["error"]["details"]["validation_errors"]]
    assert any(problem.startswith(field) for problem in problems), problems


async def test_a_borrower_has_one_share_of_a_model(site: Site) -> None:
    first = await site.share()
    told = await site.door.ask(
        "POST", SHARE, {**EXAMPLE, "allowed_organizations": ["partner"]}, key=site.owner
    )

    assert told.status == 409
    assert told.body["error"]["details"]["share_id"] == first.body["share_id"]


async def test_changes_are_audited_and_events_name_no_borrower(site: Site) -> None:
    share = (await site.share()).body["share_id"]
    await site.door.ask("PATCH", f"{SHARES}/{share}", {"permissions": ["read"]}, key=site.owner)
    await site.door.ask("DELETE", f"{SHARES}/{share}", key=site.owner)
    await site.door.ask("POST", SHARE, EXAMPLE, key=site.stranger)
    (deployment,) = await site.life.deployments()
    happened = [e for e in await site.life.events(deployment.id) if "Share" in e.reason]

    assert [e.reason for e in happened] == ["Shared", "ShareChanged", "ShareRevoked"]
    assert not any("partner" in event.message for event in happened)
    audited = [one for one in await site.life.audit() if "share" in one[0]]
    assert audited == [
        ("models.share", "allowed"),
        ("models.share", "allowed"),
        ("models.unshare", "allowed"),
        ("models.share", "denied"),
    ]


async def test_a_share_outlives_the_daemon_with_what_was_used(world: World) -> None:
    partner = caller("invoker", "partner")
    question = asking(inputs="hello", request_id="q")
    wanted = ShareRequest(
        organizations=frozenset({"partner"}),
        permissions=frozenset({Permission.MODELS_INFER}),
        limits=UsageLimits(total_requests=3),
    )
    done = 0
    for number in range(4):
        async with world.life() as life:
            if number == 0:
                await life.deploy()
                await life.services.shares.create(caller(), "legal", wanted)
            gateway = life.appliance.gateway

            async def routed(gateway: Gateway = gateway) -> bool:
                route = gateway.find("default", "legal")
                return route is not None and bool(route.targets)

            await life.until(routed)
            with contextlib.suppress(QuotaExceededError):
                await life.services.inferences.infer(partner, "legal", question)
                done += 1
            await life.appliance.sharing.settle()
    assert done == 3


async def test_two_lenders_of_a_name_are_told_apart_by_deployment(site: Site) -> None:
    await site.share()
    told = await site.door.ask("POST", "/v1/custom-models/deploy", LEGAL, key=site.stranger)
    other = told.body["deployment_id"]
    body = {**EXAMPLE, "allowed_organizations": ["partner"]}
    assert (await site.door.ask("POST", SHARE, body, key=site.stranger)).status == 201
    await site.life.settle()
    await site.life.tick()

    both = await site.infer(site.partner)
    assert both.status == 409
    assert other in both.body["message"]
    assert (await site.infer(site.partner, other)).status == 200
