"""How one revision takes over from another on the real engine, by each strategy, and goes back."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.traffic import Traffic

pytestmark = [pytest.mark.engine, pytest.mark.slow]
SETTINGS = {"images.pull_attempts": "2"}

MODEL = "/v1/custom-models/custom_model"
ENDS = {"completed", "rolled_back", "aborted", "superseded"}


def update(daemon: Daemon, environment: dict[str, str], **rollout: Any) -> dict[str, Any]:
    """Ask for a revision with this environment added; return the answer's body."""
    body: dict[str, Any] = {"deployment_config": {"environment": environment}}
    if rollout:
        body["rollout"] = rollout
    answer = daemon.call("PUT", MODEL, body)
    assert answer.status == 202, answer
    return dict(answer.json)


def rollout_of(daemon: Daemon) -> dict[str, Any]:
    """Return the latest rollout."""
    answer = daemon.call("GET", f"{MODEL}/rollout")
    assert answer.status == 200, answer
    return dict(answer.json["rollout"])


def until_phase(daemon: Daemon, phase: str, seconds: float = 60) -> dict[str, Any]:
    """Return the rollout once it is in that phase; any other end fails."""

    def there() -> dict[str, Any] | None:
        found = rollout_of(daemon)
        assert found["phase"] == phase or found["phase"] not in ENDS, found
        return found if found["phase"] == phase else None

    return dict(daemon.until(f"the rollout is {phase}", there, seconds))


def version(daemon: Daemon) -> str:
    """Return the version of the revision that answers."""
    answer = daemon.infer()
    assert answer.status == 200, answer
    return str(answer.json["metadata"]["model_version"])


def there(daemon: Daemon, deployment: str) -> list[tuple[int, str]]:
    """Return the revision and state of every active replica."""
    details = daemon.status(deployment)["replica_details"]
    return sorted((r["revision"], r["state"]) for r in details if r["finished_at"] is None)


def standing(daemon: Daemon, deployment: str) -> set[str]:
    """Return the ids of the active replicas."""
    details = daemon.status(deployment)["replica_details"]
    return {r["replica_id"] for r in details if r["finished_at"] is None}


def test_by_surge_the_new_revision_takes_over_beside_the_old_and_no_request_is_lost(
    daemon: Daemon, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=2))
    daemon.until_ready(deployment, 2)
    load = traffic("custom_model", each=5000)

    asked = update(daemon, {"TAG": "two"})

    assert (asked["revision"], asked["version"], asked["in_place"]) == (2, "1.0.1", False)
    until_phase(daemon, "completed")
    assert there(daemon, deployment) == [(2, "running"), (2, "running")]
    load.until_answered(20)
    assert not load.stop().failed
    assert version(daemon) == "1.0.1"
    assert daemon.status(deployment)["status"] == "running"


def test_on_full_gpus_one_replica_gives_way_at_a_time(
    daemon: Daemon, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(gpu=1, min_replicas=2))
    daemon.until_ready(deployment, 2)
    load = traffic("custom_model", each=5000)

    update(daemon, {"TAG": "two"})

    until_phase(daemon, "completed")
    assert there(daemon, deployment) == [(2, "running"), (2, "running")]
    assert not load.stop().failed
    gave_way = [e for e in daemon.events(deployment, "Draining") if "makes room" in e["message"]]
    assert len(gave_way) == 2, daemon.events(deployment)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"CRASH_AFTER": "0.1", "LOG_LINES": "3", "EXIT_CODE": "7"}, "exited with code 7"),
        ({"NEVER_READY": "1"}, "not ready within its startup timeout"),
    ],
    ids=["it crashes", "it never gets ready"],
)
def test_a_bad_revision_goes_back_by_itself_and_takes_no_good_replica_down(
    daemon: Daemon,
    traffic: Callable[..., Traffic],
    environment: dict[str, str],
    words: str,
) -> None:
    serving = {"startup_timeout_seconds": 4}
    deployment = daemon.deploy(deploy_body(min_replicas=2, serving=serving))
    ready = daemon.until_ready(deployment, 2)
    good = {r["replica_id"] for r in ready["replica_details"]}
    load = traffic("custom_model", each=5000)

    update(daemon, environment)

    ended = until_phase(daemon, "rolled_back")
    assert words in ended["outcome"]
    if "LOG_LINES" in environment:
        assert ended["evidence"], "the last lines that it logged"
    assert not load.stop().failed
    daemon.until("only the good ones are there", lambda: standing(daemon, deployment) == good)
    status = daemon.until_ready(deployment, 2)
    assert standing(daemon, deployment) == good
    assert status["revision"] == 1
    assert "was rolled back" in status["message"]
    daemon.until("it is calm", lambda: daemon.status(deployment)["status"] == "running")
    assert version(daemon) == "1.0.0"


def test_an_image_that_cannot_be_had_touches_nothing(daemon: Daemon) -> None:
    deployment = daemon.deploy(deploy_body(gpu=1, min_replicas=2))
    daemon.until_ready(deployment, 2)

    body = {"deployment_config": {"container_image": "localhost:1/no/such:1"}}
    assert daemon.call("PUT", MODEL, body).status == 202

    ended = until_phase(daemon, "rolled_back")
    assert "localhost:1/no/such:1" in ended["outcome"]
    assert not daemon.events(deployment, "Draining")
    assert there(daemon, deployment) == [(1, "running"), (1, "running")]


CANARY = {
    "strategy": "canary",
    "canary": {"steps": [20, 60]},
    "bake_seconds": 1.5,
    "gate": {"min_requests": 5},
}


def test_a_canary_takes_its_part_step_by_step_and_then_all(
    daemon: Daemon, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=2))
    daemon.until_ready(deployment, 2)
    load = traffic("custom_model", each=20000)

    update(daemon, {"TAG": "two"}, **{**CANARY, "promotion": "manual"})

    daemon.until("the second step flows", lambda: "60 %" in rollout_of(daemon)["waiting_for"])
    versions = [version(daemon) for _ in range(100)]
    assert 45 <= versions.count("1.0.1") <= 75
    daemon.until("it has passed", lambda: "passed" in rollout_of(daemon)["waiting_for"])
    metrics = daemon.call("GET", "/metrics").raw.decode()
    assert 'revision="2"} 60.0' in metrics.partition("prsmd_rollout_traffic_percent{")[2]
    assert daemon.call("POST", f"{MODEL}/rollout/promote").status == 200
    until_phase(daemon, "completed")
    assert not load.stop().failed
    assert there(daemon, deployment) == [(2, "running"), (2, "running")]


def test_a_canary_that_breaks_its_gate_goes_back_with_what_was_measured(
    daemon: Daemon, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=2))
    daemon.until_ready(deployment, 2)
    load = traffic("custom_model", each=20000)

    update(daemon, {"ERROR": "500"}, **CANARY)

    ended = until_phase(daemon, "rolled_back")
    assert "error rate" in ended["outcome"]
    assert any(line.startswith("on trial") for line in ended["evidence"])
    load.stop()
    assert 0 < len(load.failed) < 0.5 * len(load.sent), "only the canary's part"
    assert {version(daemon) for _ in range(20)} == {"1.0.0"}
    daemon.until(
        "the canary is gone",
        lambda: there(daemon, deployment) == [(1, "running"), (1, "running")],
    )


def test_blue_green_switches_at_once_when_all_are_ready(
    daemon: Daemon, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=2))
    daemon.until_ready(deployment, 2)
    load = traffic("custom_model", each=20000)

    update(
        daemon,
        {"TAG": "two"},
        strategy="blue_green",
        bake_seconds=2,
        gate={"min_requests": 5},
        promotion="manual",
    )

    switched = daemon.until_event(deployment, "TrialStep")
    assert "100 %" in switched["message"]
    daemon.until("the new answer", lambda: version(daemon) == "1.0.1")
    assert {version(daemon) for _ in range(20)} == {"1.0.1"}
    assert there(daemon, deployment).count((1, "running")) == 2, "kept while it bakes"
    daemon.until("it has passed", lambda: "passed" in rollout_of(daemon)["waiting_for"])
    daemon.call("POST", f"{MODEL}/rollout/promote")
    until_phase(daemon, "completed")
    assert not load.stop().failed
    assert there(daemon, deployment) == [(2, "running"), (2, "running")]


def test_a_shadow_gets_copies_answers_nobody_and_is_given_up_without_a_trace(
    daemon: Daemon, traffic: Callable[..., Traffic]
) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=1))
    daemon.until_ready(deployment, 1)
    load = traffic("custom_model", each=20000)

    update(
        daemon, {"ERROR": "500"}, strategy="shadow", gate={"min_requests": 5, "max_error_rate": 1}
    )

    daemon.until_event(deployment, "TrialStep")
    load.until_answered(100)
    assert {version(daemon) for _ in range(20)} == {"1.0.0"}
    assert daemon.call("POST", f"{MODEL}/rollout/abort").status == 200
    daemon.until("it is gone", lambda: there(daemon, deployment) == [(1, "running")])
    assert not load.stop().failed
    assert rollout_of(daemon)["phase"] == "aborted"


def test_a_rollout_is_paused_resumed_and_survives_the_daemon(daemon: Daemon) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=2))
    daemon.until_ready(deployment, 2)

    update(daemon, {"START_DELAY": "1"}, max_surge=1)
    assert daemon.call("POST", f"{MODEL}/rollout/pause").status == 200
    daemon.kill()
    daemon.start()

    daemon.until("it says so", lambda: "paused" in rollout_of(daemon)["waiting_for"])
    assert (1, "running") in there(daemon, deployment)
    assert daemon.call("POST", f"{MODEL}/rollout/resume").status == 200
    until_phase(daemon, "completed")
    assert there(daemon, deployment) == [(2, "running"), (2, "running")]


def test_a_rollback_is_a_new_revision_of_the_old_content(daemon: Daemon) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=1))
    daemon.until_ready(deployment, 1)
    update(daemon, {"TAG": "two"})
    until_phase(daemon, "completed")

    answer = daemon.call("POST", f"{MODEL}/rollback", {})

    assert answer.status == 202, answer
    assert (answer.json["revision"], answer.json["version"]) == (3, "1.0.0")
    until_phase(daemon, "completed")
    daemon.until("the old version answers", lambda: version(daemon) == "1.0.0")
    versions = daemon.call("GET", f"{MODEL}/versions").json["versions"]
    assert [one["revision"] for one in versions] == [3, 2, 1]


def test_limits_change_in_place(daemon: Daemon) -> None:
    deployment = daemon.deploy(deploy_body(min_replicas=1))
    before = daemon.until_ready(deployment, 1)

    body = {
        "deployment_config": {"serving": {"max_concurrency": 2}, "scaling": {"min_replicas": 1}}
    }
    answer = daemon.call("PUT", MODEL, body)

    assert (answer.status, answer.json["in_place"]) == (200, True)
    after = daemon.until_ready(deployment, 1)
    ids = [{r["replica_id"] for r in one["replica_details"]} for one in (before, after)]
    assert ids[0] == ids[1], "no new container"
    assert after["revision"] == 2


def test_gradual_scaling_goes_on_only_as_the_load_wants_it(
    daemon: Daemon, traffic: Callable[..., Traffic]
) -> None:
    serving = {"max_concurrency": 1}
    deployment = daemon.deploy(
        deploy_body(min_replicas=1, serving=serving, environment={"LATENCY": "0.05"})
    )
    daemon.until_ready(deployment, 1)
    body = {"target_replicas": 3, "scaling_strategy": "gradual"}

    assert daemon.call("POST", f"{MODEL}/scale", body).status == 202

    two = {"desired": 3, "ready": 2, "available": 2}
    daemon.until("the first step is taken", lambda: daemon.status(deployment)["replicas"] == two)
    assert "the step after 2 of 3" in daemon.status(deployment)["message"]
    load = traffic("custom_model", threads=6, each=20000)
    daemon.until_ready(deployment, 3)
    assert daemon.events(deployment, "ScaleStep")
    assert not load.stop().failed
