"""The engine ends, is killed or hangs under the daemon: no doubles, and never a hung API."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import containers
from tests.support.daemon import Daemon, running_daemon
from tests.support.daemon_fixtures import deploy_body, docker_settings
from tests.support.engine import PrivateEngine
from tests.support.traffic import Traffic

pytestmark = pytest.mark.engine
ANSWERED_SECONDS = 2  # of a request that must not wait for the engine


@pytest.mark.parametrize("kill", [False, True], ids=["in order", "killed"])
def test_after_an_engine_restart_that_ended_the_containers_each_is_replaced_once(
    daemon: Daemon, engine: PrivateEngine, traffic: Callable[..., Traffic], *, kill: bool
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=2))
    daemon.until_ready(deployment, 2)
    before = containers.running(engine)
    load = traffic("custom_model", threads=2, each=2000)
    load.until_answered(10)

    engine.restart(kill=kill)

    daemon.until("the containers are seen to be gone", lambda: daemon.events(deployment, "Exited"))
    daemon.until_ready(deployment, 2)
    load.until_answered(20)
    load.stop()
    after = containers.everything(engine)
    assert len(after) == 2
    assert not set(before) & set(after)
    assert load.wrong == []
    assert {one.status for one in load.failed} <= {502, 503}
    assert daemon.status(deployment)["status"] == "running"


def test_while_the_engine_hangs_the_api_answers_at_once_and_inference_goes_on_and_nothing_changes(
    daemon: Daemon, engine: PrivateEngine, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body())
    daemon.until_ready(deployment, 1)
    before = containers.running(engine)
    load = traffic("custom_model", threads=2, each=4000)
    load.until_answered(10)

    engine.pause()

    def engine_is_missed() -> object:
        node = daemon.call("GET", "/v1/node", timeout=ANSWERED_SECONDS).json["runtime"]
        return not node["reachable"] and node

    node = daemon.until("the engine is missed", engine_is_missed)
    assert "did not answer" in node["error"]
    assert daemon.call("GET", "/readyz", timeout=ANSWERED_SECONDS).status == 503
    assert daemon.call("GET", "/healthz", timeout=ANSWERED_SECONDS).status == 200
    scaled = daemon.call(
        "POST",
        "/v1/custom-models/custom_model/scale",
        {"target_replicas": 2},
        timeout=ANSWERED_SECONDS,
    )
    assert scaled.status == 202
    path = f"/v1/custom-models/deployments/{deployment}"

    def told() -> object:
        status = daemon.call("GET", path, timeout=ANSWERED_SECONDS).json
        return status["reason"] == "EngineUnreachable" and status

    status = daemon.until("the reason is told", told)
    assert (
        "the container engine does not answer; nothing is launched until it does"
        in (status["message"])
    )
    assert status["replicas"] == {"desired": 2, "ready": 1, "available": 1}
    load.until_answered(50)

    engine.resume()

    daemon.until_ready(deployment, 2)
    load.until_answered(10)
    load.stop()
    assert load.failed == []
    now = containers.everything(engine)
    assert len(now) == 2
    assert set(before) < set(now)
    assert daemon.call("GET", "/readyz").status == 200


def test_a_deploy_and_a_delete_that_a_hanging_engine_delayed_are_done_when_it_answers_again(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    old = daemon.deploy(deploy_body("company-old"))
    daemon.until_ready(old, 1)
    engine.pause()
    accepted = daemon.call(
        "POST",
        "/v1/custom-models/deploy",
        deploy_body("company-new", min_replicas=2),
        timeout=ANSWERED_SECONDS,
    )
    deleted = daemon.call("DELETE", "/v1/custom-models/custom_old", timeout=ANSWERED_SECONDS)
    assert (accepted.status, deleted.status) == (202, 202)
    daemon.until(
        "the engine is missed",
        lambda: not daemon.call("GET", "/v1/node").json["runtime"]["reachable"],
    )
    assert daemon.status(accepted.json["deployment_id"])["reason"] != "Running"

    engine.resume()

    daemon.until_ready(accepted.json["deployment_id"], 2)
    daemon.until(
        "the old model is gone",
        lambda: daemon.call("GET", "/v1/custom-models/custom_old").status == 404,
    )
    assert len(containers.everything(engine)) == 2


def test_a_daemon_that_starts_before_its_engine_waits_for_it_instead_of_taking_another_runtime(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    settings = {**docker_settings(engine), "runtime.name": '"auto"'}
    with running_daemon(tmp_path, settings) as daemon:
        deployment = daemon.deploy(deploy_body())
        daemon.until_ready(deployment, 1)
        daemon.kill()
        engine.stop()
        try:
            daemon.start()
            runtime = daemon.call("GET", "/v1/node").json["runtime"]
            assert (runtime["name"], runtime["reachable"]) == ("docker", False)
            assert daemon.status(deployment)["replica_details"][0]["exit"] is None
        finally:
            engine.start()
        daemon.until_event(deployment, "Exited")
        daemon.until_ready(deployment, 1)
        assert len(containers.everything(engine)) == 1
