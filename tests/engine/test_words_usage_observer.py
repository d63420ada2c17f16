"""What operators read, what replicas use, and what an observation holds."""

import asyncio
import dataclasses

import pytest

from prsmd.domain.node import Gpu
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import Endpoint, Placement, Replica, ReplicaState
from prsmd.engine import janitor
from prsmd.engine.words import placed_words, started_words
from prsmd.runtime.base import Container, ContainerState, Labels
from tests.engine.harness import Life, World
from tests.gateway.backends import until

GPU = Gpu(
    uuid="GPU-1f00aa22-3333-4444",
    index=0,
    name="NVIDIA L4",
    memory_total_bytes=24 * GIB,
    memory_used_bytes=0,
)
PLACED = Placement(node="rack-7", cpu_millis=2000, memory_bytes=4 * GIB)
REPLICA = Replica(
    id="abc-r1-s0-x",
    deployment_id="deploy_abc",
    organization="default",
    revision=1,
    slot=0,
    state=ReplicaState.PENDING,
    placement=PLACED,
    created_at=1.0,
)


@pytest.mark.parametrize(
    ("uuids", "millis", "words"),
    [
        ((), 0, "no GPU"),
        ((GPU.uuid,), 1000, "GPU-1f00aa22… (NVIDIA L4)"),
        ((GPU.uuid,), 500, "0.5 of GPU-1f00aa22… (NVIDIA L4)"),
        ((GPU.uuid, "GPU-gone"), 1000, "GPU-1f00aa22… (NVIDIA L4), GPU-gone"),
    ],
)
def test_a_placement_names_node_reservation_and_gpus(uuids, millis, words) -> None:
    placed = dataclasses.replace(PLACED, gpu_uuids=uuids, gpu_millis=millis)

    assert placed_words(placed, [GPU]) == f"2 cpu, 4.0 GiB and {words} on node rack-7"


@pytest.mark.parametrize(
    ("container_id", "endpoint", "words"),
    [
        ("f" * 64, Endpoint("10.0.0.2", 8080), "up at 10.0.0.2:8080 (container ffffffffffff); "),
        (REPLICA.id, Endpoint("127.0.0.1", 9), "up at 127.0.0.1:9; "),
        (REPLICA.id, None, "up; "),
    ],
)
def test_what_came_up_is_named_as_its_engine_does(container_id, endpoint, words) -> None:
    labels = Labels(
        instance="i",
        organization="default",
        deployment="deploy_abc",
        revision=1,
        slot=0,
        replica=REPLICA.id,
        spec_hash="h",
    )
    container = Container(
        id=container_id, labels=labels, state=ContainerState.RUNNING, endpoint=endpoint
    )

    assert started_words(REPLICA, container).startswith(words)


async def test_usage_is_of_the_reservation_and_is_forgotten_with_its_replica(
    life: Life, world: World
) -> None:
    await life.deploy()
    await life.settle()
    [replica] = await life.active()
    world.host.usage[77] = (1.0, GIB // 8)
    run = world.engine._runs[replica.id]
    run.container = dataclasses.replace(run.container, pid=77)
    await life.tick()
    usage = life.appliance.parts.usage.usage(replica.id)

    assert usage is not None
    assert usage.cpu_percent is None, "one reading says nothing about cpu"
    assert usage.memory_percent == 50.0
    await life.delete()
    await life.settle()
    await life.tick()
    assert life.appliance.parts.usage.usage(replica.id) is None


async def test_cpu_is_the_difference_of_two_readings(life: Life, world: World) -> None:
    await life.deploy()
    await life.settle()
    [replica] = await life.active()
    run = world.engine._runs[replica.id]
    run.container = dataclasses.replace(run.container, pid=77)
    meter = life.appliance.parts.usage
    world.host.usage[77] = (1.0, 1)
    await life.tick()
    before = meter._readings[replica.id]
    meter._readings[replica.id] = dataclasses.replace(before, taken_at=before.taken_at - 10)
    world.host.usage[77] = (3.5, 1)
    await life.tick()

    usage = meter.usage(replica.id)
    assert usage is not None
    assert usage.cpu_percent == pytest.approx(50.0, rel=0.1)  # 0.25 cores of the reserved 0.5


async def test_an_engine_that_hangs_is_observed_as_silent(life: Life, world: World) -> None:
    await life.deploy()
    await life.settle()
    observer = life.appliance.parts.observer
    observer._patience_seconds = 0.01
    world.engine.hang()
    observed = await observer.snapshot()

    assert observed.containers is None
    assert "did not answer within" in str(observer.engine_error)
    assert observer.containers, "what was known stays known"
    world.engine.recover()
    assert (await observer.snapshot()).containers is not None
    assert observer.engine_error is None


async def test_strangers_on_a_gpu_are_observed_and_our_own_are_not(
    life: Life, world: World
) -> None:
    world.gpus.add("GPU-aaaa")
    await life.deploy()
    await life.settle()
    [replica] = await life.active()
    run = world.engine._runs[replica.id]
    run.container = dataclasses.replace(run.container, pid=77)
    world.gpus.run("GPU-aaaa", 77, 2 * GIB)
    world.gpus.run("GPU-aaaa", 99, 3 * GIB)

    observed = await life.appliance.parts.observer.snapshot()
    assert observed.strangers == {"GPU-aaaa": 3 * GIB}


async def test_hints_of_the_engine_wake_the_loop_for_as_long_as_it_lives(
    life: Life, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "_RESUBSCRIBE_SECONDS", 0.0)
    woken: list[int] = []
    hearing = asyncio.create_task(
        janitor.hear_hints(life.appliance.runtime, lambda: woken.append(1)), name="hints"
    )
    await until(lambda: len(woken) >= 1)
    world.engine.hint()
    await until(lambda: len(woken) >= 2)
    world.engine.become_unreachable()
    await until(lambda: len(woken) >= 5)
    world.engine.recover()

    assert not hearing.done()
    hearing.cancel()
    await asyncio.wait([hearing])


async def test_the_addresses_of_isolated_containers_are_known_while_they_run(life: Life) -> None:
    observer = life.appliance.parts.observer
    assert observer.replica_hosts == frozenset()
    await life.deploy()
    await life.settle()
    [replica] = await life.active()
    assert replica.endpoint is not None
    assert observer.replica_hosts == {replica.endpoint.host}
