"""A broken engine or a full disk costs time and a log line, never a spin, a leak or a lost log."""

import asyncio
import logging

import pytest

from prsmd.domain.errors import StorageFullError
from prsmd.domain.replica import ExitKind, ReplicaState
from tests.engine.harness import Life, World, assert_consistent, spec
from tests.gateway.backends import until


class FullDisk:
    """Lets writes of a life's store fail, from the n-th on, until there is room again."""

    def __init__(self, life: Life, *, after: int = 0) -> None:
        self._life = life
        self._left = after
        self.refused = 0
        self._crossing = life.fuse.cross
        life.fuse.cross = self._cross  # type: ignore[method-assign]

    def make_room(self) -> None:
        self._life.fuse.cross = self._crossing  # type: ignore[method-assign]

    async def _cross(self, where: str) -> None:
        if where == "before write":
            self._left -= 1
            if self._left < 0:
                self.refused += 1
                raise StorageFullError("the disk is full")
        await self._crossing(where)


@pytest.mark.parametrize("room_for", range(6))
async def test_a_disk_that_fills_up_during_a_deploy_delays_it_and_breaks_nothing(
    life: Life, room_for: int
) -> None:
    await life.deploy(min_replicas=2)
    disk = FullDisk(life, after=room_for)
    await life.until(lambda: _refused(disk, 3))

    disk.make_room()
    await life.settle()

    assert len(await life.replicas(ReplicaState.RUNNING)) == 2
    await assert_consistent(life)


@pytest.mark.parametrize("room_for", range(4))
async def test_a_disk_that_fills_up_during_a_deletion_delays_it_and_breaks_nothing(
    life: Life, world: World, room_for: int
) -> None:
    await life.deploy(min_replicas=2)
    await life.settle()
    await life.delete()
    disk = FullDisk(life, after=room_for)
    await life.until(lambda: _refused(disk, 2))

    disk.make_room()
    await life.settle()

    assert await life.deployments() == []
    assert world.engine.containers() == {}


async def test_what_is_held_back_on_a_full_disk_ends_no_tick_and_is_told_once_there_is_room(
    life: Life, world: World
) -> None:
    world.gpus.add("GPU-aaaa")
    deployment = await life.deploy(given=spec(gpu_millis=1000))
    await life.settle()
    await life.scale(2)
    disk = FullDisk(life)
    for _ in range(2):
        await life.tick()
    assert disk.refused == 2
    assert [hold.kind for hold in life.appliance.reconciler.holds] == ["unplaceable"]

    disk.make_room()
    for _ in range(2):
        await life.tick()
    assert (await life.reasons(deployment)).count("Unplaceable") == 1


async def test_logs_that_were_kept_survive_a_second_attempt_without_a_container(
    life: Life, world: World
) -> None:
    await life.deploy()
    await life.settle()
    [replica] = await life.active()
    world.engine.write_log(replica.id, "why it died")
    world.engine.crash(replica.id)
    disk = FullDisk(life)
    await life.until(lambda: _refused(disk, 2))
    assert world.engine.containers() == {}, "stopped, but its row could not be ended"

    disk.make_room()
    await life.settle()

    [failed] = await life.replicas(ReplicaState.FAILED)
    assert failed.exit is not None
    assert failed.exit.log_tail == ("why it died",)
    kept = await life.appliance.parts.archive.read(failed.id)
    assert [line.text for line in kept] == ["why it died"]


async def test_a_stop_that_the_engine_refuses_is_tried_until_it_works(
    life: Life, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await life.deploy()
    await life.settle()
    [replica] = await life.active()
    world.engine.refuse_stops("device or resource busy")
    await life.delete()
    await life.until(lambda: _called(world, "stop", 3))

    assert [row.state for row in await life.active()] == [ReplicaState.DRAINING]
    assert f"stop:{replica.id} not done" in caplog.text
    assert "device or resource busy" in caplog.text
    world.engine.recover()
    await life.settle()
    assert world.engine.containers() == {}


async def test_a_launch_that_the_engine_refuses_fails_the_replica_with_the_engines_words(
    life: Life, world: World
) -> None:
    world.engine.refuse_launches("no space left on device")
    await life.deploy()
    await life.settle()

    [failed] = await life.replicas(ReplicaState.FAILED)
    assert failed.exit is not None
    assert failed.exit.kind is ExitKind.LAUNCH_FAILED
    assert "no space left on device" in failed.exit.message


async def test_a_container_that_was_made_and_not_started_is_removed(
    life: Life, world: World
) -> None:
    world.engine.leave_half_made()
    await life.deploy()
    await life.settle()

    assert world.engine.containers() == {}
    assert [row.exit.kind for row in await life.replicas() if row.exit] == [ExitKind.LAUNCH_FAILED]


async def test_an_engine_that_goes_away_during_a_launch_says_nothing_about_the_replica(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    world.engine.become_slow(3600)
    await life.until(lambda: _called(world, "launch", 1))
    [replica] = await life.active()
    world.engine.become_unreachable()
    await life.appliance.parts.executor._slow.cancel(replica.id)
    await life.tick()
    assert [row.state for row in await life.active()] == [ReplicaState.PENDING]

    world.engine.recover()
    await life.settle()

    [running] = await life.active()
    assert (running.id, running.state) == (replica.id, ReplicaState.RUNNING)
    assert (await life.reasons(deployment)).count("Resumed") == 1


async def test_one_action_that_breaks_does_not_keep_the_others_from_being_done(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    executor = life.appliance.parts.executor
    launch, broken = executor._steps[_launch_type()], []

    async def breaks_once(action: object) -> None:
        if not broken:
            broken.append(action)
            raise RuntimeError("a defect")
        await launch(action)

    executor._steps = {**executor._steps, _launch_type(): breaks_once}
    await life.deploy(min_replicas=2)
    with caplog.at_level(logging.ERROR):
        await life.tick()

    assert len(await life.active()) == 1
    assert "Launch failed unexpectedly" in caplog.text
    await life.settle()
    assert len(await life.replicas(ReplicaState.RUNNING)) == 2


async def test_closing_ends_every_task_of_the_executor(life: Life, world: World) -> None:
    world.engine.make_pullable("models/huge:1")
    world.engine.become_slow(3600)
    await life.deploy(given=spec(image="models/huge:1", min_replicas=2))
    await life.until(lambda: _called(world, "pull", 1))

    await life.appliance.parts.executor.close()

    names = {task.get_name().partition(":")[0] for task in asyncio.all_tasks()}
    assert not names & {"launch", "pull", "stop", "fail", "orphan"}


async def test_a_tick_that_hangs_on_the_engine_does_not_end_the_loop(
    life: Life, world: World
) -> None:
    reconciler, parts = life.appliance.reconciler, life.appliance.parts
    loop = asyncio.create_task(reconciler.run(parts), name="reconciler")
    await life.deploy()
    reconciler.wake()
    await until(lambda: len(world.engine.containers()) == 1)
    world.engine.become_unreachable("gone")
    reconciler.wake()
    await until(lambda: parts.observer.engine_error is not None)
    world.engine.recover()
    reconciler.wake()
    await until(lambda: parts.observer.engine_error is None)

    assert not loop.done()
    loop.cancel()
    await asyncio.wait([loop])
    assert loop.cancelled()


async def test_a_tick_that_fails_is_logged_and_the_next_one_is_done(
    life: Life, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    reconciler, parts = life.appliance.reconciler, life.appliance.parts
    sample, failures = world.host.sample, []

    def fails_once() -> object:
        if not failures:
            failures.append(1)
            raise RuntimeError("a defect")
        return sample()

    world.host.sample = fails_once  # type: ignore[method-assign, assignment]
    before = reconciler.last_tick
    loop = asyncio.create_task(reconciler.run(parts), name="reconciler")
    await until(lambda: "tick failed unexpectedly" in caplog.text)
    reconciler.wake()
    await until(lambda: reconciler.last_tick > before)
    loop.cancel()
    await asyncio.wait([loop])


def _launch_type() -> type:
    from prsmd.core.plan import Launch

    return Launch


async def _refused(disk: FullDisk, count: int) -> bool:
    if disk.refused < count:
        disk._life.appliance.reconciler.wake()  # as its interval would
    return disk.refused >= count


async def _called(world: World, verb: str, count: int) -> bool:
    return world.engine.calls.count(verb) >= count
