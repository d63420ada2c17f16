"""The daemon dies at every single point where it changes the store or the engine.

Whatever was half done, the next daemon brings rows and containers together again (invariant 3), and
what was acknowledged stays (invariant 2).
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from prsmd.domain.replica import ReplicaState
from prsmd.domain.rollout import RolloutStrategy
from tests.engine.harness import (
    Fuse,
    Life,
    ModelServer,
    World,
    assert_consistent,
    finished,
)

Scenario = Callable[[Life], Awaitable[None]]


async def launching(life: Life) -> None:
    await life.deploy(min_replicas=2)
    await life.settle()


async def failing(life: Life) -> None:
    first, _ = await life.active()
    life.world.engine.write_log(first.id, "last words")
    life.world.engine.crash(first.id)
    await life.settle()
    life.world.ahead += 10
    await life.settle()


async def shrinking(life: Life) -> None:
    await life.deploy()
    await life.scale(2)
    await life.settle()
    await life.scale(1)
    await life.settle()


async def deleting(life: Life) -> None:
    await life.delete()
    await life.settle()


async def half_made(life: Life) -> None:
    life.world.engine.leave_half_made()
    await life.deploy()
    await life.settle()


async def rolling(life: Life) -> None:
    await life.update({"TAG": "two"}, max_surge=1)
    await life.settle()


async def rolling_back(life: Life) -> None:
    life.world.engine.refuse_launches("there is no such command")
    await life.update({"TAG": "bad"})
    await life.until(lambda: _happened(life, "RolledBack"))
    life.world.engine.recover()
    await life.settle()


async def swapping(life: Life) -> None:
    await life.update({"TAG": "two"}, strategy=RolloutStrategy.BUFFERED_SWAP)
    await life.settle()


LAUNCHED = (failing, deleting, rolling, rolling_back, swapping)
"""What begins with replicas that run; the points of their launch are those of `launching`."""


async def _happened(life: Life, reason: str) -> bool:
    [deployment] = await life.deployments()
    return reason in await life.reasons(deployment.id)


@pytest.mark.parametrize(
    "scenario",
    [
        launching,
        failing,
        shrinking,
        deleting,
        half_made,
        pytest.param(rolling, marks=pytest.mark.slow),
        pytest.param(rolling_back, marks=pytest.mark.slow),
        pytest.param(swapping, marks=pytest.mark.slow),
    ],
)
async def test_after_a_crash_at_any_point_the_next_daemon_puts_everything_in_order(
    tmp_path: Path, scenario: Scenario
) -> None:
    server = ModelServer()
    await server.start()
    try:
        for point in itertools.count(1):
            world = World(tmp_path / str(point))
            world.server = server
            await world.gpus.start()
            world.engine.endpoint = lambda _: server.endpoint
            foreign = await world.put_foreign_container()
            where = await _crash_at(point, world, scenario)
            await _assert_order_returns(world, foreign, f"crash {where} ({point})")
            if where is None:
                assert point > 5, "the scenario crosses into the store and the engine"
                break
    finally:
        await server.close()


async def _crash_at(point: int, world: World, scenario: Scenario) -> str | None:
    """Run the scenario until the power is cut; return where that was, None if it never was."""
    fuse = Fuse()
    async with world.life(fuse) as life:
        if scenario in LAUNCHED:
            await launching(life)
        fuse.set(point)
        running = asyncio.ensure_future(scenario(life))
        cut = asyncio.ensure_future(fuse.blown.wait())
        await asyncio.wait([running, cut], return_when=asyncio.FIRST_COMPLETED)
        if running.done() and not fuse.blown.is_set():
            running.result()
        await finished(cut, *([] if running.done() else [running]))
    return fuse.passed[-1] if fuse.blown.is_set() else None


async def _assert_order_returns(world: World, foreign: str, crash: str) -> None:
    world.engine.recover()
    async with world.life() as life:
        await life.settle()
        await assert_consistent(life)
        world.ahead += 400  # any backoff is over
        await life.settle()
        await assert_consistent(life)
        wanted = sum(0 if one.deleting else one.asked_replicas for one in await life.deployments())
        running = await life.replicas(ReplicaState.RUNNING)
        assert len(running) == wanted, crash
        assert not [one for one in await life.deployments() if one.deleting], crash
        assert foreign in world.engine.containers(), crash
        failed = await life.replicas(ReplicaState.FAILED)
        assert all(row.exit is not None for row in failed), crash


class CutAt(Fuse):
    """Cuts the power at the first crossing of this name."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    async def cross(self, where: str) -> None:
        if where == self._where:
            self.blown.set()
        await super().cross(where)


async def test_crashes_in_a_row_while_launching_leave_nothing_behind(world: World) -> None:
    async with world.life() as life:
        await life.deploy(min_replicas=2)
    for where in ("before launch", "after launch", "after launch"):
        fuse = CutAt(where)
        async with world.life(fuse) as life:
            ticking = asyncio.ensure_future(life.settle())
            cut = asyncio.ensure_future(fuse.blown.wait())
            await asyncio.wait([ticking, cut], return_when=asyncio.FIRST_COMPLETED)
            await finished(ticking, cut)
    async with world.life() as life:
        await life.settle()
        await assert_consistent(life)
        assert len(await life.replicas(ReplicaState.RUNNING)) == 2


async def test_a_replica_that_started_before_a_long_outage_is_asked_before_it_is_given_up(
    world: World,
) -> None:
    async with world.life() as life:
        world.server.health = 503
        await life.deploy()
        await life.until(lambda: _is_starting(life))
    world.server.health = 200
    world.ahead += 3600
    async with world.life() as life:
        await life.settle()

        assert len(await life.replicas(ReplicaState.RUNNING)) == 1
        assert await life.replicas(ReplicaState.FAILED) == []


async def _is_starting(life: Life) -> bool:
    return bool(await life.replicas(ReplicaState.STARTING))
