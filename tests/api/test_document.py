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


@pytest.mark.parametrize(("method", "path", "body"), [("POST", "/share", SHARE)], ids=["share"])
def test_what_this_version_does_not_serve_is_refused_in_words(site: Site, method, path, body):
    before = site.state()

    answer = site.daemon.call(method, f"/v1/custom-models/{MODEL}{path}", body)

    assert answer.status in {404, 405}
    assert answer.json["error"]["code"] in {"NOT_FOUND", "METHOD_NOT_ALLOWED"}
    assert site.state() == before


@pytest.mark.parametrize("name", [MODEL, "company-legal-analyzer-v2"])
def test_a_model_answers_to_its_id_and_to_its_name(site: Site, name):
    daemon: Daemon = site.daemon

    assert daemon.call("GET", f"/v1/custom-models/{name}").json["model_id"] == MODEL
    assert daemon.call("POST", f"/v1/models/{name}/infer", INFER).json["model_id"] == MODEL
