"""Wrong bodies and parameters: the documented error names the field, and nothing changes."""

import copy
import json

import pytest

from tests.api.conftest import Site
from tests.api.document import DEPLOY, INFER
from tests.api.envelope import problem_fields, refused

DEPLOY_PATH = "/v1/custom-models/deploy"
MODEL = "/v1/custom-models/custom_legal_analyzer_v2"
INFER_PATH = "/v1/models/custom_legal_analyzer_v2/infer"
IMAGE = "deployment_config.container_image"
NEEDS = "deployment_config.resource_requirements"
SCALING = "deployment_config.scaling"
CONFIG = "deployment_config"
HUGE = 10**60


def deploy_with(field, value):
    """Return the document's request with one field set, as JSON bytes."""
    body = copy.deepcopy(DEPLOY) | {"model_name": "never-deployed"}
    *path, last = field.split(".")
    inner = body
    for part in path:
        inner = inner.setdefault(part, {})
    inner[last] = value
    return json.dumps(body).encode()


WRONG_FIELDS = [
    ("model_name", 5),
    ("model_name", None),
    ("model_name", ""),
    ("model_name", "../../etc/passwd"),
    ("model_name", "a/b"),
    ("model_name", "deployments"),
    ("model_name", "deploy_0123456789ab"),
    ("model_name", "a..b"),
    ("model_name", "a\0b"),
    ("model_name", "x" * 64),
    ("model_name", "line\nbreak"),
    ("model_type", ""),
    ("model_type", ["text"]),
    (IMAGE, "../../../etc/passwd"),
    (IMAGE, "file:///etc/passwd"),
    (IMAGE, "/company/legal"),
    (IMAGE, "company/../other:1"),
    (IMAGE, "company/legal@sha256:short"),
    (IMAGE, "company/legal:v1 --privileged"),
    (IMAGE, "COMPANY/legal"),
    (IMAGE, "REG.example/company/legal"),
    (IMAGE, "r\u0435g.example/company/legal"),
    (IMAGE, "sha256:" + "0" * 64),
    (IMAGE, {"name": "x"}),
    (f"{NEEDS}.cpu", 2),
    (f"{NEEDS}.cpu", True),
    (f"{NEEDS}.cpu", "-2"),
    (f"{NEEDS}.cpu", "2 cores"),
    (f"{NEEDS}.cpu", "0"),
    (f"{NEEDS}.cpu", "٢"),
    (f"{NEEDS}.memory", "8GB"),
    (f"{NEEDS}.memory", "1e99Gi"),
    (f"{NEEDS}.memory", 8),
    (f"{NEEDS}.gpu", "1.5"),
    (f"{NEEDS}.gpu", "-1"),
    (f"{NEEDS}.gpu", "all"),
    (f"{SCALING}.min_replicas", -1),
    (f"{SCALING}.min_replicas", True),
    (f"{SCALING}.min_replicas", 1.5),
    (f"{SCALING}.min_replicas", "1"),
    (f"{SCALING}.max_replicas", 0),
    (f"{SCALING}.max_replicas", HUGE),
    (f"{SCALING}.target_utilization", 0),
    (f"{SCALING}.target_utilization", 1.1),
    (f"{SCALING}.target_utilization", True),
    (f"{SCALING}.target_utilization", "0.7"),
    (f"{CONFIG}.serving", {"port": 0}),
    (f"{CONFIG}.serving", {"predict_path": "/../admin"}),
    (f"{CONFIG}.serving", {"predict_path": "http://elsewhere/"}),
    (f"{CONFIG}.serving", {"protocol": "telepathy"}),
    (f"{CONFIG}.environment", {"NVIDIA_VISIBLE_DEVICES": "all"}),
    (f"{CONFIG}.environment", {"LD_PRELOAD": "/tmp/x.so"}),
    (f"{CONFIG}.environment", {"A=B": "c"}),
    (f"{CONFIG}.environment", {"A": 5}),
    (f"{CONFIG}.security", {"run_as_user": 0}),
    (f"{CONFIG}.security", {"egress": "everywhere"}),
    (f"{CONFIG}.command", "sh -c id"),
    (f"{CONFIG}.volumes", [{"host": "/"}]),
    ("model_metadata.version", "2.1"),
    ("model_metadata.version", "latest"),
    ("model_metadata.capabilities", "classification"),
    ("model_metadata", "a model"),
    ("deployment_config", []),
]


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS, ids=lambda value: repr(value)[:40])
def test_a_wrong_field_is_named_and_nothing_is_deployed(site: Site, field, value):
    before = site.rows()

    answer = site.daemon.call("POST", DEPLOY_PATH, deploy_with(field, value))

    refused(answer, 400, "INVALID_INPUT")
    assert all(name.startswith(field) for name in problem_fields(answer)), answer
    assert site.rows() == before


def test_bounds_in_the_wrong_order_are_refused_by_name(site: Site):
    body = deploy_with(SCALING, {"min_replicas": 3, "max_replicas": 2})

    answer = site.daemon.call("POST", DEPLOY_PATH, body)

    refused(answer, 400, "INVALID_INPUT")
    assert "min_replicas 3 is above max_replicas 2" in answer.json["message"]


@pytest.mark.parametrize(
    ("field", "nearest"),
    [
        ("model_nam", "model_name"),
        ("deployment_config.scaling.min_replica", "min_replicas"),
        ("deployment_config.resource_requirements.gpus", "gpu"),
        ("model_metadata.descripton", "description"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_one(site: Site, field, nearest):
    answer = site.daemon.call("POST", DEPLOY_PATH, deploy_with(field, "x"))

    refused(answer, 400, "INVALID_INPUT")
    [problem] = answer.json["error"]["details"]["validation_errors"]
    assert problem["field"] == field
    assert problem["error"] == f"unknown field; did you mean {nearest}?"


WRONG_JSON = {
    "empty": b"",
    "no object": b"[]",
    "a number": b"5",
    "null": b"null",
    "cut off": b'{"model_name": ',
    "two values": b"{} {}",
    "NaN": deploy_with("x", float("nan")),
    "Infinity": deploy_with(f"{SCALING}.target_utilization", float("inf")),
    "number out of range": b'{"target_replicas": 1e999}',
    "too many digits": b'{"target_replicas": ' + b"9" * 5000 + b"}",
    "deep": b"[" * 30000,
    "deep object": b'{"a":' * 10000,
    "a name twice": b'{"target_replicas": 1, "target_replicas": 2}',
    "not UTF-8": b'{"model_name": "\xff\xfe"}',
    "UTF-16": json.dumps(DEPLOY).encode("utf-16"),
    "half a character": b'{"model_name": "\\ud800"}',
    "byte order mark": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("path", [DEPLOY_PATH, f"{MODEL}/scale", "/v1/api-keys"])
@pytest.mark.parametrize("body", WRONG_JSON.values(), ids=WRONG_JSON.keys())
def test_what_is_not_one_json_object_is_refused(site: Site, path, body):
    before = site.rows()

    answer = site.daemon.call("POST", path, body)

    refused(answer, 400, "INVALID_INPUT")
    assert problem_fields(answer) == ["body"]
    assert site.rows() == before


# What is written between the braces of `inputs` is the container's to judge.
PASSED_ON = {"number out of range", "too many digits", "a name twice"}


@pytest.mark.parametrize("kind", sorted(WRONG_JSON.keys() - PASSED_ON))
def test_an_inference_that_is_no_json_object_is_refused(site: Site, kind):
    answer = site.daemon.call("POST", INFER_PATH, WRONG_JSON[kind])

    refused(answer, 400, "INVALID_INPUT")
    assert problem_fields(answer) == ["body"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": 1, "inputs": 2}',
        b'{"inputs": {"text": "x"}, "parameters": {}, "parameters": {}}',
        b'{"inputs": 1, "\\u0069nputs": 1}',
    ],
)
def test_a_member_of_an_inference_that_stands_twice_is_refused(site: Site, body):
    answer = site.daemon.call("POST", INFER_PATH, body)

    refused(answer, 400, "INVALID_INPUT")
    assert problem_fields(answer) == ["body"]
    assert "twice" in answer.json["message"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
def test_another_content_type_is_refused(site: Site, kind):
    body = json.dumps(DEPLOY).encode()

    answer = site.daemon.call("POST", DEPLOY_PATH, body, headers={"Content-Type": kind})

    refused(answer, 400, "INVALID_INPUT")
    assert problem_fields(answer) == ["Content-Type"]


@pytest.mark.parametrize(
    "body",
    [
        {"target_replicas": -1},
        {"target_replicas": 11},
        {"target_replicas": 0},
        {"target_replicas": "2"},
        {"target_replicas": True},
        {"target_replicas": 2, "scaling_strategy": "sudden"},
        {"replicas": 2},
        {},
    ],
    ids=str,
)
def test_a_wrong_scale_is_refused(site: Site, body):
    before = site.state()

    refused(site.daemon.call("POST", f"{MODEL}/scale", body), 400, "INVALID_INPUT")

    assert site.state() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"parameters": {}}, "inputs"),
        ({"inputs": {}, "parameters": []}, "parameters"),
        ({"inputs": {}, "parameters": None}, "parameters"),
        ({"inputs": {}, "parameters": "x" * 500}, "parameters"),
        ({"parameters": {}, "inputs": {}, "model": "m"}, "model"),
        ({"inputs": {}, "parameter": {}}, "parameter"),
        ({"input": {}}, "inputs"),
    ],
    ids=str,
)
def test_a_wrong_inference_is_refused(site: Site, body, field):
    answer = site.daemon.call("POST", INFER_PATH, body)

    refused(answer, 400, "INVALID_INPUT")
    assert field in problem_fields(answer)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/custom-models?limit=0", "limit"),
        ("/v1/custom-models?limit=101", "limit"),
        ("/v1/custom-models?limit=1.5", "limit"),
        ("/v1/custom-models?limit=1_0", "limit"),
        ("/v1/custom-models?limit=%D9%A3", "limit"),
        ("/v1/custom-models?limit=ten", "limit"),
        ("/v1/custom-models?limit=1&limit=2", "limit"),
        ("/v1/custom-models?offset=-1", "offset"),
        ("/v1/custom-models?offset=NaN", "offset"),
        ("/v1/custom-models?sort_by=id;DROP%20TABLE", "sort_by"),
        ("/v1/custom-models?sort_order=up", "sort_order"),
        ("/v1/custom-models?limits=1", "limits"),
        ("/v1/models?offset=1e99", "offset"),
        ("/v1/custom-models/deployments?x=1", "x"),
        ("{one}?wait=-1", "wait"),
        ("{one}?wait=301", "wait"),
        ("{one}?wait=inf", "wait"),
        ("{one}/events?limit=0", "limit"),
        ("{one}/logs?tail=-1", "tail"),
        ("{one}/logs?since=yesterday", "since"),
        ("{one}/logs?follow=maybe", "follow"),
        ("/v1/node?detail=1", "detail"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(site: Site, path, field):
    one = f"/v1/custom-models/deployments/{site.accepted['deployment_id']}"

    answer = site.daemon.call("GET", path.format(one=one))

    refused(answer, 400, "INVALID_INPUT")
    assert problem_fields(answer) == [field]


@pytest.mark.parametrize("value", ["-1", "x", "²".encode(), "9" * 19, "1 2"], ids=repr)
def test_a_wrong_place_to_resume_from_is_refused(site: Site, value):
    path = f"/v1/custom-models/deployments/{site.accepted['deployment_id']}/events"
    headers = {"Accept": "text/event-stream", "Last-Event-ID": value}

    refused(site.daemon.call("GET", path, headers=headers), 400, "INVALID_INPUT")


@pytest.mark.parametrize("path", [DEPLOY_PATH, INFER_PATH])
def test_a_body_above_the_limit_is_refused_before_it_is_read(site: Site, path):
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000000000\r\nConnection: close\r\n\r\n"
    )

    refused(site.unix(head.encode()), 413, "REQUEST_TOO_LARGE")


def test_a_body_that_grows_above_the_limit_is_refused(site: Site):
    chunk = b"%x\r\n" % 16384 + b"x" * 16384 + b"\r\n"
    head = (
        f"POST {DEPLOY_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )

    refused(site.unix(head.encode() + 5 * chunk + b"0\r\n\r\n"), 413, "REQUEST_TOO_LARGE")


def test_a_body_that_stops_halfway_is_refused_in_time(site: Site):
    head = (
        f"POST {INFER_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\nConnection: close\r\n\r\n"
    )

    answer = site.unix(head.encode() + b'{"inputs":')

    refused(answer, 400, "INVALID_INPUT")
    assert b"did not arrive in time" in answer


@pytest.mark.parametrize(
    "body",
    [
        deploy_with("x" * 5000, 1),
        deploy_with("model_name", "x" * 5000),
        deploy_with("model_name", ["x" * 5000]),
        deploy_with(f"{CONFIG}.environment", {"x" * 5000: "y"}),
        deploy_with(f"{SCALING}.max_replicas", HUGE),
        json.dumps({f"{'x' * 60}{n}": n for n in range(500)}).encode(),
    ],
    ids=["name", "value", "list", "variable", "digits", "many"],
)
def test_an_error_never_repeats_long_input(site: Site, body):
    answer = site.daemon.call("POST", DEPLOY_PATH, body)

    refused(answer, 400, "INVALID_INPUT")
    assert b"x" * 201 not in answer.raw
    assert b"0" * 201 not in answer.raw
    assert len(answer.raw) < 20_000


@pytest.mark.parametrize(
    "body",
    [
        deploy_with("api_key", "s3cret-value"),
        deploy_with("model_name", "prsm_s3cret-value/"),
        deploy_with(f"{CONFIG}.environment", {"TOKEN": "s3cret-value", "B=": "s3cret-value"}),
        deploy_with(f"{CONFIG}.environment", "s3cret-value"),
        deploy_with(f"{CONFIG}.secrets", {"TOKEN": {"value": "s3cret-value"}}),
        deploy_with(f"{CONFIG}.args", ["--token", "s3cret-value", 5]),
        deploy_with(f"{CONFIG}.args", "s3cret-value"),
        b'{"token": "s3cret-value"',
    ],
)
def test_an_error_never_repeats_a_secret(site: Site, body):
    answer = site.daemon.call("POST", DEPLOY_PATH, body)

    refused(answer, 400, "INVALID_INPUT")
    assert b"s3cret-value" not in answer.raw
    assert "s3cret-value" not in site.daemon.log


def test_a_taken_name_is_a_conflict_that_names_the_model(site: Site):
    before = site.state()

    answer = site.daemon.call("POST", DEPLOY_PATH, DEPLOY)

    refused(answer, 409, "CONFLICT")
    assert answer.json["error"]["details"]["model_id"] == "custom_legal_analyzer_v2"
    assert site.state() == before


def test_what_never_fits_is_refused_with_the_reasons(site: Site):
    before = site.rows()
    answer = site.daemon.call("POST", DEPLOY_PATH, deploy_with(f"{NEEDS}.gpu", "4"))

    refused(answer, 503, "RESOURCE_UNAVAILABLE")
    assert answer.json["error"]["details"]["reasons"]
    assert answer.json["error"]["details"]["resource_type"] == "gpu"
    assert answer.headers["Retry-After"].isdigit()
    assert site.rows() == before


def test_the_models_own_refusal_is_a_provider_error(site: Site):
    answer = site.daemon.call("POST", INFER_PATH, {"inputs": {"no_text": INFER}})

    refused(answer, 502, "PROVIDER_ERROR")
