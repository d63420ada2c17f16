"""Changes under constant load: thousands of requests pass through each kind, and none is lost.

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
from tests.support.load import REQUESTS, Counted, Load, constant_load
from tests.support.rollouts import roll_back, steer, until_phase, update

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

MODEL = "custom_model"
CONNECTIONS = 24
CONCURRENCY = 8
# Some requests take so long that at every moment some are under way: a drain has to wait for them.
SLOW = {"SLOW_EVERY": "200", "SLOW_MS": "300"}
BETWEEN_SCALINGS = 1_000
MOST_KILLS = 5  # more of them in a row, and the replica waits longer and longer to come back
# The machine is shared, so latencies say little here; test_strategies has the gates.
LENIENT = {"max_error_rate": 0.0, "max_latency_ratio": 1000, "min_requests": 20}


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


def body(replicas: int) -> dict[str, object]:
    """Return the deploy request for the fast model."""
    return deploy_body(
        container_image=FAST_IMAGE,
        cpu="300m",  # less, and the kernel holds the model back
        min_replicas=replicas,
        environment={"TAG": "1", **SLOW},
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


def until_flowing(daemon: Daemon, load: Load, tag: str) -> None:
    """Return when answers with a tag come in."""
    daemon.until(f"answers come from {tag}", lambda: load.counted.tags.get(tag, 0) > 0)


def assert_only_answers(load: Load, tag: str) -> None:
    """Assert that from now on every answer has this tag."""
    before = load.until_answered(CONNECTIONS).tags  # what was under way has come in
    after = load.until_answered(300).tags
    grown = {name for name, count in after.items() if count > before.get(name, 0)}
    assert grown == {tag}


def assert_a_part_answers(load: Load, tag: str, part: float) -> None:
    """Assert that this part of the answers has the tag, give or take what is under way."""
    before = load.until_answered(CONNECTIONS)
    after = load.until_answered(2000)
    of_tag = after.tags.get(tag, 0) - before.tags.get(tag, 0)
    assert abs(of_tag - part * (after.answered - before.answered)) <= 2 * CONNECTIONS


def test_updating_loses_no_request_and_ends_with_the_new_revision_alone(
    daemon: Daemon, load: Callable[[], Load]
) -> None:
    deployment = daemon.deploy(body(2))
    daemon.until_ready(deployment, 2)
    running = load()
    tags = itertools.count(2)

    def roll_out() -> None:
        tag = str(next(tags))
        update(daemon, {"environment": {"TAG": tag}})
        until_phase(daemon, "completed")
        assert_only_answers(running, tag)

    pass_through(running, roll_out)

    assert_none_was_lost(running.stop())


def test_rolling_back_loses_no_request_and_goes_back_and_forth_between_the_good_ones(
    daemon: Daemon, load: Callable[[], Load]
) -> None:
    deployment = daemon.deploy(body(2))
    daemon.until_ready(deployment, 2)
    update(daemon, {"environment": {"TAG": "2"}})
    until_phase(daemon, "completed")
    running = load()
    tags = itertools.cycle(["1", "2"])

    def go_back() -> None:
        roll_back(daemon)
        until_phase(daemon, "completed")
        assert_only_answers(running, next(tags))

    pass_through(running, go_back)

    assert_none_was_lost(running.stop())


def test_canaries_that_are_promoted_by_their_gate_or_by_hand_lose_no_request(
    daemon: Daemon, load: Callable[[], Load]
) -> None:
    deployment = daemon.deploy(body(2))
    daemon.until_ready(deployment, 2)
    running = load()
    tags = itertools.count(2)

    def promote() -> None:
        tag = str(next(tags))
        by_hand = int(tag) % 2 == 1
        canary = {"steps": [10, 50]}
        promotion = "manual" if by_hand else "auto"
        update(
            daemon,
            {"environment": {"TAG": tag}},
            strategy="canary",
            canary=canary,
            bake_seconds=1,
            promotion=promotion,
            gate=LENIENT,
        )
        if by_hand:
            until_phase(daemon, "trying")
            until_flowing(daemon, running, tag)
            steer(daemon, "promote")
        until_phase(daemon, "completed")
        assert_only_answers(running, tag)

    pass_through(running, promote)

    assert_none_was_lost(running.stop())


def test_canaries_that_are_aborted_lose_no_request_and_the_stable_revision_goes_on(
    daemon: Daemon, engine: PrivateEngine, load: Callable[[], Load]
) -> None:
    deployment = daemon.deploy(body(2))
    daemon.until_ready(deployment, 2)
    stable = containers.running(engine)
    running = load()
    tags = itertools.count(2)

    def abort() -> None:
        tag = str(next(tags))
        update(
            daemon,
            {"environment": {"TAG": tag}},
            strategy="canary",
            canary={"steps": [20]},
            bake_seconds=3600,
            gate=LENIENT,
        )
        until_phase(daemon, "trying")
        until_flowing(daemon, running, tag)
        assert_a_part_answers(running, tag, 0.20)
        steer(daemon, "abort")
        until_phase(daemon, "aborted")
        daemon.until("the canary is gone", lambda: containers.everything(engine) == stable)
        assert_only_answers(running, "1")

    pass_through(running, abort)

    assert_none_was_lost(running.stop())
    assert containers.running(engine) == stable, "a good replica was touched"


def test_scaling_up_and_down_loses_no_request(daemon: Daemon, load: Callable[[], Load]) -> None:
    deployment = daemon.deploy(body(1))
    daemon.until_ready(deployment, 1)
    running = load()
    targets = itertools.cycle([3, 2, 4, 1])

    def scale() -> None:
        target = next(targets)
        daemon.scale(target)
        daemon.until_ready(deployment, target)
        running.until_answered(BETWEEN_SCALINGS)  # else starting containers is all there is

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
        if len(kills) == MOST_KILLS:
            running.until_answered(1000)
            return
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
