"""One GPU, one replica that fills it: an update swaps, requests wait meanwhile, nobody gets a 5xx.

The GPU's memory is steered: what a container held on it stays taken until the test says otherwise,
as with a driver that is late to give it back.
"""

from collections.abc import Iterator

import pytest

from prsmd.domain.quantity import GIB
from tests.support import containers
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine
from tests.support.fastmodel import FAST_IMAGE, build_image
from tests.support.gpus import SteeredGpus
from tests.support.load import Load, constant_load
from tests.support.rollouts import MODEL, until_phase, update

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(180)]

HELD = 12 * GIB
RATE = 200


@pytest.fixture(scope="module")
def module_gpus(tmp_path_factory: pytest.TempPathFactory) -> SteeredGpus:
    """Give a steered NVML with a single T4 of 15 GiB."""
    steered = SteeredGpus(tmp_path_factory.mktemp("nvml"))
    steered.add("NVIDIA T4")
    return steered


@pytest.fixture
def deployment(daemon: Daemon, engine: PrivateEngine) -> str:
    """Give a model whose one replica has the whole GPU."""
    build_image(engine)
    made = daemon.deploy(
        deploy_body(
            container_image=FAST_IMAGE,
            gpu=1,
            gpu_memory="12Gi",
            environment={"TAG": "1"},
            serving={"queue_depth": 1000, "request_timeout_seconds": 60},
        )
    )
    daemon.until_ready(made, 1)
    return made


@pytest.fixture
def load(daemon: Daemon, deployment: str) -> Iterator[Load]:
    """Give constant load on the model."""
    with constant_load(daemon.socket, MODEL, connections=16, rate=RATE) as running:
        running.until_answered(RATE)
        yield running


def assert_nothing_failed(load: Load) -> None:
    """Assert that every request was answered rightly in the end."""
    counted = load.stop()
    assert counted.failures == ()
    assert (counted.cut, counted.refused) == (0, 0)
    assert counted.sent == counted.answered


def test_an_update_swaps_and_requests_wait_without_a_single_5xx(
    daemon: Daemon, engine: PrivateEngine, gpus: SteeredGpus, load: Load
) -> None:
    [gpu] = gpus.gpus
    [before] = containers.running(engine)

    update(daemon, {"environment": {"TAG": "2"}})
    until_phase(daemon, "completed")

    after = load.until_answered(RATE)
    assert after.tags["2"] >= RATE
    assert_nothing_failed(load)
    [container] = containers.running(engine)
    assert container != before
    assert [one["gpu_uuids"] for one in replicas(daemon)] == [[gpu]]


def test_the_new_one_waits_until_the_memory_is_really_back_and_is_told_who_holds_it(
    daemon: Daemon, engine: PrivateEngine, gpus: SteeredGpus, deployment: str, load: Load
) -> None:
    [gpu] = gpus.gpus
    [before] = containers.running(engine)
    pid = containers.pid(engine, before)
    gpus.run(gpu, pid, HELD)
    daemon.until("the memory is seen", lambda: used(daemon) > HELD)

    update(daemon, {"environment": {"TAG": "2"}})
    daemon.until("the old one is gone", lambda: containers.everything(engine) == [])
    told = daemon.until("the holder is told", lambda: holder_in(daemon, deployment, pid))
    assert containers.everything(engine) == [], told
    gpus.end(gpu, pid)

    until_phase(daemon, "completed")
    load.until_answered(RATE)
    assert_nothing_failed(load)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"container_image": "prsmd-test/no-such-image:1"}, "no-such-image"),
        ({"environment": {"TAG": "bad", "EXIT_AT_START": "3"}}, "exit"),
        (
            {
                "environment": {"TAG": "bad", "NEVER_READY": "1"},
                "serving": {"startup_timeout_seconds": 3},
            },
            "503",
        ),
    ],
    ids=["cannot be had", "ends at start", "never gets ready"],
)
def test_a_bad_revision_ends_with_the_old_one_serving_and_no_request_fails(
    daemon: Daemon, load: Load, changes: dict[str, object], why: str
) -> None:
    update(daemon, changes)

    ended = until_phase(daemon, "rolled_back")

    assert why in str(ended).lower()
    before = load.counted
    after = load.until_answered(RATE)
    assert after.tags.get("1", 0) - before.tags.get("1", 0) >= RATE
    assert "bad" not in after.tags
    daemon.until("the old revision runs", lambda: len(replicas(daemon)) == 1)
    assert_nothing_failed(load)


def replicas(daemon: Daemon) -> list[dict[str, object]]:
    """Return the ready replicas of the model."""
    answer = daemon.call("GET", f"/v1/custom-models/{MODEL}")
    assert answer.status == 200, answer
    deployment = answer.json["deployment_id"]
    found = daemon.status(deployment)["replica_details"]
    return [one for one in found if one["ready"]]


def used(daemon: Daemon) -> int:
    """Return the bytes in use on the GPU, as the API tells them."""
    [gpu] = daemon.call("GET", "/v1/gpus").json["gpus"]
    return int(gpu["memory_used_bytes"])


def holder_in(daemon: Daemon, deployment: str, pid: int) -> str | None:
    """Return what status and events say of the process that holds the memory, once they do."""
    texts = [str(daemon.status(deployment)["message"])]
    texts += [str(event["message"]) for event in daemon.events(deployment)]
    return next((text for text in texts if f"pid {pid}" in text or f"process {pid}" in text), None)
