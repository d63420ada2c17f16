"""The main job on the real engine, with steered GPUs: placed, served, scaled, refused, removed."""

import pytest

from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine
from tests.support.gpus import SteeredGpus

pytestmark = pytest.mark.engine


def test_two_replicas_get_two_different_gpus_and_a_third_is_refused_with_a_reason_per_gpu(
    daemon: Daemon, engine: PrivateEngine, gpus: SteeredGpus
) -> None:
    accepted = daemon.call("POST", "/v1/custom-models/deploy", deploy_body(gpu=1, min_replicas=2))

    assert accepted.status == 202, accepted
    assert accepted.json["status"] == "deploying"
    assert accepted.json["model_id"] == "custom_model"
    assert accepted.json["resource_allocation"]["gpu"] == "1 x NVIDIA T4"
    deployment = accepted.json["deployment_id"]
    status = daemon.until_ready(deployment, 2)
    assert status["status"] == "running"
    placed = [replica["gpu_uuids"] for replica in status["replica_details"]]
    assert sorted(uuid for uuids in placed for uuid in uuids) == sorted(gpus.gpus)
    seen = set()
    for _ in range(10):
        answer = daemon.call("POST", "/v1/models/custom_model/infer", {"inputs": {"text": "hello"}})
        assert answer.status == 200, answer
        seen.add(answer.json["outputs"]["gpus"])
    assert seen == set(gpus.gpus)

    scaled = daemon.call("POST", "/v1/custom-models/custom_model/scale", {"target_replicas": 3})

    assert scaled.status == 202, scaled
    assert len(scaled.json["reasons"]) >= 2
    status = daemon.until(
        "the third replica is refused in the status",
        lambda: (s := daemon.status(deployment))["reason"] == "Unplaceable" and s,
    )
    assert status["status"] == "degraded"
    assert status["replicas"] == {"desired": 3, "ready": 2, "available": 2}
    for uuid in gpus.gpus:
        assert any(uuid[:12] in reason for reason in scaled.json["reasons"]), scaled.json
        assert uuid[:12] in status["message"]
    with engine.client() as client:
        assert len(client.containers.list()) == 2
