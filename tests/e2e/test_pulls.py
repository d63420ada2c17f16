"""Images that only a registry has: pulled, followed, pinned, and brought back as they were."""

import re
from collections.abc import Iterator

import pytest

from tests.support.containers import everything, kill, running
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import MODEL_IMAGE, PrivateEngine
from tests.support.registry import FaultyNetwork, PrivateRegistry, build_image, remove_image

pytestmark = pytest.mark.engine

REPOSITORY = "company/legal-analyzer"


@pytest.fixture(scope="module")
def pushed(shared_engine: PrivateEngine, registry: PrivateRegistry) -> str:
    """Push the test model with two layers of 4 MiB; return its digest."""
    build_image(shared_engine, "prsmd-test/pulled:1", base=MODEL_IMAGE)
    pinned = registry.push(shared_engine, "prsmd-test/pulled:1", REPOSITORY, "v2.1")
    remove_image(shared_engine, "prsmd-test/pulled:1")
    return pinned.partition("@")[2]


@pytest.fixture
def image(
    pushed: str, network: FaultyNetwork, daemon: Daemon, engine: PrivateEngine
) -> Iterator[str]:
    """Give the name by which an engine that does not have the image can pull it."""
    assert pushed
    name = f"127.0.0.1:{network.port}/{REPOSITORY}"
    yield f"{name}:v2.1"
    network.heal()
    daemon.remove_models()
    for reference in (f"{name}:v2.1", f"{name}@{pushed}"):
        remove_image(engine, reference)


def content(engine: PrivateEngine, reference: str) -> str:
    """Return the id of the image that a reference means on the engine now."""
    with engine.client() as client:
        return str(client.images.get(reference).id)


def content_of_container(engine: PrivateEngine, container_id: str) -> str:
    """Return the id of the image that a container was made from."""
    with engine.client() as client:
        return str(client.api.inspect_container(container_id)["Image"])


def move_tag(engine: PrivateEngine, image: str) -> None:
    """Let the tag mean another image on the engine."""
    with engine.client() as client:
        client.images.get(MODEL_IMAGE).tag(*image.rsplit(":", 1))


def deploy(daemon: Daemon, image: str) -> str:
    """Deploy the image, and return the deployment's id once it is ready."""
    deployment = daemon.deploy(deploy_body(container_image=image))
    daemon.until_ready(deployment, 1)
    return deployment


def test_a_deploy_of_an_image_that_is_not_here_shows_its_pull_and_then_runs(
    daemon: Daemon, network: FaultyNetwork, image: str, pushed: str
) -> None:
    network.slow(2 << 20)
    deployment = daemon.deploy(deploy_body(container_image=image))

    seen: list[str] = []

    def followed() -> bool:
        status = daemon.status(deployment)
        messages = [replica["message"] for replica in status["replica_details"]]
        seen.extend(text for text in messages if text.startswith("pulling ") and text not in seen)
        return bool(status["replicas"]["ready"] == 1)

    daemon.until("the pulled image runs", followed)

    shown = [re.fullmatch(rf"pulling {re.escape(image)}: (.+)", text) for text in seen]
    assert len({found[1] for found in shown if found and "of" in found[1]}) > 2, seen
    status = daemon.status(deployment)
    assert status["status"] == "running"
    assert status["image_digest"] == f"{image.removesuffix(':v2.1')}@{pushed}"


def test_once_something_was_pulled_and_started_the_next_deploy_is_estimated(
    daemon: Daemon, image: str
) -> None:
    deploy(daemon, image)
    body = deploy_body("another", container_image=image)
    answer = daemon.call("POST", "/v1/custom-models/deploy", body)
    estimate = answer.json["estimated_deployment_time"]
    assert re.fullmatch(r"\d+-\d+ (seconds|minutes)", estimate), answer


def test_the_replacement_of_a_killed_container_runs_what_was_deployed_though_its_tag_moved(
    daemon: Daemon, engine: PrivateEngine, image: str
) -> None:
    deployment = deploy(daemon, image)
    deployed = content(engine, image)
    (before,) = running(engine)
    move_tag(engine, image)
    assert content(engine, image) != deployed

    kill(engine, before)

    (after,) = daemon.until("a replacement", lambda: {*running(engine)} - {before})
    daemon.until_ready(deployment, 1)
    assert content_of_container(engine, after) == deployed


def test_an_image_that_went_away_comes_back_by_its_digest_though_its_tag_moved(
    daemon: Daemon, engine: PrivateEngine, image: str, pushed: str
) -> None:
    body = deploy_body(container_image=image, min_replicas=0)
    deployment = daemon.deploy(body)
    daemon.scale(1)
    daemon.until_ready(deployment, 1)
    deployed = content(engine, image)
    daemon.scale(0)
    daemon.until_ready(deployment, 0)
    daemon.until("no container", lambda: not everything(engine))
    pinned = f"{image.removesuffix(':v2.1')}@{pushed}"
    move_tag(engine, image)
    remove_image(engine, pinned)

    daemon.scale(1)

    daemon.until_ready(deployment, 1)
    (container,) = running(engine)
    assert content_of_container(engine, container) == deployed
    assert content(engine, image) != deployed  # the tag was left as it is


def test_a_registry_that_refuses_shows_in_the_status_and_is_tried_again(
    daemon: Daemon, network: FaultyNetwork, image: str
) -> None:
    network.cut_after(0)
    deployment = daemon.deploy(deploy_body(container_image=image))

    def told() -> bool:
        details = daemon.status(deployment)["replica_details"]
        return any("EOF" in replica["message"] for replica in details)

    daemon.until("the engine's words in the status", told)
    network.heal()
    daemon.until_ready(deployment, 1)


def test_a_pull_that_is_cut_is_tried_again_and_the_status_says_so(
    daemon: Daemon, network: FaultyNetwork, image: str
) -> None:
    network.cut_after(1 << 20)
    deployment = daemon.deploy(deploy_body(container_image=image))

    def tried_again() -> str | None:
        messages = [replica["message"] for replica in daemon.status(deployment)["replica_details"]]
        return next((text for text in messages if "attempt 2" in text), None)

    said = daemon.until("a second attempt", tried_again)
    assert re.search(r"attempt 2: the last one broke off: .*(EOF|reset)", said), said
    network.heal()
    daemon.until_ready(deployment, 1)
