"""The daemon ends, at once or in order: models go on, and the next one takes over exactly them."""

import json
import signal
import threading
import time
from collections.abc import Callable

import pytest

from tests.support import containers
from tests.support.daemon import Answer, Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine
from tests.support.gpus import SteeredGpus
from tests.support.traffic import Traffic

pytestmark = pytest.mark.engine
BACK_SECONDS = 4.0  # of processor time, so that a busy machine fails nobody; 2 are usual


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.4, 0.7, 1.2])
def test_killed_in_the_middle_of_a_deploy_it_finishes_it_without_doubles_orphans_or_strangers(
    daemon: Daemon, engine: PrivateEngine, gpus: SteeredGpus, delay: float
) -> None:
    with containers.foreign_containers(engine, daemon.instance):
        deployment = daemon.deploy(
            deploy_body(gpu=1, min_replicas=2, environment={"START_DELAY": "0.3"})
        )
        threading.Event().wait(delay)  # the moment of the kill is what is varied here
        daemon.kill()
        survived = set(containers.running(engine))
        daemon.start()
        took = daemon.processor_seconds()

        status = daemon.until_ready(deployment, 2)

        assert took < BACK_SECONDS
        now = containers.everything(engine)
        assert len(now) == 2 + 2, "two replicas, and the two foreign ones with prsmd's labels"
        assert survived <= set(now), "a container that ran was not adopted"
        assert sorted(one["slot"] for one in status["replica_details"]) == [0, 1]
        placed = [uuid for one in status["replica_details"] for uuid in one["gpu_uuids"]]
        assert sorted(placed) == sorted(gpus.gpus)
        assert daemon.infer().status == 200
        daemon.remove_models()
        assert len(containers.everything(engine)) == 2


def test_killed_during_traffic_its_containers_stay_and_only_its_absence_fails_requests(
    daemon: Daemon, engine: PrivateEngine, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=2))
    daemon.until_ready(deployment, 2)
    before = containers.running(engine)
    load = traffic("custom_model", threads=4, each=2000)
    load.until_answered(50)

    killed_at = time.monotonic()
    daemon.kill()
    assert containers.running(engine) == before
    daemon.start()
    back_at = time.monotonic()
    took = daemon.processor_seconds()
    load.until_answered(50)
    load.stop()

    assert took < BACK_SECONDS
    assert load.wrong == []
    outside = [one for one in load.failed if one.ended < killed_at or one.began > back_at]
    assert outside == []
    assert load.failed, "the kill did not interrupt anything: the test proves nothing"
    daemon.until_ready(deployment, 2)
    assert containers.running(engine) == before
    assert daemon.events(deployment, "Scheduled")[2:] == []


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.4])
def test_killed_in_the_middle_of_a_delete_it_finishes_it_and_touches_no_strangers(
    daemon: Daemon, engine: PrivateEngine, delay: float
) -> None:
    with containers.foreign_containers(engine, daemon.instance):
        # A model that ignores SIGTERM takes its grace to stop, so that the kill hits the stop.
        deployment = daemon.deploy(deploy_body(min_replicas=2, environment={"IGNORE_TERM": "1"}))
        daemon.until_ready(deployment, 2)
        assert daemon.call("DELETE", "/v1/custom-models/custom_model").status == 202
        threading.Event().wait(delay)
        daemon.kill()
        daemon.start()

        daemon.until(
            "the model is gone",
            lambda: daemon.call("GET", "/v1/custom-models/custom_model").status == 404,
        )
        assert len(containers.everything(engine)) == 2
        again = daemon.deploy(deploy_body())
        daemon.until_ready(again, 1)


def test_killed_while_a_killed_container_waits_for_its_replacement_it_still_replaces_it(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(deploy_body())
    daemon.until_ready(deployment, 1)
    daemon.kill()
    [container] = containers.running(engine)
    containers.kill(engine, container)

    daemon.start()

    assert "SIGKILL" in daemon.until_event(deployment, "Exited")["message"]
    daemon.until_ready(deployment, 1)
    assert len(containers.everything(engine)) == 1
    assert daemon.infer().status == 200


def test_on_sigterm_what_was_accepted_is_answered_and_the_next_daemon_adopts_the_same_containers(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(
        deploy_body(
            min_replicas=2,
            environment={"LATENCY": "1.5"},
            serving={"max_concurrency": 2, "queue_depth": 10},
        )
    )
    daemon.until_ready(deployment, 2)
    before = containers.running(engine)
    answers: list[Answer] = []
    clients = [
        threading.Thread(target=lambda: answers.append(daemon.infer()), daemon=True)
        for _ in range(6)  # four in flight, two in the queue
    ]
    for client in clients:
        client.start()

    def all_there() -> bool:
        metrics = daemon.status(deployment)["performance_metrics"]
        return bool(metrics["in_flight"] == 4 and metrics["queued"] == 2)

    daemon.until("four in flight and two in the queue", all_there)

    assert daemon.stop() == 0

    for client in clients:
        client.join(10)
    assert [answer.status for answer in answers] == [200] * 6
    assert containers.running(engine) == before
    daemon.start()
    status = daemon.until_ready(deployment, 2)
    assert containers.running(engine) == before
    assert status["status"] == "running"
    assert daemon.infer().status == 200


def test_the_next_daemon_serves_what_runs_from_its_first_second_while_the_engine_hangs(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(deploy_body())
    daemon.until_ready(deployment, 1)
    before = containers.running(engine)
    daemon.kill()
    engine.pause()

    daemon.start()

    assert daemon.infer(timeout=20).status == 200
    node = daemon.call("GET", "/v1/node").json
    assert node["runtime"]["reachable"] is False, json.dumps(node)
    engine.resume()
    daemon.until_ready(deployment, 1)
    assert containers.running(engine) == before
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(10) == 0
