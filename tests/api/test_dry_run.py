"""Dry runs over HTTP: what they answer, what they refuse, and that they leave nothing behind."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import SETTINGS, Site, small
from tests.api.envelope import problem_fields, refused
from tests.support.daemon import Answer, running_daemon
from tests.support.gpus import SteeredGpus

NAME = "rehearsed-model"
ONE = "/v1/custom-models/custom_rehearsed_model"
CPU = {"deployment_config": {"resource_requirements": {"cpu": "200m"}}}
MUTATIONS = [
    ("POST", "/v1/custom-models/deploy", small("another-model")),
    ("PUT", ONE, CPU),
    ("POST", f"{ONE}/scale", {"target_replicas": 2}),
    ("POST", f"{ONE}/rollback", {"revision": 1}),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a daemon with room and one GPU; the one that all other tests share is full."""
    folder = tmp_path_factory.mktemp("dry")
    gpus = SteeredGpus(folder)
    gpus.add("NVIDIA T4")
    with running_daemon(folder, SETTINGS, gpus.environment()) as daemon:
        daemon.until("GPU telemetry", lambda: daemon.call("GET", "/v1/gpus").json["gpus"])
        yield Site(
            daemon=daemon,
            accepted={},
            keys={"viewer": daemon.key("viewer")},
            other_key=daemon.key("owner", "rival"),
            other_deployment="",
            other_model="",
        )


@pytest.fixture(scope="module")
def model(site: Site) -> Iterator[str]:
    deployment = site.daemon.deploy(small(NAME))
    site.daemon.until_ready(deployment, 1)

    def settled() -> bool:
        rows = site.rows()["deployments"]
        return any(row["id"] == deployment and row["stable_revision"] for row in rows)

    site.daemon.until("it is the stable revision", settled)
    yield deployment
    site.daemon.call("DELETE", ONE)
    site.daemon.until("it is gone", lambda: site.daemon.call("GET", ONE).status == 404)


def dry(site: Site, method: str, path: str, body: Any, **options: Any) -> Answer:
    return site.daemon.call(method, f"{path}?dry_run=true", body, **options)


@pytest.mark.parametrize(("method", "path", "body"), MUTATIONS)
def test_nothing_is_done_and_nothing_is_on_record(
    site: Site, model: str, method: str, path: str, body: Any
):
    rows, audit = site.rows(), site.audit()
    answer = dry(site, method, path, body)
    assert (answer.status, answer.json["dry_run"]) == (200, True)
    assert (site.rows(), site.audit()) == (rows, audit)


@pytest.mark.parametrize(("method", "path", "body"), MUTATIONS)
@pytest.mark.parametrize("value", ["yes", "1", "True", ""])
def test_only_true_and_false_are_values_of_dry_run(
    site: Site, model: str, method: str, path: str, body: Any, value: str
):
    rows = site.rows()
    answer = site.daemon.call(method, f"{path}?dry_run={value}", body)
    refused(answer, 400, "INVALID_INPUT")
    assert problem_fields(answer) == ["dry_run"]
    assert site.rows() == rows


def test_dry_run_false_is_the_request_itself(site: Site, model: str):
    answer = site.daemon.call("POST", f"{ONE}/scale?dry_run=false", {"target_replicas": 1})
    assert (answer.status, answer.json["status"]) == (202, "scaling")


def test_what_has_no_dry_run_refuses_the_parameter(site: Site, model: str):
    refused(site.daemon.call("DELETE", f"{ONE}?dry_run=true"), 400, "INVALID_INPUT")
    refused(site.daemon.call("GET", f"{ONE}?dry_run=true"), 400, "INVALID_INPUT")
    refused(site.daemon.call("POST", f"{ONE}/rollout/abort?dry_run=true", {}), 400, "INVALID_INPUT")


def test_a_deploy_is_told_with_its_place_and_its_image(site: Site):
    found = dry(site, "POST", "/v1/custom-models/deploy", small("another-model")).json
    assert (found["action"], found["model_id"]) == ("deploy", "custom_another_model")
    assert (found["deployment_id"], found["revision"], found["version"]) == (None, 1, "1.0.0")
    assert found["image"]["reference"] == "company/legal-analyzer:v2.1"
    assert found["image"]["here"] is True
    assert found["image"]["digest"]
    image = {
        "field": "deployment_config.container_image",
        "before": None,
        "after": "company/legal-analyzer:v2.1",
    }
    assert image in found["changes"]
    plan = found["plan"]
    assert (plan["strategy"], plan["lowest_ready"], plan["reaches_goal"]) == ("launch", 0, True)
    assert (plan["holds"], plan["waits_for"], plan["complete"]) == ([], "", True)
    launch, ready = plan["steps"]
    node = site.daemon.call("GET", "/v1/node").json["name"]
    assert launch == {
        "kind": "launch",
        "reason": "needs a replica",
        "revision": 1,
        "slot": 0,
        "replica_id": None,
        "node": node,
        "gpu_uuids": [],
    }
    assert ready["kind"] == "ready"


def test_an_update_on_the_only_gpu_is_a_swap_or_says_why_not(site: Site):
    wanted = small("gpu-model")
    wanted["deployment_config"]["resource_requirements"]["gpu"] = "1"
    deployment = site.daemon.deploy(wanted)
    site.daemon.until_ready(deployment, 1)
    [gpu] = site.daemon.call("GET", "/v1/gpus").json["gpus"]

    plan = dry(site, "PUT", "/v1/custom-models/gpu-model", CPU).json["plan"]
    assert (plan["strategy"], plan["lowest_ready"]) == ("buffered swap", 0)
    assert plan["reaches_goal"]
    [launch] = [step for step in plan["steps"] if step["kind"] == "launch"]
    assert launch["gpu_uuids"] == [gpu["uuid"]]

    beside = {**CPU, "rollout": {"strategy": "surge"}}
    plan = dry(site, "PUT", "/v1/custom-models/gpu-model", beside).json["plan"]
    assert (plan["strategy"], plan["lowest_ready"]) == ("surge", 1)
    assert not plan["reaches_goal"]
    [hold] = plan["holds"]
    assert (hold["kind"], hold["revision"], hold["slot"]) == ("unplaceable", 2, 0)
    assert gpu["uuid"][:12] in hold["details"][0]
    site.daemon.call("DELETE", "/v1/custom-models/gpu-model")


def test_an_update_is_told_step_by_step(site: Site, model: str):
    answer = dry(site, "PUT", ONE, CPU)
    found = answer.json
    assert answer.headers["ETag"] == '"1"', "the revision that it is at now"
    assert (found["deployment_id"], found["revision"], found["previous_revision"]) == (model, 2, 1)
    assert (found["version"], found["in_place"], found["unchanged"]) == ("1.0.1", False, False)
    assert found["message"] == "its version is 1.0.1, after 1.0.0"
    kinds = [step["kind"] for step in found["plan"]["steps"]]
    assert kinds == ["prepare", "launch", "ready", "drain", "stop", "rolled_out"]
    drained = found["plan"]["steps"][3]
    assert drained["replica_id"].startswith(model.removeprefix("deploy_"))
    assert (found["plan"]["strategy"], found["plan"]["lowest_ready"]) == ("surge", 1)


def test_environment_and_arguments_are_named_and_not_shown(site: Site, model: str):
    patch = {"deployment_config": {"environment": {"TOKEN": "s3cret"}, "args": ["--s3cret"]}}
    answer = dry(site, "PUT", ONE, patch)
    assert answer.status == 200
    assert b"s3cret" not in answer.raw
    fields = [change["field"] for change in answer.json["changes"]]
    assert "deployment_config.environment.TOKEN" in fields


def test_what_is_refused_is_refused_alike(site: Site, model: str):
    stale = {"If-Match": '"7"'}
    refused(dry(site, "PUT", ONE, CPU, headers=stale), 412, "PRECONDITION_FAILED")
    refused(dry(site, "POST", "/v1/custom-models/deploy", small(NAME)), 409, "CONFLICT")
    refused(dry(site, "POST", f"{ONE}/scale", {"target_replicas": 9}), 400, "INVALID_INPUT")
    refused(dry(site, "PUT", ONE, {"modell_type": "x"}), 400, "INVALID_INPUT")
    refused(dry(site, "POST", f"{ONE}/rollback", {"revision": 5}), 404, "NOT_FOUND")
    viewer = site.keys["viewer"]
    for method, path, body in MUTATIONS:
        denied = dry(site, method, path, body, key=viewer)
        refused(denied, 403, "INSUFFICIENT_PERMISSIONS")
        _, _, outcome, _, request = site.audit()[-1]
        assert (outcome, request) == ("denied", denied.headers["X-Request-ID"])
    refused(dry(site, "PUT", ONE, CPU, key=site.other_key), 404, "MODEL_NOT_FOUND")


def test_a_key_that_was_used_is_free_for_a_dry_run_and_the_other_way_round(site: Site, model: str):
    once = {"Idempotency-Key": "rehearsed"}
    path = f"{ONE}/scale"
    assert dry(site, "POST", path, {"target_replicas": 2}, headers=once).status == 200
    done = site.daemon.call("POST", path, {"target_replicas": 1}, headers=once)
    assert (done.status, done.headers.get("Idempotent-Replayed")) == (202, None)
    told = dry(site, "POST", path, {"target_replicas": 2}, headers=once)
    assert (told.status, told.json["action"]) == (200, "scale")


def test_a_whole_body_replaces_what_it_leaves_out(site: Site, model: str):
    whole = small(NAME)
    whole["deployment_config"].pop("scaling")
    found = dry(site, "PUT", ONE, whole).json
    assert not found["unchanged"], "as a patch it has the image looked up anew"
    answer = site.daemon.call("PUT", f"{ONE}?dry_run=true&replace=true", whole)
    assert answer.json["changes"] == [
        {"field": "deployment_config.scaling.max_replicas", "before": 2, "after": 10}
    ]
    assert (answer.json["in_place"], answer.json["plan"]["strategy"]) == (True, "in place")
    refused(site.daemon.call("PUT", f"{ONE}?replace=maybe", whole), 400, "INVALID_INPUT")


def test_a_dry_run_is_described_where_it_is_possible(site: Site):
    paths = site.daemon.call("GET", "/openapi.json").json["paths"]
    described = {
        (method, path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if any(each["name"] == "dry_run" for each in operation["parameters"])
    }
    assert described == {
        ("post", "/v1/custom-models/deploy"),
        ("put", "/v1/custom-models/{model_id}"),
        ("post", "/v1/custom-models/{model_id}/scale"),
        ("post", "/v1/custom-models/{model_id}/rollback"),
    }
