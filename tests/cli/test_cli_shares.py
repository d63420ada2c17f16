"""`prsmctl share` and `prsmctl usage`, and the SDK's noun: what is sent, what is shown."""

import json
from datetime import UTC, datetime

import pytest

from prsm_sdk import PRSMClient
from tests.sdk.wire_server import answers, refuses

MODEL = "/v1/custom-models/legal"
LEFT = {"limit_type": "requests_per_day", "limit": 1000, "remaining": 990, "reset_time": 1}
SHARE = {
    "share_id": "share_1",
    "model_id": "custom_legal",
    "share_type": "organization",
    "status": "active",
    "permissions": ["read", "infer"],
    "allowed_organizations": ["partner"],
    "allowed_keys": [],
    "usage_limits": {"requests_per_day": 1000, "total_requests": None},
    "borrowers": [{"borrower": "partner", "left": [LEFT]}],
}
DAY = {
    "day": "2026-01-02",
    "organization": "partner",
    "principal": "key:k1",
    "key_id": "k1",
    "model_id": "custom_legal",
    "requests": 3,
    "errors": 1,
    "refused": 2,
    "duration_seconds": 0.5,
    "request_bytes": 10,
    "answer_bytes": 20,
}


def part(name: str, item: object, total: int, offset: int) -> dict[str, object]:
    more = offset + 1 < total
    return {name: [item], "total": total, "limit": 1, "offset": offset, "has_more": more}


def test_create_sends_the_documents_body(ctl, server):
    server.on("POST", f"{MODEL}/share", answers(SHARE, 201))
    limits = ("--requests-per-day", "1000", "--total-requests", "10000")
    code, out, _ = ctl("share", "create", "legal", "--with", "partner", *limits)

    assert code == 0
    assert server.seen[0].body == {
        "share_type": "organization",
        "permissions": ["read", "infer"],
        "allowed_organizations": ["partner"],
        "usage_limits": {"requests_per_day": 1000, "total_requests": 10000},
    }
    assert "Idempotency-Key" in server.seen[0].headers
    assert "share_1" in out
    assert "1000 requests_per_day" in out


def test_create_lends_to_keys_until_a_moment(ctl, server):
    server.on("POST", f"{MODEL}/share", answers(SHARE, 201))
    given = ("--with-key", "k1", "--permission", "logs", "--expires-in", "1h")
    assert ctl("share", "create", "legal", *given)[0] == 0

    body = server.seen[0].body
    assert (body["share_type"], body["allowed_keys"]) == ("key", ["k1"])
    assert body["permissions"] == ["logs"]
    left = datetime.fromisoformat(body["expires_at"]) - datetime.now(UTC)
    assert 3500 < left.total_seconds() <= 3600


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("--with", "a", "--with-key", "k"),
        ("--with", "a", "--requests-per-day", "0"),
        ("--with", "a", "--permission", "deploy"),
    ],
)
def test_create_refuses_what_cannot_be_meant(ctl, server, given):
    assert ctl("share", "create", "legal", *given)[0] in {2, 78}
    assert server.seen == []


def test_change_sends_only_what_changes_and_none_lifts_a_limit(ctl, server):
    server.on("PATCH", f"{MODEL}/shares/share_1", answers(SHARE))
    given = ("--requests-per-day", "5", "--total-requests", "none")
    assert ctl("share", "change", "legal", "share_1", *given)[0] == 0
    assert server.seen[0].body == {
        "usage_limits": {"requests_per_day": 5, "total_requests": None},
    }
    assert ctl("share", "change", "legal", "share_1")[0] in {2, 78}
    assert len(server.seen) == 1


def test_list_shows_what_is_left_to_each(ctl, server):
    server.on("GET", f"{MODEL}/shares", answers(part("shares", SHARE, 1, 0)))
    code, out, _ = ctl("share", "list", "legal")
    assert code == 0
    assert "partner" in out
    assert "990 of 1000 requests_per_day" in out


def test_revoke_says_what_is_over(ctl, server):
    server.on("DELETE", f"{MODEL}/shares/share_1", answers({**SHARE, "status": "revoked"}))
    code, out, _ = ctl("share", "revoke", "legal", "share_1")
    assert (code, out) == (0, "share_1 lends custom_legal no more\n")


def test_a_model_that_is_not_there_is_told_as_such(ctl, server):
    refusal = refuses(404, "MODEL_NOT_FOUND", "There is no model legal.")
    server.on("GET", f"{MODEL}/shares", refusal)
    code, _, err = ctl("share", "list", "legal")
    assert code == 4
    assert "There is no model legal." in err


def test_usage_shows_all_pages_as_table_json_and_csv(ctl, server):
    pages = [answers(part("usage", DAY, 2, at)) for at in (0, 1)]
    server.on("GET", f"{MODEL}/usage", *pages, *pages, *pages)
    code, table, _ = ctl("usage", "legal", "--from", "2026-01-01")
    assert code == 0
    assert table.count("key:k1") == 2
    assert server.seen[0].query["from"] == "2026-01-01"
    assert json.loads(ctl("usage", "legal", "-o", "json")[1]) == [DAY, DAY]
    head, *rows = ctl("usage", "legal", "--csv")[1].splitlines()
    assert head.split(",") == list(DAY)
    assert rows == ["2026-01-02,partner,key:k1,k1,custom_legal,3,1,2,0.5,10,20"] * 2


async def test_the_client_lends_changes_revokes_and_tells_usage(server):
    server.on("POST", f"{MODEL}/share", answers(SHARE, 201))
    server.on("PATCH", f"{MODEL}/shares/share_1", answers(SHARE))
    server.on("DELETE", f"{MODEL}/shares/share_1", answers(SHARE))
    server.on("GET", f"{MODEL}/shares", answers(part("shares", SHARE, 1, 0)))
    server.on("GET", f"{MODEL}/usage", *(answers(part("usage", DAY, 2, at)) for at in (0, 1)))
    async with PRSMClient(base_url=server.unix_url) as client:
        made = await client.shares.create("legal", ["read"], {"organizations": ["partner"]})
        await client.shares.change("legal", made.share_id, usage_limits={"total_requests": None})
        await client.shares.revoke("legal", made.share_id)
        listed = await client.shares.list("legal")
        days = [day.requests async for day in client.shares.usage("legal")]
    assert made.allowed_organizations == ("partner",)
    assert listed.items[0].borrowers[0].left[0].remaining == 990
    assert days == [3, 3]
    assert server.seen[1].body == {"usage_limits": {"total_requests": None}}
