"""GPUs that are taken, ill or unknown: nothing is placed on them, and each refusal says why."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prsmd.domain.quantity import GIB
from tests.support import containers
from tests.support.daemon import Daemon, running_daemon
from tests.support.daemon_fixtures import deploy_body, docker_settings
from tests.support.engine import PrivateEngine
from tests.support.gpus import SteeredGpus

pytestmark = pytest.mark.engine


@pytest.fixture
def gpus(tmp_path: Path) -> SteeredGpus:
    """Give two T4 of 15 GiB to each test anew: an ill GPU stays suspect for a while."""
    steered = SteeredGpus(tmp_path)
    steered.add("NVIDIA T4")
    steered.add("NVIDIA T4")
    return steered


@pytest.fixture
def daemon(engine: PrivateEngine, gpus: SteeredGpus, tmp_path: Path) -> Iterator[Daemon]:
    """Give each test a daemon of its own, whose driver has a second to answer."""
    settings = {**docker_settings(engine), "gpus.deadline_seconds": "1"}
    with running_daemon(tmp_path, settings, gpus.environment()) as started:
        yield started


def gpu_state(daemon: Daemon, uuid: str) -> dict[str, object]:
    """Return what the API tells of one GPU."""
    answer = daemon.call("GET", "/v1/gpus")
    assert answer.status == 200, answer
    return next(dict(gpu) for gpu in answer.json["gpus"] if gpu["uuid"] == uuid)


def until_held(daemon: Daemon, deployment: str) -> str:
    """Return the status message as soon as the deployment cannot be placed."""
    status = daemon.until(
        "the deployment cannot be placed",
        lambda: (s := daemon.status(deployment))["reason"] == "Unplaceable" and s,
    )
    return str(status["message"])


def test_a_gpu_whose_memory_a_stranger_uses_is_refused_until_it_is_free_again(
    daemon: Daemon, gpus: SteeredGpus, engine: PrivateEngine
) -> None:
    taken, free = gpus.gpus
    gpus.run(taken, 1, 6 * GIB)
    daemon.until("the stranger is seen", lambda: gpu_state(daemon, taken)["memory_strangers_bytes"])

    deployment = daemon.deploy(deploy_body(gpu=1, min_replicas=2))

    message = until_held(daemon, deployment)
    assert "6.0 GiB in use by processes that are not prsmd's" in message
    assert taken[:12] in message
    status = daemon.until_ready_at_least(deployment, 1)
    assert [one["gpu_uuids"] for one in status["replica_details"] if one["ready"]] == [[free]]

    gpus.end(taken, 1)

    status = daemon.until_ready(deployment, 2)
    assert {uuid for one in status["replica_details"] for uuid in one["gpu_uuids"]} == {taken, free}
    assert len(containers.running(engine)) == 2


def test_a_share_is_refused_for_the_memory_that_strangers_left_too_little_of(
    daemon: Daemon, gpus: SteeredGpus
) -> None:
    for uuid in gpus.gpus:
        gpus.run(uuid, 1, 10 * GIB)
    daemon.until(
        "the strangers are seen",
        lambda: all(gpu_state(daemon, uuid)["memory_strangers_bytes"] for uuid in gpus.gpus),
    )

    too_much = daemon.deploy(deploy_body("company-large", gpu="0.5", gpu_memory="8Gi"))
    fits = daemon.deploy(deploy_body("company-small", gpu="0.5", gpu_memory="4Gi"))

    assert "less than 8.0 GiB asked" in until_held(daemon, too_much)
    assert daemon.until_ready(fits, 1)["status"] == "running"


def test_a_lost_gpu_gets_no_replica_and_the_reason_is_told(
    daemon: Daemon, gpus: SteeredGpus
) -> None:
    lost, sound = gpus.gpus
    gpus.lose(lost)
    daemon.until("the GPU is ill", lambda: gpu_state(daemon, lost)["health"] != "healthy")

    deployment = daemon.deploy(deploy_body(gpu=1, min_replicas=2))

    message = until_held(daemon, deployment)
    assert lost[:12] in message
    assert "unhealthy" in message
    assert "lost" in message.lower()
    status = daemon.until_ready_at_least(deployment, 1)
    assert [one["gpu_uuids"] for one in status["replica_details"] if one["ready"]] == [[sound]]


def test_a_gpu_with_a_fatal_xid_error_gets_no_replica(daemon: Daemon, gpus: SteeredGpus) -> None:
    ill, sound = gpus.gpus
    gpus.xid(ill, 79)
    daemon.until("the GPU is ill", lambda: gpu_state(daemon, ill)["health"] != "healthy")
    assert 79 in gpu_state(daemon, ill)["xid_errors"]  # type: ignore[operator]

    deployment = daemon.deploy(deploy_body(gpu=1))

    status = daemon.until_ready(deployment, 1)
    assert status["replica_details"][0]["gpu_uuids"] == [sound]


def test_nothing_is_placed_on_gpus_by_a_driver_that_hangs_and_what_runs_goes_on(
    daemon: Daemon, gpus: SteeredGpus, engine: PrivateEngine
) -> None:
    running = daemon.deploy(deploy_body("company-first", gpu=1))
    daemon.until_ready(running, 1)
    before = containers.running(engine)
    gpus.hang("nvmlDeviceGetMemoryInfo")
    daemon.until(
        "the telemetry is stale", lambda: daemon.call("GET", "/v1/gpus").json["stale_since"]
    )

    held = daemon.deploy(deploy_body("company-second", gpu=1))
    without_gpu = daemon.deploy(deploy_body("company-third"))

    message = until_held(daemon, held)
    assert "GPUs are unknown" in message
    assert "did not answer within 1 s" in message
    daemon.until_ready(without_gpu, 1)
    assert daemon.status(running)["status"] == "running"
    assert daemon.infer("custom_first").status == 200
    assert set(before) < set(containers.running(engine))

    gpus.recover()

    daemon.until_ready(held, 1)
    assert len(containers.running(engine)) == 3
