"""Containers that end, hang, never start or take too much: replaced or refused, and said why."""

import pytest

from tests.support import containers
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine

pytestmark = pytest.mark.engine


def until_failed(daemon: Daemon, deployment: str) -> dict[str, object]:
    """Return the status as soon as it is `failed`."""
    found = daemon.until(
        "the deployment is failed",
        lambda: (s := daemon.status(deployment))["status"] == "failed" and s,
        40,
    )
    assert isinstance(found, dict)
    return found


def last_exit(status: dict[str, object]) -> dict[str, object]:
    """Return the exit of the newest replica that has one."""
    details = status["replica_details"]
    assert isinstance(details, list)
    exits = [replica["exit"] for replica in details if replica["exit"] is not None]
    assert exits, status
    return dict(exits[-1])


def test_a_container_killed_by_hand_is_replaced_after_a_pause_and_its_end_is_told(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(deploy_body())
    before = daemon.until_ready(deployment, 1)["replica_details"][0]["replica_id"]
    [killed] = containers.running(engine)

    containers.kill(engine, killed)

    cause = daemon.until_event(deployment, "Exited")
    assert cause["severity"] == "warning"
    assert cause["replica_id"] == before
    assert cause["message"] == "exited with code 137 (killed by SIGKILL)"
    assert (
        "failed, last: exited with code 137"
        in (daemon.until_event(deployment, "BackOff")["message"])
    )
    status = daemon.until_ready(deployment, 1)
    assert status["status"] == "running"
    assert status["replica_details"][0]["replica_id"] != before
    assert killed not in containers.everything(engine)
    assert len(containers.everything(engine)) == 1
    assert daemon.infer().status == 200


def test_a_container_killed_by_hand_is_seen_at_once_and_not_at_the_next_probe(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=2))
    daemon.until_ready(deployment, 2)
    victim = containers.running(engine)[0]

    containers.kill(engine, victim)

    status = daemon.until(
        "one of two is missing",
        lambda: (s := daemon.status(deployment))["replicas"]["ready"] == 1 and s,
    )
    assert status["status"] == "degraded"
    assert status["health_status"] == "degraded"
    assert [daemon.infer().status for _ in range(10)] == [200] * 10
    daemon.until_ready(deployment, 2)


def test_a_model_that_never_gets_ready_fails_with_its_last_log_lines_and_its_logs_stay(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(
        deploy_body(
            environment={"NEVER_READY": "1", "LOG_LINES": "40"},
            serving={"startup_timeout_seconds": 4},  # enough to listen on a busy machine
        )
    )

    status = until_failed(daemon, deployment)

    assert status["reason"] == "StartupTimeout"
    assert "/health answered 503" in str(status["message"])
    ended = last_exit(status)
    assert ended["kind"] == "startup_timeout"
    assert ended["log_tail"] == [*(f"line {number}" for number in range(21, 40)), "listening"]
    logs = daemon.call("GET", f"/v1/custom-models/deployments/{deployment}/logs?tail=1000")
    texts = [line["text"] for line in logs.json["lines"]]
    assert texts.count("line 0") >= 3, "the logs of ended replicas are gone"
    refused = daemon.infer()
    assert refused.status == 503
    assert "/health answered 503" in refused.json["message"]


def test_a_model_that_needs_more_memory_than_its_limit_says_so(daemon: Daemon) -> None:
    deployment = daemon.deploy(
        deploy_body(memory="48Mi", environment={"EAT_MEMORY": str(400 * 2**20)})
    )

    status = until_failed(daemon, deployment)

    assert status["reason"] == "OutOfMemory"
    assert "needed more than its memory limit of 48Mi" in str(status["message"])
    assert last_exit(status)["kind"] == "out_of_memory"


def test_a_model_that_exits_at_start_fails_with_its_code_and_last_lines(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(
        deploy_body(environment={"CRASH_AFTER": "0.1", "EXIT_CODE": "3", "LOG_LINES": "2"})
    )

    status = until_failed(daemon, deployment)

    assert status["reason"] == "Exited"
    assert "failed 3 times in a row, last: exited with code 3" in str(status["message"])
    ended = last_exit(status)
    assert ended["exit_code"] == 3
    assert list(ended["log_tail"])[:2] == ["line 0", "line 1"]  # type: ignore[call-overload]
    daemon.until("three pauses", lambda: len(daemon.events(deployment, "BackOff")) >= 3)
    assert len(containers.everything(engine)) <= 1


def test_a_missing_image_fails_at_once_and_names_it(daemon: Daemon, engine: PrivateEngine) -> None:
    deployment = daemon.deploy(deploy_body(container_image="prsmd-test/nowhere:9"))

    status = until_failed(daemon, deployment)

    assert status["reason"] == "ImageUnavailable"
    assert "prsmd-test/nowhere:9" in str(status["message"])
    assert last_exit(status)["kind"] == "image_unavailable"
    assert containers.everything(engine) == []


def test_a_model_that_listens_on_another_port_fails_and_names_the_port(daemon: Daemon) -> None:
    body = deploy_body(serving={"port": 8080, "startup_timeout_seconds": 1})
    config = body["deployment_config"]
    assert isinstance(config, dict)
    config["command"] = ["python3", "-m", "http.server", "7000"]

    status = until_failed(daemon, daemon.deploy(body))

    assert status["reason"] == "StartupTimeout"
    assert "nothing listens on port 8080" in str(status["message"])


def test_a_command_that_does_not_exist_fails_and_names_it(daemon: Daemon) -> None:
    body = deploy_body()
    config = body["deployment_config"]
    assert isinstance(config, dict)
    config["command"] = ["/no/such/program"]

    status = until_failed(daemon, daemon.deploy(body))

    ended = last_exit(status)
    assert ended["kind"] in {"launch_failed", "exited"}
    assert "/no/such/program" in f"{ended['message']} {ended['log_tail']}"


def test_a_model_that_ends_in_the_middle_of_a_request_fails_only_that_one_and_is_replaced(
    daemon: Daemon,
) -> None:
    deployment = daemon.deploy(
        deploy_body(min_replicas=2, environment={"CRASH_AFTER": "20 requests"})
    )
    worn = daemon.until_ready(deployment, 2)["replica_details"][0]
    for _ in range(20):
        containers.ask(worn["endpoint"], "POST", "/infer", {"inputs": 1})

    statuses = [daemon.infer().status for _ in range(15)]

    assert sorted(statuses) == [200] * 14 + [502]
    ended = daemon.until_event(deployment, "Exited")
    assert (ended["message"], ended["replica_id"]) == ("exited with code 1", worn["replica_id"])
    daemon.until_ready(deployment, 2)
    assert daemon.infer().status == 200
