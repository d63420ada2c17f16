"""`prsmctl org`, `role`, `member`, `key`, `whoami`: against answers that a test prescribes."""

import json

import pytest

from tests.sdk.wire_server import answers, refuses

KEY = {"key_id": "0123456789", "name": "ci", "organization": "acme", "role": "viewer"}
MEMBER = {
    "member_id": "member_1",
    "organization": "acme",
    "kind": "uid",
    "subject": "1000",
    "name": "ann",
    "bindings": [{"role": "viewer"}, {"role": "operator", "model_id": "custom_a"}],
}


def sent(server):
    return server.seen[-1].body


def test_a_new_key_stands_alone_on_stdout_and_is_held_to_what_was_asked(ctl, server):
    server.on("POST", "/v1/api-keys", answers({**KEY, "key": "prsm_x"}, 201))
    code, out, err = ctl(
        "key", "create", "ci", "--role", "viewer", "--expires", "1h", "--model", "a",
        "--model", "b", "--network", "10.0.0.0/8", "--per-minute", "5", "--per-day", "9",
    )  # fmt: skip
    assert (code, out) == (0, "prsm_x\n")
    assert "not shown again" in err
    assert sent(server) == {
        "name": "ci",
        "role": "viewer",
        "expires_in_seconds": 3600.0,
        "models": ["a", "b"],
        "networks": ["10.0.0.0/8"],
        "requests_per_minute": 5,
        "requests_per_day": 9,
    }


def test_a_rotated_key_stands_alone_on_stdout_and_its_overlap_is_told(ctl, server):
    until = "2026-01-01T00:00:00.000Z"
    told = {**KEY, "key": "prsm_new", "previous_secret_until": until}
    server.on("POST", "/v1/api-keys/0123456789/rotate", answers(told))
    code, out, err = ctl("key", "rotate", "0123456789", "--overlap", "0")
    assert (code, out) == (0, "prsm_new\n")
    assert until in err
    assert sent(server) == {"overlap_seconds": 0.0}
    assert ctl("key", "rotate", "0123456789", "--overlap", "never")[0] == 2


def test_bounds_of_a_key_are_set_and_taken_away(ctl, server):
    server.on("PATCH", "/v1/api-keys/0123456789", answers(KEY))
    code, out, _ = ctl("key", "change", "0123456789", "--role", "invoker", "--no", "expires")
    assert code == 0
    assert sent(server) == {"role": "invoker", "expires_in_seconds": None}
    assert "acme" in out
    assert ctl("key", "change", "0123456789")[0] == 2


PAGES = [
    {"api_keys": [KEY], "total": 2, "has_more": True, "limit": 1, "offset": 0},
    {"api_keys": [{**KEY, "key_id": "other"}], "total": 2, "has_more": False},
]


def test_a_list_is_shown_whole_however_it_comes(ctl, server):
    server.on("GET", "/v1/api-keys", *map(answers, PAGES))
    code, out, _ = ctl("key", "list")
    assert code == 0
    assert "0123456789" in out
    assert "other" in out
    assert server.seen[-1].query["offset"] == "1"


def test_a_list_that_comes_in_parts_is_one_in_json(ctl, server):
    server.on("GET", "/v1/api-keys", *map(answers, PAGES))
    told = json.loads(ctl("key", "list", "-o", "json")[1])
    assert [key["key_id"] for key in told["api_keys"]] == ["0123456789", "other"]
    assert told["has_more"] is False


def test_roles_of_a_member_are_given_with_or_without_a_model(ctl, server):
    server.on("POST", "/v1/members", answers(MEMBER, 201))
    code, out, _ = ctl("member", "add", "user", "ann", "--role", "viewer", "--role", "operator@a")
    assert code == 0
    assert sent(server) == {
        "kind": "user",
        "subject": "ann",
        "bindings": [{"role": "viewer"}, {"role": "operator", "model": "a"}],
    }
    assert "viewer, operator@custom_a" in out


@pytest.mark.parametrize(
    ("arguments", "method", "path", "body", "words"),
    [
        (
            ("org", "create", "lab", "--display-name", "The Lab"),
            "POST",
            "/v1/organizations",
            {"organization_id": "lab", "display_name": "The Lab"},
            "lab",
        ),
        (("org", "disable", "lab"), "PATCH", "/v1/organizations/lab", {"disabled": True}, "lab"),
        (("org", "remove", "lab"), "DELETE", "/v1/organizations/lab", None, "lab is removed"),
        (
            ("role", "create", "--name", "hr", "keys.manage"),
            "POST",
            "/v1/roles",
            {"name": "hr", "permissions": ["keys.manage"]},
            "hr of lab allows keys.manage",
        ),
        (
            ("role", "remove", "--name", "hr"),
            "DELETE",
            "/v1/roles/hr",
            None,
            "hr of lab is removed",
        ),
        (
            ("member", "change", "member_1", "--role", "owner"),
            "PATCH",
            "/v1/members/member_1",
            {"bindings": [{"role": "owner"}]},
            "ann (member_1) in acme",
        ),
        (("member", "remove", "member_1"), "DELETE", "/v1/members/member_1", None, "no member"),
        (("key", "revoke", "0123456789"), "DELETE", "/v1/api-keys/0123456789", None, "is revoked"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_change_is_one_call_and_told_in_words(ctl, server, arguments, method, path, body, words):
    whole = {
        **KEY,
        **MEMBER,
        "organization_id": "lab",
        "name": {"role": "hr", "member": "ann"}.get(arguments[0], "x"),
        "organization": "lab" if arguments[0] == "role" else "acme",
        "permissions": ["keys.manage"],
    }
    server.on(method, path, answers(whole))
    code, out, err = ctl(*arguments)
    assert (code, err) == (0, "")
    assert words in out
    assert sent(server) == body
    assert len(server.seen) == 1


def test_whoami_says_what_one_may_and_where(ctl, server):
    me = {
        "principal": "uid:1000",
        "organization": "acme",
        "role": "viewer",
        "permissions": ["models.read"],
        "on_models": [{"model_id": "custom_a", "permissions": ["models.scale"]}],
    }
    server.on("GET", "/v1/auth/me", answers(me))
    _, out, _ = ctl("whoami")
    assert "uid:1000" in out
    assert "on custom_a: models.scale" in out


QUOTA = {
    "organization_id": "acme",
    "quota": {
        "cpu": {"used": "500m", "hard": "8", "reserved": "250m", "default": False},
        "keys": {"used": 3, "hard": None, "default": True},
    },
}


def test_the_own_quota_is_shown_with_what_is_used_and_who_set_it(ctl, server):
    server.on("GET", "/v1/auth/me", answers({"principal": "uid:1000", "organization": "acme"}))
    server.on("GET", "/v1/organizations/acme/quota", answers(QUOTA))
    code, out, _ = ctl("org", "quota")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["cpu", "500m", "8", "250m", "administrator"] in rows
    assert ["keys", "3", "unlimited", "-", "default"] in rows


def test_limits_are_set_by_name_and_what_is_none_is_told_before_anything_is_sent(ctl, server):
    server.on("PATCH", "/v1/organizations/acme/quota", answers(QUOTA))
    assert ctl("org", "quota", "acme", "--set", "cpu=8", "--set", "keys=unlimited")[0] == 0
    assert sent(server) == {"hard": {"cpu": "8", "keys": "unlimited"}}
    seen = len(server.seen)
    for wrong in ("cpu", "=8", "cpu="):
        code, _, err = ctl("org", "quota", "acme", "--set", wrong)
        assert code == 2
        assert "DIMENSION=AMOUNT" in err
    assert len(server.seen) == seen


def test_whoami_shows_the_quota_where_the_server_tells_it(ctl, server):
    me = {"principal": "uid:1000", "organization": "acme", "quota": QUOTA["quota"]}
    server.on("GET", "/v1/auth/me", answers(me))
    assert "unlimited" in ctl("whoami")[1]


def test_who_is_not_found_is_looked_for_where_such_things_are_listed(ctl, server):
    server.on("POST", "/v1/api-keys/k9/rotate", refuses(404, "NOT_FOUND", "There is no such key."))
    server.on("GET", "/v1/models", refuses(404, "MODEL_NOT_FOUND", "There is no model x."))
    assert ctl("key", "rotate", "k9")[2].splitlines()[1].endswith("prsmctl key list.")
    assert "prsmctl list shows" in ctl("models")[2]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [("119", "119 s"), ("600", "10 min"), ("70621", "19 h 37 min")],
)
def test_how_long_to_wait_is_told_as_people_say_it(ctl, server, seconds, told):
    header = {"Retry-After": seconds}
    server.on("GET", "/v1/models", refuses(429, "QUOTA_EXCEEDED", "It is used up.", **header))
    assert f"Try again in {told}." in ctl("models")[2]
