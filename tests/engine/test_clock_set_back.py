"""Rows that were written while the clock was ahead hold nothing up once it has been set right."""

import asyncio

import pytest

from prsmd.domain.errors import StorageFullError
from prsmd.domain.replica import ExitKind, ReplicaState
from prsmd.store import future_times, rollouts
from prsmd.store.db import Tx
from tests.engine.harness import Life, World

YEAR = 365 * 86400.0


async def test_a_replica_that_began_while_the_clock_was_ahead_is_given_up_in_time(
    life: Life, world: World
) -> None:
    world.server.health = 503
    world.ahead = YEAR
    await life.deploy()
    await _until_one_is(life, ReplicaState.STARTING)
    world.ahead = 0.0
    await life.tick()
    [replica] = await life.active()
    assert replica.started_at is not None
    assert replica.created_at <= replica.started_at <= world.now()

    world.ahead = 4000.0
    await _until_one_is(life, ReplicaState.FAILED)

    [failed] = await life.replicas(ReplicaState.FAILED)
    assert failed.exit is not None
    assert failed.exit.kind is ExitKind.STARTUP_TIMEOUT


async def test_a_failure_that_is_still_to_come_does_not_end_the_wait_for_the_next_try(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    await life.settle()
    world.ahead = YEAR
    await _crash(life, world)
    world.ahead = 0.0
    for failures in (2, 3):
        await life.settle()
        assert await life.active() == [], "it was launched again without a wait"
        world.ahead += 400
        await life.settle()
        await _crash(life, world)
        assert len(await life.replicas(ReplicaState.FAILED)) == failures
    waits = [each for each in await life.events(deployment) if each.reason == "BackOff"]
    assert "failed 3 times in a row" in waits[-1].message


async def test_a_rollout_that_began_while_the_clock_was_ahead_began_by_now(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    await life.settle()
    world.ahead = YEAR
    await life.update({"TAG": "two"})
    await life.tick()
    world.ahead = 0.0
    await life.tick()

    async with life.database.read() as tx:
        [rollout] = await rollouts.list_for(tx, deployment)
    assert rollout.started_at <= world.now()
    await life.settle()
    [replica] = await life.active()
    assert replica.revision == 2


async def test_a_store_that_cannot_be_written_then_ends_no_tick(
    life: Life, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ahead = YEAR
    await life.deploy()
    await life.settle()
    world.ahead = 0.0

    async def full(tx: Tx, now: float) -> None:
        raise StorageFullError("The disk is full.")

    monkeypatch.setattr(future_times, "clamp", full)
    assert not await life.tick()
    [replica] = await life.active()
    assert replica.created_at > world.now()


async def _crash(life: Life, world: World) -> None:
    [replica] = await life.active()
    world.engine.crash(replica.id)
    await life.settle()


async def _until_one_is(life: Life, state: ReplicaState) -> None:
    """Tick again and again: that a probe goes on failing wakes nobody."""
    async with asyncio.timeout(60):
        while not await life.replicas(state):
            await life.tick()
            await asyncio.sleep(0.01)
