"""Replicas follow real load, say why, and stay where they are while telemetry is stale."""

from collections.abc import Callable

import pytest

from tests.support import containers
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine
from tests.support.gpus import SteeredGpus
from tests.support.traffic import Traffic

pytestmark = pytest.mark.engine
SETTINGS = {"autoscale.interval_seconds": "0.3", "gpus.deadline_seconds": "1"}
BUSY = {
    "environment": {"LATENCY": "0.2"},
    "serving": {"max_concurrency": 1},
    "max_replicas": 2,
    "target_utilization": 0.5,
}


def test_load_beyond_the_target_raises_the_replicas_up_to_the_maximum_and_says_why(
    daemon: Daemon, engine: PrivateEngine, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(**BUSY))
    daemon.until_ready(deployment, 1)
    load = traffic("custom_model", threads=4, each=300)

    daemon.until_ready(deployment, 2)

    status = daemon.until(
        "more is needed than the maximum",
        lambda: (
            "max_replicas is 2" in str((s := daemon.status(deployment))["autoscaling"]["held"])
            and s
        ),
    )
    load.stop()
    assert load.failed == []
    told = daemon.until_event(deployment, "Autoscaled")["message"]
    assert "1 → 2" in told
    assert "against target 50 %" in told
    assert status["autoscaling"]["recommended_replicas"] == 2
    assert status["autoscaling"]["reasons"]
    assert len(containers.running(engine)) == 2
    answered = {daemon.infer().json["metadata"]["replica_id"] for _ in range(6)}
    assert len(answered) == 2


def test_a_busy_gpu_raises_the_replicas_without_a_single_request(
    daemon: Daemon, gpus: SteeredGpus
) -> None:
    deployment = daemon.deploy(deploy_body(gpu=1, target_utilization=0.7))
    [uuid] = daemon.until_ready(deployment, 1)["replica_details"][0]["gpu_uuids"]

    gpus.change(uuid, utilization_percent=100)

    daemon.until_ready(deployment, 2)
    assert (
        "GPU 100 % against target 70 %" in (daemon.until_event(deployment, "Autoscaled")["message"])
    )


def test_stale_gpu_telemetry_holds_the_replicas_under_any_load_and_a_fresh_one_lets_go(
    daemon: Daemon, gpus: SteeredGpus, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(gpu=1, **BUSY))
    daemon.until_ready(deployment, 1)
    gpus.hang("nvmlDeviceGetMemoryInfo")
    daemon.until("telemetry is stale", lambda: daemon.call("GET", "/v1/gpus").json["stale_since"])

    load = traffic("custom_model", threads=4, each=10).finish()  # 8 s of full load

    assert load.failed == []
    assert daemon.events(deployment, "Autoscaled") == []
    status = daemon.status(deployment)
    assert status["replicas"] == {"desired": 1, "ready": 1, "available": 1}
    assert "GPU telemetry is stale" in status["autoscaling"]["held"]
    assert "holding at 1" in status["autoscaling"]["held"]

    gpus.recover()
    load = traffic("custom_model", threads=4, each=300)

    daemon.until_ready(deployment, 2)
    load.stop()
