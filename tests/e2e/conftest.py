"""One daemon for each module, on the session's engine; every test begins without models.

A module's `SETTINGS` (`section.key` and TOML values) are its daemon's, above the usual ones.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import Daemon, running_daemon
from tests.support.daemon_fixtures import docker_settings
from tests.support.engine import PrivateEngine
from tests.support.gpus import SteeredGpus
from tests.support.traffic import Traffic


@pytest.fixture(scope="module")
def module_gpus(tmp_path_factory: pytest.TempPathFactory) -> SteeredGpus:
    """Give a steered NVML with two T4 of 15 GiB."""
    steered = SteeredGpus(tmp_path_factory.mktemp("nvml"))
    steered.add("NVIDIA T4")
    steered.add("NVIDIA T4")
    return steered


@pytest.fixture
def gpus(module_gpus: SteeredGpus) -> Iterator[SteeredGpus]:
    """Give the module's GPUs, healthy, idle and free."""
    yield module_gpus
    module_gpus.recover()
    module_gpus.calm()


@pytest.fixture(scope="module")
def module_daemon(
    request: pytest.FixtureRequest,
    shared_engine: PrivateEngine,
    module_gpus: SteeredGpus,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Daemon]:
    """Give the module's daemon."""
    still = {"autoscale.interval_seconds": "3600"}  # only a test of it wants it to act
    settings = {
        **docker_settings(shared_engine),
        **still,
        **getattr(request.module, "SETTINGS", {}),
    }
    folder = tmp_path_factory.mktemp("daemon")
    with running_daemon(folder, settings, module_gpus.environment()) as started:
        yield started


@pytest.fixture
def daemon(engine: PrivateEngine, gpus: SteeredGpus, module_daemon: Daemon) -> Iterator[Daemon]:
    """Give the module's daemon, alive and without models."""
    module_daemon.begin_log()
    yield module_daemon
    engine.resume()
    module_daemon.ensure_started()
    module_daemon.remove_models()


@pytest.fixture
def traffic(daemon: Daemon) -> Iterator[Callable[..., Traffic]]:
    """Give a maker of traffic to a model of the daemon; what still runs at the end is stopped."""
    made: list[Traffic] = []

    def make(model: str, threads: int = 4, each: int = 200) -> Traffic:
        made.append(Traffic(daemon, model, threads, each))
        return made[-1].start()

    yield make
    for one in made:
        one.stop()
