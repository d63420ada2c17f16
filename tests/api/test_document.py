"""Requests of the published document, sent as they stand; answers with all of its fields."""

import re

import pytest

from tests.api.conftest import Site
from tests.api.document import DEPLOYED, INFER, INFERRED, SCALE, SHARE, STATUS, missing
from tests.support.daemon import Daemon

MODEL = "custom_legal_analyzer_v2"


def test_deploy_answers_with_the_documents_fields_and_true_values(site: Site):
    accepted = site.accepted

    assert missing(DEPLOYED, accepted) == []
    assert re.fullmatch(r"deploy_[0-9a-z]+", accepted["deployment_id"])
    assert accepted["model_id"] == MODEL
    assert accepted["status"] == "deploying"
    address = f"http://127.0.0.1:{site.daemon.tcp_port}"
    assert accepted["endpoint_url"] == f"{address}/v1/models/{MODEL}/infer"
    assert accepted["resource_allocation"] == DEPLOYED["resource_allocation"]


def test_infer_answers_with_the_documents_fields(site: Site):
    answer = site.daemon.call("POST", f"/v1/models/{MODEL}/infer", INFER)

    assert answer.status == 200, answer
    assert answer.json["model_id"] == MODEL
    assert answer.json["metadata"]["model_version"] == "2.1.0"
    text = "This contract is made by and between today's ABC Corp and its parties"
    body = {**INFER, "inputs": {"text": text}}
    answer = site.daemon.call("POST", f"/v1/models/{MODEL}/infer", body)
    assert missing(INFERRED, answer.json) == []
    [party] = answer.json["outputs"]["entities"]
    assert party == {"type": "party", "text": "ABC Corp", "start": 45, "end": 53}


def test_status_answers_with_the_documents_fields(site: Site):
    site.daemon.call("POST", f"/v1/models/{MODEL}/infer", INFER)

    status = site.daemon.status(site.accepted["deployment_id"])

    assert missing(STATUS, status) == []
    assert (status["status"], status["health_status"]) == ("running", "healthy")
    assert status["replicas"] == {"desired": 1, "ready": 1, "available": 1}
    assert status["performance_metrics"]["requests_per_second"] > 0
    assert status["performance_metrics"]["avg_latency_ms"] > 0


def test_scale_accepts_the_documents_request_and_says_what_does_not_fit(site: Site):
    answer = site.daemon.call("POST", f"/v1/custom-models/{MODEL}/scale", SCALE)

    assert answer.status == 202, answer
    assert answer.json["target_replicas"] == 5
    assert answer.json["scaling_strategy"] == "gradual"
    assert any("GPU-" in reason for reason in answer.json["reasons"])
    back = site.daemon.call("POST", f"/v1/custom-models/{MODEL}/scale", {"target_replicas": 1})
    assert back.status == 202
    site.daemon.until_ready(site.accepted["deployment_id"], 1)


def test_sharing_takes_the_documents_request_and_shows_all_of_its_fields(site: Site):
    answer = site.daemon.call("POST", f"/v1/custom-models/{MODEL}/share", SHARE)

    assert answer.status == 201, answer
    assert missing(SHARE, answer.json) == []
    assert answer.json["usage_limits"].items() >= SHARE["usage_limits"].items()
    share = f"/v1/custom-models/{MODEL}/shares/{answer.json['share_id']}"
    assert site.daemon.call("DELETE", share).status == 200


def test_usage_is_told_by_day_organization_and_key_as_json_and_csv(site: Site):
    daemon, usage = site.daemon, f"/v1/custom-models/{MODEL}/usage"
    asked = daemon.call("POST", f"/v1/models/{MODEL}/infer", INFER, key=site.keys["invoker"])
    assert asked.status == 200
    key_id = site.keys["invoker"].split("_")[1]

    (row,) = [one for one in daemon.call("GET", usage).json["usage"] if one["key_id"] == key_id]
    assert row["organization"] == "company"
    assert row["model_id"] == MODEL
    assert row["requests"] >= 1
    assert row["errors"] == 0
    assert row["request_bytes"] > 0 < row["answer_bytes"]
    table = daemon.call("GET", f"{usage}?format=csv")
    head, *lines = table.raw.decode().splitlines()
    assert table.headers["Content-Type"].startswith("text/csv")
    assert head.split(",") == list(row)
    assert any(f",{key_id}," in line for line in lines)
    assert daemon.call("GET", f"{usage}?from=2001-01-01&to=2001-01-02").json["total"] == 0
    assert daemon.call("GET", f"{usage}?from=yesterday").status == 400
    assert daemon.call("GET", usage, key=site.other_key).status == 404


@pytest.mark.parametrize("name", [MODEL, "company-legal-analyzer-v2"])
def test_a_model_answers_to_its_id_and_to_its_name(site: Site, name):
    daemon: Daemon = site.daemon

    assert daemon.call("GET", f"/v1/custom-models/{name}").json["model_id"] == MODEL
    assert daemon.call("POST", f"/v1/models/{name}/infer", INFER).json["model_id"] == MODEL
