"""The daemon dies under constant load and socket activation: nobody is refused, nothing is lost."""

from collections.abc import Iterator

import pytest

from tests.support import containers
from tests.support.daemon import ActivatedDaemon, Daemon, running_daemon
from tests.support.daemon_fixtures import deploy_body, docker_settings
from tests.support.engine import PrivateEngine
from tests.support.fastmodel import FAST_IMAGE, build_image
from tests.support.gpus import SteeredGpus
from tests.support.load import constant_load

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(300)]

REQUESTS = 50_000
CONNECTIONS = 8
BETWEEN_KILLS = 6_000


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
    settings = docker_settings(shared_engine)
    with running_daemon(folder, settings, environment, ActivatedDaemon) as started:
        yield started


def test_killed_again_and_again_it_refuses_nobody_and_only_what_it_was_answering_is_cut(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    deployment = daemon.deploy(
        deploy_body(
            container_image=FAST_IMAGE,
            cpu="300m",
            min_replicas=2,
            environment={"TAG": "1"},
            serving={"max_concurrency": 8, "queue_depth": 100},
        )
    )
    daemon.until_ready(deployment, 2)
    before = containers.running(engine)
    kills = 0
    with constant_load(daemon.socket, "custom_model", connections=CONNECTIONS) as load:
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
