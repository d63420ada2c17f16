"""Requests under changes: scaling down, deleting and scaling up lose none that was accepted."""

import threading
from collections.abc import Callable

import pytest

from tests.support import containers
from tests.support.daemon import Answer, Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine
from tests.support.traffic import Traffic

pytestmark = pytest.mark.engine


def test_scaling_down_and_up_and_down_under_traffic_fails_no_request(
    daemon: Daemon, engine: PrivateEngine, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=1, environment={"LATENCY": "0.02"}))
    daemon.scale(3)
    daemon.until_ready(deployment, 3)
    load = traffic("custom_model", threads=4, each=200)
    load.until_answered(40)

    for target in (1, 2, 1):
        daemon.scale(target)
        daemon.until_ready(deployment, target)
        load.until_answered(20)

    load.finish()
    assert len(load.sent) == 800
    assert load.failed == []
    daemon.until("one container is left", lambda: len(containers.everything(engine)) == 1)


def test_a_replica_that_drains_answers_the_slow_request_that_it_had_accepted(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(
        deploy_body(min_replicas=1, environment={"LATENCY": "2"}, serving={"max_concurrency": 1})
    )
    daemon.scale(2)
    daemon.until_ready(deployment, 2)
    answers, clients = _ask_together(daemon, 2)
    daemon.until(
        "both replicas work",
        lambda: daemon.status(deployment)["performance_metrics"]["in_flight"] == 2,
    )

    daemon.scale(1)

    assert "only 1 replicas are wanted" in daemon.until_event(deployment, "Draining")["message"]
    assert len(containers.running(engine)) == 2, "a draining container was not waited for"
    for client in clients:
        client.join(20)
    assert [answer.status for answer in answers] == [200, 200]
    daemon.until("one container is left", lambda: len(containers.everything(engine)) == 1)


def test_a_delete_answers_what_was_accepted_and_refuses_what_comes_later(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(deploy_body(environment={"LATENCY": "1.5"}))
    daemon.until_ready(deployment, 1)
    answers, clients = _ask_together(daemon, 3)
    daemon.until(
        "three requests are in flight",
        lambda: daemon.status(deployment)["performance_metrics"]["in_flight"] == 3,
    )

    assert daemon.call("DELETE", "/v1/custom-models/custom_model").status == 202

    daemon.until("later requests are refused", lambda: daemon.infer().status in {404, 503})
    for client in clients:
        client.join(20)
    assert [answer.status for answer in answers] == [200, 200, 200]
    daemon.until("its container is gone", lambda: containers.everything(engine) == [])
    daemon.until("it is unknown", lambda: daemon.infer().status == 404)


def test_requests_beyond_slots_and_queue_are_refused_with_429_and_the_others_answered(
    daemon: Daemon,
) -> None:
    deployment = daemon.deploy(
        deploy_body(
            environment={"LATENCY": "0.5"}, serving={"max_concurrency": 1, "queue_depth": 2}
        )
    )
    daemon.until_ready(deployment, 1)

    answers, clients = _ask_together(daemon, 8)
    for client in clients:
        client.join(20)

    statuses = sorted(answer.status for answer in answers)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 3
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.json["error"]["code"] == "QUEUE_FULL"
    assert int(refused.headers["Retry-After"]) >= 1


def _ask_together(daemon: Daemon, count: int) -> tuple[list[Answer], list[threading.Thread]]:
    answers: list[Answer] = []
    clients = [
        threading.Thread(target=lambda: answers.append(daemon.infer()), daemon=True)
        for _ in range(count)
    ]
    for client in clients:
        client.start()
    return answers, clients
