"""Who may do what: keys on TCP, peers on the socket, roles, and organizations that do not exist."""

import pytest

from prsmd.core.apikey import format_key
from tests.api.conftest import Site, small
from tests.api.document import DEPLOY, INFER, SCALE
from tests.api.envelope import refused
from tests.support.daemon import Answer

OURS = "custom_legal_analyzer_v2"
UPDATE = {"deployment_config": {"scaling": {"max_replicas": 3}}}
TRAFFIC = {"weights": {"1": 100}}
STEERING = [
    ("POST", f"/v1/custom-models/{{model}}/rollout/{verb}", None)
    for verb in ("pause", "resume", "promote", "abort")
]
EVERYTHING = [
    ("POST", "/v1/custom-models/deploy", DEPLOY),
    ("GET", "/v1/custom-models/deployments", None),
    ("GET", "/v1/custom-models/deployments/{deployment}", None),
    ("GET", "/v1/custom-models/deployments/{deployment}/events", None),
    ("GET", "/v1/custom-models/deployments/{deployment}/logs", None),
    ("GET", "/v1/custom-models", None),
    ("GET", "/v1/custom-models/{model}", None),
    ("PUT", "/v1/custom-models/{model}", UPDATE),
    ("POST", "/v1/custom-models/{model}/rollback", {}),
    ("GET", "/v1/custom-models/{model}/versions", None),
    ("GET", "/v1/custom-models/{model}/diff", None),
    ("GET", "/v1/custom-models/{model}/rollout", None),
    *STEERING,
    ("PUT", "/v1/custom-models/{model}/traffic", TRAFFIC),
    ("POST", "/v1/custom-models/{model}/scale", SCALE),
    ("DELETE", "/v1/custom-models/{model}", None),
    ("POST", "/v1/models/{model}/infer", INFER),
    ("GET", "/v1/models", None),
    ("POST", "/v1/api-keys", {}),
    ("GET", "/v1/api-keys", None),
    ("DELETE", "/v1/api-keys/0123456789", None),
    ("GET", "/v1/auth/me", None),
    ("GET", "/v1/images", None),
    ("POST", "/v1/images", {}),
    ("POST", "/v1/images/prune", {}),
    ("GET", "/v1/registries", None),
    ("POST", "/v1/registries", {"server": "r", "username": "u", "password": "p"}),
    ("DELETE", "/v1/registries/r", None),
    ("GET", "/v1/secrets", None),
    ("POST", "/v1/secrets", {"name": "s", "value": "v"}),
    ("PUT", "/v1/secrets/s", {"value": "v"}),
    ("DELETE", "/v1/secrets/s", None),
    ("POST", "/v1/secrets/rotate-key", None),
    ("GET", "/v1/node", None),
    ("GET", "/v1/gpus", None),
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
]


def changed(key: str, position: int) -> str:
    """Return the key with one character changed."""
    return key[:position] + ("x" if key[position] != "x" else "y") + key[position + 1 :]


@pytest.mark.parametrize(("method", "path", "body"), EVERYTHING, ids=lambda value: str(value)[:50])
def test_nothing_is_served_on_tcp_without_a_key(site: Site, method, path, body):
    before = site.rows()
    path = path.format(deployment=site.accepted["deployment_id"], model=OURS)

    answer = site.daemon.call(method, path, body, key="")

    refused(answer, 401, "INVALID_API_KEY")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert site.rows() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer prsm_x_y"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": "Bearer prsm_0123456789_\xff"},
        {"X-API-Key": ""},
        {"X-API-Key": "null"},
        {"X-API-Key": format_key("0123456789", "0" * 32)},
    ],
    ids=str,
)
@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_what_is_no_key_is_refused_on_both_listeners(site: Site, headers, tcp):
    answer = site.daemon.call("GET", "/v1/auth/me", key="" if tcp else None, headers=headers)

    refused(answer, 401, "INVALID_API_KEY")
    assert b"x" * 201 not in answer.raw


def test_a_mistyped_key_is_refused_and_never_repeated(site: Site):
    key = site.keys["viewer"]

    for position in range(len(key)):
        wrong = changed(key, position)
        answer = site.daemon.call("GET", "/v1/auth/me", key=wrong)
        refused(answer, 401, "INVALID_API_KEY")
        assert wrong[-20:].encode() not in answer.raw
    assert key[-38:] not in site.daemon.log


def test_a_secret_of_another_key_is_refused(site: Site):
    ids = [site.keys[role].split("_")[1] for role in ("viewer", "owner")]
    secret = site.keys["owner"].split("_")[2][:32]
    assert site.daemon.call("GET", "/v1/auth/me", key=format_key(ids[1], secret)).status == 200

    forged = site.daemon.call("GET", "/v1/auth/me", key=format_key(ids[0], secret))

    refused(forged, 401, "INVALID_API_KEY")


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_key_is_taken_from_either_header(site: Site, header):
    text = site.keys["viewer"]
    value = f"Bearer {text}" if header == "Authorization" else text

    answer = site.daemon.call("GET", "/v1/auth/me", key="", headers={header: value})

    assert (answer.json["organization"], answer.json["role"]) == ("company", "viewer")


def test_a_key_over_the_socket_wins_over_the_peer(site: Site):
    assert site.daemon.call("GET", "/v1/auth/me").json["role"] == "admin"

    headers = {"X-API-Key": site.other_key}
    answer = site.daemon.call("GET", "/v1/auth/me", headers=headers)

    assert (answer.json["organization"], answer.json["role"]) == ("rival", "owner")
    assert answer.json["principal"] == f"key:{site.other_key.split('_')[1]}"


def test_a_revoked_key_is_refused_at_once_and_stays_so(site: Site):
    made = site.daemon.call("POST", "/v1/api-keys", {"name": "short-lived", "role": "viewer"}).json
    assert site.daemon.call("GET", "/v1/auth/me", key=made["key"]).status == 200

    assert site.daemon.call("DELETE", f"/v1/api-keys/{made['key_id']}").json["revoked_at"]

    refused(site.daemon.call("GET", "/v1/auth/me", key=made["key"]), 401, "INVALID_API_KEY")
    assert site.daemon.call("DELETE", f"/v1/api-keys/{made['key_id']}").status == 200


def test_an_expired_key_is_refused(site: Site):
    made = site.daemon.call("POST", "/v1/api-keys", {"expires_in_seconds": 0.001}).json

    def refusal() -> Answer | None:
        answer = site.daemon.call("GET", "/v1/auth/me", key=made["key"])
        return answer if answer.status != 200 else None

    expired = site.daemon.until("the key expires", refusal)

    refused(expired, 401, "INVALID_API_KEY")
    assert "expired" in expired.json["message"]


def test_the_list_of_keys_has_no_secret(site: Site):
    answer = site.daemon.call("GET", "/v1/api-keys")

    for key in [*site.keys.values(), site.other_key]:
        identity, secret = key.split("_")[1:]
        assert identity.encode() in answer.raw
        assert secret.encode() not in answer.raw
    assert b"digest" not in answer.raw


def test_a_key_pasted_as_an_id_is_neither_repeated_nor_recorded(site: Site):
    key = site.keys["owner"]

    refused(site.daemon.call("DELETE", f"/v1/api-keys/{key}"), 404, "NOT_FOUND")
    answer = site.daemon.call("DELETE", f"/v1/api-keys/{key}", key=site.keys["viewer"])

    refused(answer, 403, "INSUFFICIENT_PERMISSIONS")
    assert key.split("_")[2] not in str(site.audit())
    assert site.audit()[-1][:3] == ("keys.manage", "key:unknown", "denied")


FORBIDDEN = {
    "viewer": [
        ("POST", "/v1/custom-models/deploy", small("viewers-model"), "models.deploy"),
        ("POST", f"/v1/custom-models/{OURS}/scale", SCALE, "models.scale"),
        ("DELETE", f"/v1/custom-models/{OURS}", None, "models.delete"),
        ("PUT", f"/v1/custom-models/{OURS}", UPDATE, "models.update"),
        ("POST", f"/v1/custom-models/{OURS}/rollback", {"revision": 1}, "models.update"),
        *((m, path.format(model=OURS), body, "models.update") for m, path, body in STEERING),
        ("PUT", f"/v1/custom-models/{OURS}/traffic", TRAFFIC, "models.update"),
        ("POST", f"/v1/models/{OURS}/infer", INFER, "models.infer"),
        ("GET", "/v1/custom-models/deployments/{deployment}/logs", None, "logs.read"),
        ("GET", "/v1/node", None, "node.read"),
        ("GET", "/v1/gpus", None, "node.read"),
        ("GET", "/metrics", None, "node.read"),
        ("GET", "/openapi.json", None, "node.read"),
        ("POST", "/v1/api-keys", {"role": "viewer"}, "keys.manage"),
        ("GET", "/v1/api-keys", None, "keys.manage"),
    ],
    "operator": [
        ("POST", "/v1/custom-models/deploy", small("operators-model"), "models.deploy"),
        ("DELETE", f"/v1/custom-models/{OURS}", None, "models.delete"),
        ("POST", f"/v1/models/{OURS}/infer", INFER, "models.infer"),
        ("GET", "/v1/models", None, "models.infer"),
    ],
    "invoker": [
        ("POST", f"/v1/custom-models/{OURS}/scale", SCALE, "models.scale"),
        ("PUT", f"/v1/custom-models/{OURS}", UPDATE, "models.update"),
        ("GET", "/v1/custom-models/deployments/{deployment}/logs", None, "logs.read"),
    ],
}


@pytest.mark.parametrize(
    ("role", "method", "path", "body", "needed"),
    [(role, *row) for role, rows in FORBIDDEN.items() for row in rows],
    ids=lambda value: str(value)[:40],
)
def test_a_role_without_the_permission_is_refused_and_told_which(
    site: Site, role, method, path, body, needed
):
    before = site.state()
    path = path.format(deployment=site.accepted["deployment_id"])

    answer = site.daemon.call(method, path, body, key=site.keys[role])

    refused(answer, 403, "INSUFFICIENT_PERMISSIONS")
    assert answer.json["error"]["details"]["required_permissions"] == [needed]
    assert needed not in answer.json["error"]["details"]["current_permissions"]
    assert site.state() == before
    if method != "GET" and needed != "models.infer":
        recorded = site.audit()[-1]
        assert recorded[0] == needed
        assert recorded[2] == "denied"
        assert recorded[4] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "wish",
    [
        {"role": "admin"},
        {},
        {"role": "viewer", "organization": "rival"},
        {"role": "owner", "organization": "rival"},
    ],
    ids=str,
)
def test_an_owner_cannot_make_a_key_that_may_more_or_elsewhere(site: Site, wish):
    before = site.state()

    answer = site.daemon.call(
        "POST", "/v1/api-keys", {"name": "up", **wish}, key=site.keys["owner"]
    )

    refused(answer, 403, "INSUFFICIENT_PERMISSIONS")
    assert site.state() == before
    assert site.audit()[-1][:3] == ("keys.create", "key:up", "denied")


@pytest.mark.parametrize(
    "wrong",
    [{"role": "root"}, {"organization": "../x"}, {"expires_in_seconds": 0}, {"scope": "all"}],
    ids=str,
)
def test_a_wrong_wish_for_a_key_is_refused(site: Site, wrong):
    before = site.rows()

    refused(site.daemon.call("POST", "/v1/api-keys", wrong), 400, "INVALID_INPUT")

    assert site.rows() == before


FOREIGN = [
    ("GET", "/v1/custom-models/deployments/{}", None, "deployment"),
    ("GET", "/v1/custom-models/deployments/{}?wait=0.1", None, "deployment"),
    ("GET", "/v1/custom-models/deployments/{}/events", None, "deployment"),
    ("GET", "/v1/custom-models/deployments/{}/logs", None, "deployment"),
    ("GET", "/v1/custom-models/{}", None, "model"),
    ("PUT", "/v1/custom-models/{}", UPDATE, "model"),
    ("POST", "/v1/custom-models/{}/rollback", {"revision": 1}, "model"),
    ("GET", "/v1/custom-models/{}/versions", None, "model"),
    ("GET", "/v1/custom-models/{}/diff?from=1&to=1", None, "model"),
    ("GET", "/v1/custom-models/{}/rollout", None, "model"),
    *((method, path.format(model="{}"), body, "model") for method, path, body in STEERING),
    ("PUT", "/v1/custom-models/{}/traffic", TRAFFIC, "model"),
    ("POST", "/v1/custom-models/{}/scale", SCALE, "model"),
    ("DELETE", "/v1/custom-models/{}", None, "model"),
    ("POST", "/v1/models/{}/infer", INFER, "model"),
    ("DELETE", "/v1/api-keys/{}", None, "key"),
]
NEVER = {"deployment": "deploy_0123456789ab", "model": "custom_nothing", "key": "0123456789"}


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    ("method", "path", "body", "kind"), FOREIGN, ids=lambda value: str(value)[:40]
)
def test_what_belongs_to_another_organization_is_as_if_it_had_never_been(
    site: Site, method, path, body, kind, accept
):
    before = site.state()
    existing = {
        "deployment": site.accepted["deployment_id"],
        "model": OURS,
        "key": site.keys["viewer"].split("_")[1],
    }
    theirs, never = (
        site.daemon.call(
            method, path.format(name), body, key=site.other_key, headers={"Accept": accept}
        )
        for name in (existing[kind], NEVER[kind])
    )

    assert theirs.status == never.status == 404
    assert timeless(theirs, existing[kind]) == timeless(never, NEVER[kind])
    assert set(theirs.headers) == set(never.headers)
    assert site.state() == before


def timeless(answer, name):
    """Return an error's text without what differs between any two requests."""
    error = answer.json["error"]
    text = answer.raw.decode().replace(name, "NAME")
    return text.replace(error["request_id"], "ID").replace(error["timestamp"], "NOW")


def test_lists_hold_only_what_is_ones_own(site: Site):
    for path, name in (
        ("/v1/custom-models", "custom_models"),
        ("/v1/custom-models/deployments", "deployments"),
        ("/v1/models", "models"),
    ):
        mine = site.daemon.call("GET", path, key=site.other_key).json
        assert {item["model_id"] for item in mine[name]} == {site.other_model}
        assert mine["total"] == 1
        everyones = site.daemon.call("GET", path).json
        assert everyones["total"] == 2
    keys = site.daemon.call("GET", "/v1/api-keys", key=site.other_key).json
    assert {key["organization"] for key in keys["api_keys"]} == {"rival"}


def test_metrics_and_gpus_show_no_other_organization(site: Site):
    metrics = site.daemon.call("GET", "/metrics", key=site.other_key)
    gpus = site.daemon.call("GET", "/v1/gpus", key=site.other_key)

    for answer in (metrics, gpus):
        assert answer.status == 200
        assert site.accepted["deployment_id"].removeprefix("deploy_").encode() not in answer.raw
    assert site.other_deployment.encode() in metrics.raw
    assert gpus.json["gpus"][0]["reserved_by"] == ["another organization"]


def test_the_same_name_in_two_organizations_is_two_models(site: Site):
    body = small("legal-analyzer-v2", min_replicas=0)

    made = site.daemon.call("POST", "/v1/custom-models/deploy", body, key=site.other_key)

    try:
        assert made.status == 202, made
        assert made.json["model_id"] == OURS
        theirs = site.daemon.call("GET", f"/v1/custom-models/{OURS}", key=site.other_key).json
        ours = site.daemon.call("GET", f"/v1/custom-models/{OURS}", key=site.keys["owner"]).json
        assert theirs["deployment_id"] == made.json["deployment_id"]
        assert ours["deployment_id"] == site.accepted["deployment_id"]
        assert site.daemon.call("GET", f"/v1/custom-models/{OURS}").json == ours
    finally:
        site.daemon.call("DELETE", f"/v1/custom-models/{OURS}", key=site.other_key)
        gone = f"/v1/custom-models/{OURS}"
        site.daemon.until(
            "it is gone",
            lambda: site.daemon.call("GET", gone, key=site.other_key).status == 404,
        )


def test_probes_are_open_and_say_nothing_more(site: Site):
    assert site.daemon.call("GET", "/healthz", key="").json == {"status": "ok"}
    assert site.daemon.call("GET", "/readyz", key="").json == {"status": "ready"}
