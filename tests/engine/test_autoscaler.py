"""The autoscaler's loop writes only what changes something, and never against a person."""

import asyncio

import pytest

from prsmd.core.autoscale import Hold, Scale
from prsmd.core.plan import DesiredDeployment
from prsmd.core.stalls import Stall, StallKind
from prsmd.domain.deployment import Recommendation
from prsmd.domain.errors import ResourceUnavailableError, StorageFullError
from prsmd.engine.autoscaler import Autoscaler
from prsmd.engine.rows import load_desired
from tests.engine.harness import Life, World, caller
from tests.support.asking import asking, outputs_of


def autoscaler(life: Life) -> Autoscaler:
    return life.appliance.autoscaler


async def desired(life: Life) -> DesiredDeployment:
    async with life.database.read() as tx:
        [one] = await load_desired(tx)
    return one


async def test_a_model_that_is_idle_is_scaled_to_zero_and_says_why(
    life: Life, world: World
) -> None:
    deployment = await life.deploy(min_replicas=0)
    await life.scale(1)
    await life.settle()
    world.ahead += 400
    await autoscaler(life).look(world.now())
    await life.settle()

    assert await life.active() == []
    [event] = [one for one in await life.events(deployment) if one.reason == "Autoscaled"]
    assert event.message.startswith("from 1 to 0 replicas: idle for")
    assert isinstance(autoscaler(life).verdict(deployment), Scale)


async def test_holding_writes_nothing(life: Life, world: World) -> None:
    deployment = await life.deploy()
    await life.settle()
    writes = life.fuse.passed.count("after write")
    for _ in range(5):
        world.ahead += 5
        await autoscaler(life).look(world.now())

    assert isinstance(autoscaler(life).verdict(deployment), Hold)
    assert life.fuse.passed.count("after write") == writes
    assert (await desired(life)).deployment.recommendation is None


async def test_a_decision_is_written_once(life: Life, world: World) -> None:
    deployment = await life.deploy(min_replicas=0)
    await life.scale(1)
    await life.settle()
    world.ahead += 400
    for _ in range(4):
        await autoscaler(life).look(world.now())
        world.ahead += 5
        await life.settle()

    assert (await life.reasons(deployment)).count("Autoscaled") == 1


async def test_a_request_to_a_model_at_zero_starts_a_replica_and_is_answered(
    life: Life, world: World
) -> None:
    await life.deploy(min_replicas=0)
    await life.settle()
    await autoscaler(life).look(world.now())
    looking = asyncio.create_task(autoscaler(life).run(0.01), name="autoscaler")
    inferring = asyncio.create_task(
        life.services.inferences.infer(caller(), "legal", asking(inputs="hello", request_id="q")),
        name="infer",
    )
    await life.until(lambda: _is_done(inferring))
    _, result = await inferring

    assert outputs_of(result) == {"echo": "hello"}
    looking.cancel()
    await asyncio.wait([looking])


async def test_what_a_person_asks_while_the_autoscaler_decides_wins(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    await life.settle()
    looked_at = (await desired(life)).deployment
    await life.scale(3)
    stale = Recommendation(replicas=2, reasons=("old",), utilization=None, at=world.now())
    await autoscaler(life)._store(looked_at, stale, 1)

    assert (await desired(life)).deployment.recommendation is None
    assert "Autoscaled" not in await life.reasons(deployment)


async def test_a_deployment_that_goes_meanwhile_gets_no_recommendation(
    life: Life, world: World
) -> None:
    await life.deploy()
    await life.settle()
    looked_at = (await desired(life)).deployment
    await life.delete()
    await life.settle()
    stale = Recommendation(replicas=2, reasons=("old",), utilization=None, at=world.now())

    await autoscaler(life)._store(looked_at, stale, 1)

    assert await life.deployments() == []


async def test_a_person_who_sets_the_count_starts_the_history_anew(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    await life.settle()
    for _ in range(3):
        world.ahead += 5
        await autoscaler(life).look(world.now())
    assert len(autoscaler(life)._memories[deployment].needs) == 3
    await life.scale(2)
    await autoscaler(life).look(world.now())

    assert len(autoscaler(life)._memories[deployment].needs) == 1


async def test_what_is_gone_is_forgotten(life: Life, world: World) -> None:
    deployment = await life.deploy(min_replicas=0)
    await autoscaler(life).look(world.now())
    assert autoscaler(life).verdict(deployment) is not None
    await life.delete()
    await life.settle()
    await autoscaler(life).look(world.now())

    assert autoscaler(life).verdict(deployment) is None
    assert autoscaler(life)._at_zero == set()


@pytest.mark.parametrize("error", [StorageFullError("full"), RuntimeError("a defect")])
async def test_a_failure_with_one_deployment_keeps_no_other_waiting(
    life: Life, world: World, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    first = await life.deploy("first")
    second = await life.deploy("second")
    await life.settle()
    scaler, load = autoscaler(life), life.appliance.gateway.load

    def broken(deployment: str) -> object:
        if deployment == first:
            raise error
        return load(deployment)

    life.appliance.gateway.load = broken  # type: ignore[method-assign, assignment]
    await scaler.look(world.now())

    assert scaler.verdict(first) is None
    assert scaler.verdict(second) is not None
    assert f"autoscaling of {first}" in caplog.text


async def test_stale_gpu_telemetry_holds_the_count(life: Life, world: World) -> None:
    from tests.engine.harness import spec

    world.gpus.add("GPU-aaaa")
    deployment = await life.deploy(given=spec(gpu_millis=1000))
    await life.settle()
    world.gpus.change("GPU-aaaa", utilization_percent=100.0)
    world.gpus.stall()
    await autoscaler(life).look(world.now())

    verdict = autoscaler(life).verdict(deployment)
    assert isinstance(verdict, Hold)
    assert "stale" in verdict.reason


async def test_a_request_to_a_model_being_deleted_is_told_so(life: Life) -> None:
    await life.deploy()
    await life.settle()
    await life.delete()
    await life.tick()

    with pytest.raises(ResourceUnavailableError, match="is being deleted"):
        await life.services.inferences.infer(caller(), "legal", asking(inputs="x", request_id="q"))


async def _is_done(task: asyncio.Task[object]) -> bool:
    return task.done()


async def test_an_idle_model_is_scaled_to_zero_after_the_clock_was_set_back(
    life: Life, world: World
) -> None:
    await life.deploy(min_replicas=0)
    await life.scale(1)
    await life.settle()
    world.ahead -= 365 * 86400
    await autoscaler(life).look(world.now())
    assert len(await life.active()) == 1
    world.ahead += 400
    await autoscaler(life).look(world.now())
    await life.settle()

    assert await life.active() == []


async def test_time_that_was_skipped_is_no_window_in_which_little_was_needed(
    life: Life, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await life.deploy(min_replicas=1)
    await life.scale(3)
    await life.settle()
    await autoscaler(life).look(world.now())
    world.ahead += 365 * 86400
    stall = Stall(
        kind=StallKind.CLOCK, began=0.0, ended=0.0, lost=365 * 86400.0, at=world.now() - 1
    )
    monkeypatch.setattr(autoscaler(life)._lag, "stalls", lambda: (stall,))
    await autoscaler(life).look(world.now())
    await life.settle()
    assert len(await life.active()) == 3

    world.ahead += 400
    await autoscaler(life).look(world.now())
    await life.settle()
    assert len(await life.active()) == 1
