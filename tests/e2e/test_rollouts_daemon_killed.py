"""The daemon dies under constant load and socket activation: nobody is refused, nothing is lost."""

import threading
from collections.abc import Iterator

import pytest

from tests.support import containers
from tests.support.daemon import ActivatedDaemon, Daemon, running_daemon
from tests.support.daemon_fixtures import deploy_body, docker_settings
from tests.support.engine import PrivateEngine
from tests.support.fastmodel import FAST_IMAGE, build_image
from tests.support.gpus import SteeredGpus
from tests.support.load import REQUESTS, constant_load
from tests.support.rollouts import MODEL, until_phase, update

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

CONNECTIONS = 8
FEW = 2  # leave the processor to the updates
BETWEEN_KILLS = 3_000
MOMENTS = [0.0, 0.2, 0.6, 1.2, 2.0]  # seconds after an update was accepted


@pytest.fixture(scope="module")
def module_daemon(
    shared_engine: PrivateEngine,
    module_gpus: SteeredGpus,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Daemon]:
    """Give a daemon whose listeners outlive it."""
    build_image(shared_engine)
    folder = tmp_path_factory.mktemp("activated")
    environment = module_gpus.environment()
    settings = {**docker_settings(shared_engine), "autoscale.interval_seconds": "3600"}
    with running_daemon(folder, settings, environment, ActivatedDaemon) as started:
        yield started


def body(replicas: int) -> dict[str, object]:
    """Return the deploy request for the fast model."""
    return deploy_body(
        container_image=FAST_IMAGE,
        cpu="300m",
        min_replicas=replicas,
        environment={"TAG": "1"},
        serving={"max_concurrency": 8, "queue_depth": 100},
    )


def test_killed_again_and_again_it_refuses_nobody_and_only_what_it_was_answering_is_cut(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(body(2))
    daemon.until_ready(deployment, 2)
    before = containers.running(engine)
    kills = 0
    with constant_load(daemon.socket, MODEL, connections=CONNECTIONS) as load:
        began = load.until_answered(1000).answered
        while load.counted.answered < began + REQUESTS:
            daemon.kill()
            kills += 1
            daemon.start()
            load.until_answered(BETWEEN_KILLS)
        counted = load.stop()

    assert counted.failures == ()
    assert counted.sent == counted.answered >= REQUESTS
    assert counted.refused == 0, "a connection was refused although the sockets were held"
    assert kills <= counted.cut <= kills * CONNECTIONS
    assert containers.running(engine) == before
    assert len(daemon.events(deployment, "Scheduled")) == 2


def test_killed_in_the_middle_of_updates_it_finishes_them_and_nothing_is_lost(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(body(2))
    daemon.until_ready(deployment, 2)
    with constant_load(daemon.socket, MODEL, connections=FEW) as load:
        load.until_answered(1000)
        for number, delay in enumerate(MOMENTS, 2):
            update(daemon, {"environment": {"TAG": str(number)}})
            threading.Event().wait(delay)  # the moment of the kill is what is varied here
            daemon.kill()
            daemon.start()
            until_phase(daemon, "completed")
            load.until_answered(500)
        counted = load.stop()

    assert counted.failures == ()
    assert counted.sent == counted.answered
    assert counted.refused == 0
    assert counted.cut <= len(MOMENTS) * FEW
    assert set(counted.tags) == {str(number) for number in range(1, len(MOMENTS) + 2)}
    daemon.until_ready(deployment, 2)
    assert len(containers.everything(engine)) == 2
