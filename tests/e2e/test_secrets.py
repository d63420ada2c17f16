"""Secrets on a real engine: they reach their container, no other place, and outlive nothing."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import containers
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine

pytestmark = pytest.mark.engine
CANARY = "canary-4711-correct-horse-battery"


@pytest.fixture
def token(daemon: Daemon) -> Iterator[str]:
    """Give the name of a secret that holds the canary."""
    answer = daemon.call("PUT", "/v1/secrets/token", {"value": CANARY})
    assert answer.status in {200, 201}, answer
    yield "token"
    daemon.ensure_started()
    daemon.remove_models()
    daemon.call("DELETE", "/v1/secrets/token?force=true")


def folders(daemon: Daemon, engine: PrivateEngine) -> list[Path]:
    """Return the folders of secrets on the host."""
    mine = engine.secrets_dir / daemon.instance
    return sorted(mine.iterdir()) if mine.exists() else []


def places_with(needle: str, *roots: Path) -> list[Path]:
    """Return every file under these folders that holds the text."""
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return [path for path in files if needle.encode() in path.read_bytes()]


def test_a_secret_is_in_its_container_and_nowhere_else(
    daemon: Daemon, engine: PrivateEngine, token: str
) -> None:
    deployment = daemon.deploy(deploy_body(secrets={"TOKEN": token}))
    endpoint = daemon.until_ready(deployment, 1)["replica_details"][0]["endpoint"]

    seen = containers.ask(endpoint, "POST", "/read", {"path": "/run/secrets/TOKEN"})
    environment = containers.ask(endpoint, "GET", "/environment")

    assert seen == {"text": CANARY, "mode": "444"}
    assert environment["TOKEN_FILE"] == "/run/secrets/TOKEN"
    assert CANARY not in json.dumps(environment)
    assert CANARY not in containers.ask(endpoint, "GET", "/limits")["mounts"]
    with engine.client() as client:
        (found,) = containers.running(engine)
        assert CANARY not in json.dumps(client.api.inspect_container(found))
        image = client.containers.get(found).image
        assert CANARY not in json.dumps(image.attrs) + json.dumps(image.history())
    for path in (
        *("/v1/secrets", "/v1/custom-models/custom_model", "/metrics", "/v1/node"),
        *(f"/v1/custom-models/deployments/{deployment}{more}" for more in ("", "/events", "/logs")),
        "/v1/custom-models/custom_model/versions",
    ):
        answer = daemon.call("GET", path)
        assert answer.status == 200, answer
        assert CANARY.encode() not in answer.raw
    assert places_with(CANARY, daemon.folder) == []  # its state, and its log
    assert places_with(CANARY, engine.folder / "data" / "containers") == []
    assert CANARY not in engine.log


def test_a_daemon_that_crashes_writes_no_core_with_what_it_knows(daemon: Daemon) -> None:
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]


def test_a_value_that_a_model_misuses_is_at_least_not_ours_to_spread(
    daemon: Daemon, engine: PrivateEngine, token: str
) -> None:
    body = deploy_body(secrets={"TOKEN": {"name": token, "as": "environment"}})
    deployment = daemon.deploy(body)
    endpoint = daemon.until_ready(deployment, 1)["replica_details"][0]["endpoint"]

    assert containers.ask(endpoint, "GET", "/environment")["TOKEN"] == CANARY
    assert folders(daemon, engine) == []
    assert places_with(CANARY, daemon.folder) == []  # but an inspect shows it: that was asked for


def test_secrets_go_with_their_containers(
    daemon: Daemon, engine: PrivateEngine, token: str
) -> None:
    deployment = daemon.deploy(deploy_body(secrets={"TOKEN": token}, min_replicas=2))
    daemon.until_ready(deployment, 2)
    assert len(folders(daemon, engine)) == 2

    daemon.remove_models()

    daemon.until("no folder left", lambda: folders(daemon, engine) == [])


def test_a_daemon_that_is_killed_leaves_running_models_their_secrets_and_nothing_else(
    daemon: Daemon, engine: PrivateEngine, token: str
) -> None:
    deployment = daemon.deploy(deploy_body(secrets={"TOKEN": token}))
    endpoint = daemon.until_ready(deployment, 1)["replica_details"][0]["endpoint"]
    daemon.kill()
    assert len(folders(daemon, engine)) == 1
    orphan = engine.secrets_dir / daemon.instance / "gone-r1-s0-x.0011223344556677"
    orphan.mkdir()
    (orphan / "TOKEN").write_text(CANARY)

    daemon.start()

    daemon.until("the orphan is gone", lambda: not orphan.exists())
    daemon.until_ready(deployment, 1)
    read = {"path": "/run/secrets/TOKEN"}
    assert containers.ask(endpoint, "POST", "/read", read)["text"] == CANARY
    assert len(folders(daemon, engine)) == 1


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3])
def test_a_daemon_that_is_killed_in_the_middle_of_launches_leaves_nothing_behind(
    daemon: Daemon, engine: PrivateEngine, token: str, after: float
) -> None:
    deployment = daemon.deploy(deploy_body(secrets={"TOKEN": token}, min_replicas=4))
    threading.Event().wait(after)
    daemon.kill()

    daemon.start()

    daemon.until_ready(deployment, 4, 60)
    daemon.until("a folder each", lambda: len(folders(daemon, engine)) == 4)
    assert len(containers.everything(engine)) == 4
    daemon.remove_models()
    daemon.until("no folder left", lambda: folders(daemon, engine) == [])
    assert containers.everything(engine) == []


def test_a_missing_secret_is_told_at_once(daemon: Daemon) -> None:
    answer = daemon.call(
        "POST", "/v1/custom-models/deploy", deploy_body(secrets={"TOKEN": "no-such"})
    )
    assert answer.status == 409
    assert "company has no secret no-such" in answer.json["message"]
