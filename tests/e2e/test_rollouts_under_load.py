"""Changes under constant load: 50,000 requests pass through each kind, and none is lost.

The counts are the load generator's, which is a process of its own; a change is repeated until as
many requests as that were answered while it went on.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import containers
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine
from tests.support.fastmodel import FAST_IMAGE, build_image
from tests.support.load import Counted, Load, constant_load

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = "custom_model"
REQUESTS = 50_000
CONNECTIONS = 9
CONCURRENCY = 3


@pytest.fixture(autouse=True)
def image(engine: PrivateEngine) -> None:
    """Have the fast model's image on the engine."""
    build_image(engine)


@pytest.fixture
def load(daemon: Daemon) -> Iterator[Callable[[], Load]]:
    """Give a maker of constant load on the daemon's model."""
    with contextlib.ExitStack() as made:
        yield lambda: made.enter_context(
            constant_load(daemon.socket, MODEL, connections=CONNECTIONS)
        )


def body(replicas: int, **environment: str) -> dict[str, object]:
    """Return the deploy request for the fast model."""
    return deploy_body(
        container_image=FAST_IMAGE,
        cpu="300m",  # less, and the kernel holds the model back
        min_replicas=replicas,
        environment={"TAG": "1", **environment},
        serving={"max_concurrency": CONCURRENCY, "queue_depth": 100},
    )


def pass_through(load: Load, change: Callable[[], object]) -> None:
    """Repeat a change until enough requests were answered from its first beginning on."""
    goal = load.counted.answered + REQUESTS
    while load.counted.answered < goal:
        change()


def assert_none_was_lost(counted: Counted) -> None:
    """Assert that every request was answered rightly, at the first attempt."""
    assert counted.failures == ()
    assert (counted.failed, counted.cut, counted.refused) == (0, 0, 0)
    assert counted.sent == counted.answered >= REQUESTS


def test_scaling_up_and_down_loses_no_request(daemon: Daemon, load: Callable[[], Load]) -> None:
    deployment = daemon.deploy(body(1))
    daemon.until_ready(deployment, 1)
    running = load()
    targets = itertools.cycle([3, 2, 4, 1])

    def scale() -> None:
        target = next(targets)
        daemon.scale(target)
        daemon.until_ready(deployment, target)

    pass_through(running, scale)

    counted = running.stop()
    assert_none_was_lost(counted)


def test_a_replica_killed_by_hand_fails_only_what_it_was_answering(
    daemon: Daemon, engine: PrivateEngine, load: Callable[[], Load]
) -> None:
    deployment = daemon.deploy(body(3))
    daemon.until_ready(deployment, 3)
    running = load()
    kills: list[tuple[float, float]] = []

    def kill_one() -> None:
        victim = containers.running(engine)[len(kills) % 3]
        began = time.monotonic()
        containers.kill(engine, victim)
        kills.append((began, time.monotonic()))
        daemon.until_event(deployment, "Exited")
        daemon.until_ready(deployment, 3)

    running.until_answered(1000)
    pass_through(running, kill_one)

    counted = running.stop()
    assert counted.sent == counted.answered + counted.failed >= REQUESTS
    assert (counted.wrong, counted.lost, counted.cut, counted.refused) == (0, 0, 0, 0)
    for began, ended in kills:
        hit = [one for one in counted.failures if one.began <= ended and one.ended >= began]
        assert len(hit) <= CONCURRENCY, hit
    assert not any("an not write" in one.text for one in counted.failures), "it was never sent"
    outside = [
        one
        for one in counted.failures
        if not any(one.began <= ended and one.ended >= began for began, ended in kills)
    ]
    assert outside == []
