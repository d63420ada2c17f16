"""The journeys of a deployment through the whole engine, tick by tick."""

import asyncio

import pytest

from prsmd.domain.replica import ExitKind, ReplicaState
from tests.engine.harness import IMAGE, Life, World, assert_consistent, spec


async def test_a_deployment_becomes_running_and_its_events_tell_how(life: Life) -> None:
    life.world.gpus.add("GPU-1f00aa22-3333", name="NVIDIA T4")
    deployment = await life.deploy(given=spec(gpu_millis=1000))

    await life.settle()

    [replica] = await life.active()
    assert replica.state is ReplicaState.RUNNING
    assert replica.placement.gpu_uuids == ("GPU-1f00aa22-3333",)
    events = await life.events(deployment)
    assert [event.reason for event in events] == ["Deployed", "Scheduled", "Started", "Ready"]
    scheduled, started = events[1].message, events[2].message
    assert scheduled.startswith("slot 0: needs a replica; gets 500m cpu, ")
    assert scheduled.endswith("and GPU-1f00aa22… (NVIDIA T4) on node rack-7")
    assert started.startswith(f"up at {replica.endpoint} (container fake-")
    await assert_consistent(life)


async def test_a_crashed_replica_is_failed_with_its_last_lines_and_replaced_after_a_pause(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    await life.settle()
    [first] = await life.active()
    world.engine.write_log(first.id, "out of luck")
    world.engine.crash(first.id, 3)

    await life.settle()

    [failed] = await life.replicas(ReplicaState.FAILED)
    assert failed.exit is not None
    assert (failed.exit.kind, failed.exit.exit_code) == (ExitKind.EXITED, 3)
    assert failed.exit.log_tail == ("out of luck",)
    assert await life.active() == []
    assert "BackOff" in await life.reasons(deployment)
    world.ahead += 5
    await life.settle()
    [second] = await life.active()
    assert second.id != first.id
    assert second.state is ReplicaState.RUNNING
    await assert_consistent(life)


async def test_of_what_a_crashed_replica_wrote_so_much_is_read_with_each_tick_and_no_more(
    life: Life, world: World
) -> None:
    await life.deploy()
    await life.settle()
    [first] = await life.active()
    for _ in range(30):
        world.engine.write_log(first.id, "😀" * 16_000)
    world.engine.crash(first.id, 3)

    await life.settle()

    [failed] = await life.replicas(ReplicaState.FAILED)
    assert failed.exit is not None
    [line] = failed.exit.log_tail
    assert line == "😀" * 1023 + "…"
    assert len(await life.appliance.parts.archive.read(failed.id)) == 30


async def test_scaling_up_and_down_ends_in_as_many_replicas_as_asked(life: Life) -> None:
    deployment = await life.deploy()
    await life.settle()
    await life.scale(3)
    await life.settle()
    assert [row.slot for row in await life.active()] == [0, 1, 2]
    await life.scale(1)
    await life.settle()

    [left] = await life.active()
    assert left.slot == 0
    assert (await life.reasons(deployment)).count("Stopped") == 2
    await assert_consistent(life)


async def test_deleting_removes_containers_rows_and_routes(life: Life, world: World) -> None:
    await life.deploy(min_replicas=2)
    await life.settle()
    await life.delete()
    await life.settle()

    assert world.engine.containers() == {}
    assert await life.deployments() == []
    assert life.appliance.gateway.find("default", "legal") is None


async def test_deleting_during_a_long_pull_gives_the_pull_up_at_once(
    life: Life, world: World
) -> None:
    world.engine.make_pullable("models/huge:1")
    world.engine.become_slow(3600)
    deployment = await life.deploy(given=spec(image="models/huge:1"))
    await life.until(lambda: _pulls(life, "models/huge:1"))
    await life.delete()

    await life.settle()

    assert await life.deployments() == []
    assert "models/huge:1" not in world.engine.images
    assert life.appliance.parts.launcher.progress("default", "models/huge:1") is None
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("pull:")]
    assert deployment not in life.appliance.gateway.totals()


async def test_scaling_down_during_a_pull_keeps_the_pull_for_who_still_waits(
    life: Life, world: World
) -> None:
    world.engine.make_pullable("models/huge:1")
    world.engine.become_slow(3600)
    await life.deploy(given=spec(image="models/huge:1", min_replicas=1))
    await life.scale(2)
    await life.until(lambda: _pulls(life, "models/huge:1"))
    await life.scale(1)
    await life.until(lambda: _active_is(life, 1))

    assert life.appliance.parts.launcher.progress("default", "models/huge:1") is not None
    assert [row.slot for row in await life.active()] == [0]


async def test_a_container_made_after_its_launch_was_given_up_is_removed(
    life: Life, world: World
) -> None:
    world.engine.become_slow(3600)
    await life.deploy()
    await life.until(lambda: _launching(world))
    [replica] = await life.active()
    # The engine's thread cannot be cancelled: it makes the container all the same.
    await life.delete()
    await life.until(lambda: _active_is(life, 0))
    world.engine.recover()
    await _make_late(life, replica.id)
    assert replica.id in world.engine.containers()

    await life.settle()

    assert world.engine.containers() == {}


async def test_containers_of_others_are_never_touched(life: Life, world: World) -> None:
    foreign = await world.put_foreign_container()
    await life.deploy()
    await life.settle()
    await life.delete()
    await life.settle()

    assert list(world.engine.containers()) == [foreign]


async def test_a_replica_that_never_gets_ready_ends_after_its_startup_timeout(
    life: Life, world: World
) -> None:
    world.server.health = 503
    await life.deploy()
    await life.until(lambda: _probed(life))
    world.ahead += 61

    await life.until(lambda: _failed(life))

    [failed] = await life.replicas(ReplicaState.FAILED)
    assert failed.exit is not None
    assert failed.exit.kind is ExitKind.STARTUP_TIMEOUT
    assert "/health answered 503" in failed.exit.message
    assert world.engine.containers() == {}


async def test_a_container_that_someone_removed_is_lost_and_replaced(
    life: Life, world: World
) -> None:
    await life.deploy()
    await life.settle()
    [first] = await life.active()
    world.engine.lose(first.id)
    await life.settle()
    world.ahead += 5
    await life.settle()

    [lost] = await life.replicas(ReplicaState.FAILED)
    assert lost.exit is not None
    assert lost.exit.kind is ExitKind.LOST
    assert [row.state for row in await life.active()] == [ReplicaState.RUNNING]
    await assert_consistent(life)


async def test_gpus_of_replicas_that_run_are_not_given_twice_and_the_hold_says_so(
    life: Life, world: World
) -> None:
    world.gpus.add("GPU-aaaa")
    world.gpus.add("GPU-bbbb")
    deployment = await life.deploy(given=spec(gpu_millis=1000, min_replicas=2))
    await life.settle()
    await life.scale(3)
    await life.settle()
    await life.settle()

    placed = [uuid for row in await life.active() for uuid in row.placement.gpu_uuids]
    assert sorted(placed) == ["GPU-aaaa", "GPU-bbbb"]
    held = [event for event in await life.events(deployment) if event.reason == "Unplaceable"]
    assert len(held) == 1, "each reason is told once"
    assert "GPU-aaaa (NVIDIA T4): reserved whole by" in held[0].message


@pytest.mark.parametrize("recovered", [True, False])
async def test_a_silent_engine_changes_nothing_until_it_answers(
    life: Life, world: World, *, recovered: bool
) -> None:
    await life.deploy()
    await life.settle()
    before = await life.active()
    world.engine.become_unreachable()
    await life.tick()

    assert life.appliance.parts.observer.engine_error is not None
    assert await life.active() == before
    route = life.appliance.gateway.find("default", "legal")
    assert route is not None
    assert len(route.targets) == 1, "inference goes on"
    if recovered:
        world.engine.recover()
        await life.settle()
        assert await life.active() == before
        assert life.appliance.parts.observer.engine_error is None


async def _pulls(life: Life, image: str) -> bool:
    return life.appliance.parts.launcher.progress("default", image) is not None


async def _launching(world: World) -> bool:
    return "launch" in world.engine.calls


async def _active_is(life: Life, count: int) -> bool:
    return len(await life.active()) == count


async def _failed(life: Life) -> bool:
    return bool(await life.replicas(ReplicaState.FAILED))


async def _probed(life: Life) -> bool:
    probes = life.appliance.parts.prober.probes().values()
    return any(probe.last_error for probe in probes)


async def _make_late(life: Life, replica_id: str) -> None:
    """Let the engine create what a given-up launch had asked for."""
    from prsmd.domain.quantity import GIB
    from prsmd.domain.replica import Placement
    from prsmd.domain.spec import Security
    from prsmd.runtime.base import Labels, Launch

    runtime = life.appliance.runtime
    image = await runtime.images.resolve(IMAGE)
    assert image is not None
    await runtime.launch(
        Launch(
            labels=Labels(
                instance=runtime._instance,
                organization="default",
                deployment="deploy_gone",
                revision=1,
                slot=0,
                replica=replica_id,
                spec_hash="h",
            ),
            image_digest=image.digest,
            placement=Placement(node="rack-7", cpu_millis=1, memory_bytes=GIB),
            port=8080,
            environment={},
            security=Security(),
        )
    )
