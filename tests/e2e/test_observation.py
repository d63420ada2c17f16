"""What status, metrics, logs and events tell is what really happens in containers and on GPUs."""

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import containers
from tests.support.daemon import Daemon, UnixConnection
from tests.support.daemon_fixtures import deploy_body
from tests.support.gpus import SteeredGpus
from tests.support.traffic import Traffic

pytestmark = pytest.mark.engine


@contextlib.contextmanager
def event_stream(daemon: Daemon, path: str) -> Iterator[Iterator[Any]]:
    """Follow a stream of server-sent events; give their data as they come."""
    connection = UnixConnection(daemon.socket, 20)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Accept": "text/event-stream"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        yield _data(response)


def _data(response: http.client.HTTPResponse) -> Iterator[Any]:
    while line := response.readline():
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def metric(daemon: Daemon, name: str, *labels: str) -> float:
    """Return the sum of a metric's samples that carry all these labels."""
    answer = daemon.call("GET", "/metrics")
    assert answer.status == 200, answer
    lines = answer.raw.decode().splitlines()
    found = [line for line in lines if line.partition("{")[0].partition(" ")[0] == name]
    return sum(float(line.split()[-1]) for line in found if all(one in line for one in labels))


def test_status_tells_the_load_the_latency_and_the_use_of_cpu_memory_and_gpu_as_measured(
    daemon: Daemon, gpus: SteeredGpus, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(gpu=1, environment={"LATENCY": "0.05"}))
    uuid = daemon.until_ready(deployment, 1)["replica_details"][0]["gpu_uuids"][0]
    idle = next(other for other in gpus.gpus if other != uuid)
    gpus.change(uuid, utilization_percent=45)
    gpus.change(idle, utilization_percent=99)
    load = traffic("custom_model", threads=4, each=400)

    def measured() -> Any:
        status = daemon.status(deployment)
        usage, performance = status["resource_usage"], status["performance_metrics"]
        used = usage["cpu_percent"] and usage["memory_percent"] and usage["gpu_percent"] == 45
        asked = performance["in_flight"] and performance["requests_per_second"]
        return used and asked and status

    status = daemon.until("everything is measured", measured)

    usage, performance = status["resource_usage"], status["performance_metrics"]
    assert 0 < usage["cpu_percent"] <= 150
    assert 1 < usage["memory_percent"] < 100
    assert usage["gpu_percent"] == 45
    assert performance["requests_per_second"] > 0
    assert 50 <= performance["avg_latency_ms"] < 1000
    assert performance["error_rate"] == 0
    assert 1 <= performance["in_flight"] <= 4
    assert load.stop().failed == []


def test_metrics_count_every_request_by_its_outcome(
    daemon: Daemon, traffic: Callable[..., Traffic]
) -> None:
    good = daemon.deploy(deploy_body("company-good"))
    bad = daemon.deploy(deploy_body("company-bad", environment={"ERROR": "500"}))
    daemon.until_ready(good, 1)
    daemon.until_ready(bad, 1)

    load = traffic("custom_good", threads=2, each=25).finish()
    failed = [daemon.infer("custom_bad").status for _ in range(3)]

    assert load.failed == []
    assert failed == [502, 502, 502]
    requests = "prsmd_inference_requests_total"
    assert metric(daemon, requests, good, 'outcome="ok"') == 50
    assert metric(daemon, requests, good) == 50
    assert metric(daemon, requests, bad, 'outcome="provider_error"') == 3
    assert metric(daemon, "prsmd_inference_latency_seconds_count", good) == 50
    assert metric(daemon, "prsmd_deployment_replicas", good, 'kind="ready"') == 1
    assert metric(daemon, "prsmd_engine_reachable") == 1
    assert daemon.status(bad)["performance_metrics"]["error_rate"] == 1


def test_logs_are_the_containers_own_lines_the_last_ones_and_the_new_ones_as_they_come(
    daemon: Daemon,
) -> None:
    deployment = daemon.deploy(deploy_body(environment={"LOG_LINES": "30"}))
    status = daemon.until_ready(deployment, 1)
    endpoint = status["replica_details"][0]["endpoint"]
    path = f"/v1/custom-models/deployments/{deployment}/logs"

    tail = daemon.call("GET", f"{path}?tail=3").json["lines"]
    assert [line["text"] for line in tail] == ["line 28", "line 29", "listening"]
    assert {line["replica_id"] for line in tail} == {status["replica_details"][0]["replica_id"]}

    with event_stream(daemon, f"{path}?tail=1&follow=true") as lines:
        assert next(lines)["text"] == "listening"
        written = {"lines": ["to be or", "not to be"], "stream": "stderr"}
        containers.ask(endpoint, "POST", "/log", written)
        followed = [next(lines), next(lines)]
    assert [line["text"] for line in followed] == ["to be or", "not to be"]
    assert {line["stream"] for line in followed} == {"stderr"}


def test_the_logs_of_a_replica_that_crashed_are_there_beside_those_of_its_replacement(
    daemon: Daemon,
) -> None:
    deployment = daemon.deploy(deploy_body())
    crashed = daemon.until_ready(deployment, 1)["replica_details"][0]
    containers.ask(crashed["endpoint"], "POST", "/log", {"lines": ["last words"]})
    with contextlib.suppress(OSError, http.client.HTTPException):
        containers.ask(crashed["endpoint"], "POST", "/exit", {"code": 7})
    assert daemon.until_event(deployment, "Exited")["message"] == "exited with code 7"
    daemon.until_ready(deployment, 1)

    lines = daemon.call("GET", f"/v1/custom-models/deployments/{deployment}/logs").json["lines"]

    by_replica: dict[str, list[str]] = {}
    for line in lines:
        by_replica.setdefault(line["replica_id"], []).append(line["text"])
    assert by_replica.pop(crashed["replica_id"]) == ["listening", "last words"]
    assert list(by_replica.values()) == [["listening"]]


def test_events_tell_a_deployments_whole_life_and_a_follower_hears_each_once(
    daemon: Daemon,
) -> None:
    deployment = daemon.deploy(deploy_body())
    path = f"/v1/custom-models/deployments/{deployment}/events"
    reasons: list[str] = []
    with event_stream(daemon, path) as events:
        heard = []
        for event in events:
            heard.append(event)
            if event["reason"] == "Ready":
                break
        daemon.scale(2)
        for event in events:
            heard.append(event)
            reasons = [one["reason"] for one in heard]
            if reasons.count("Ready") == 2:
                break

    assert reasons == [
        *("Deployed", "Scheduled", "Started", "Ready"),
        *("ScaleRequested", "Scheduled", "Started", "Ready"),
    ]
    sequences = [event["sequence"] for event in heard]
    assert sequences == sorted(set(sequences))
    resumed = [event["sequence"] for event in daemon.events(deployment)]
    assert resumed == sequences
