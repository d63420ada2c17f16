"""The appliance itself: hardware, who holds it, whether the daemon works, and what to expect."""

import pytest

from prsmd.domain.errors import PermissionDeniedError
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import Placement
from prsmd.domain.spec import Resources
from prsmd.service.forecast import Forecaster, duration_text, expected_seconds
from prsmd.store import history
from tests.engine.harness import IMAGE, Life, World, caller, spec


async def test_the_node_shows_who_holds_a_gpu_to_those_who_may_know(
    life: Life, world: World
) -> None:
    world.gpus.add("GPU-aaaa")
    world.gpus.run("GPU-aaaa", 4242, GIB // 4)
    await life.deploy(given=spec(gpu_millis=1000))
    await life.settle()
    [replica] = await life.active()
    everything = await life.services.nodes.get(caller("admin"))
    mine = await life.services.nodes.get(caller("operator"))
    theirs = await life.services.nodes.get(caller("operator", "rival"))

    assert [process.pid for process in everything.gpus[0].gpu.processes] == [4242]
    assert mine.gpus[0].gpu.processes == ()
    assert mine.gpus[0].reserved_by == (replica.id,)
    assert theirs.gpus[0].reserved_by == ("another organization",)
    assert mine.gpus[0].reserved_millis == 1000
    assert mine.reserved_cpu_millis == 500
    assert (mine.runtime, mine.engine_error) == ("fake", None)


async def test_the_node_says_when_the_engine_does_not_answer(life: Life, world: World) -> None:
    world.engine.become_unreachable("connection refused")
    await life.tick()

    report = await life.services.nodes.get(caller())
    assert "connection refused" in str(report.engine_error)
    assert not life.services.health.ready()


@pytest.mark.parametrize("role", ["viewer", "invoker", "auditor"])
async def test_who_may_not_see_the_node_is_denied(life: Life, role: str) -> None:
    with pytest.raises(PermissionDeniedError):
        await life.services.nodes.get(caller(role))
    with pytest.raises(PermissionDeniedError):
        await life.services.health.measure(caller(role))


async def test_ready_means_that_the_loop_ran_and_the_engine_answered(life: Life) -> None:
    assert not life.services.health.ready(), "nothing was observed yet"
    await life.tick()

    assert life.services.health.ready()


async def test_a_loop_that_stands_still_is_not_ready(life: Life) -> None:
    await life.tick()
    life.appliance.reconciler.last_tick -= 61.0

    assert not life.services.health.ready()


async def test_measurements_cover_what_the_caller_sees(life: Life) -> None:
    await life.deploy("mine")
    await life.services.deployments.deploy(caller("owner", "rival"), "theirs", spec())
    await life.settle()
    mine = await life.services.health.measure(caller("operator"))
    everything = await life.services.health.measure(caller("admin"))

    assert [one.deployment.model_name for one in mine.reports] == ["mine"]
    assert len(everything.reports) == len(everything.loads) == 2
    assert mine.engine_reachable
    assert mine.store_writable


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown: nothing was deployed here yet"),
        (0.0, "1-2 seconds"),
        (4.0, "3-6 seconds"),
        (20.0, "15-30 seconds"),
        (60.0, "1-2 minutes"),
        (600.0, "8-15 minutes"),
    ],
)
def test_durations_are_ranges_in_words(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


async def test_an_image_that_started_here_needs_no_pull_and_a_new_one_does(life: Life) -> None:
    async def measured(tx: object) -> None:
        await history.record(tx, "acme", "old", "pull", 100.0, 1.0)
        await history.record(tx, "acme", "old", "start", 10.0, 1.0)

    async with life.database.read() as tx:
        assert await expected_seconds(tx, "acme", IMAGE) is None
    await life.database.write(measured)
    async with life.database.read() as tx:
        assert await expected_seconds(tx, "acme", "old") == 10.0
        assert await expected_seconds(tx, "acme", "new") == 110.0
        assert await expected_seconds(tx, "rival", "old") == 110.0, "it tells what acme runs"


async def test_forecasts_reserve_nothing_and_never_promise_a_gpu_twice(
    life: Life, world: World
) -> None:
    world.gpus.add("GPU-aaaa")
    world.gpus.add("GPU-bbbb")
    forecaster = Forecaster(life.appliance.parts.observer)
    whole = Resources(cpu_millis=100, memory_bytes=GIB, gpu_millis=1000)
    for _ in range(2):
        forecast = forecaster.replicas(whole, 3, [])
        placed = [uuid for one in forecast.placements for uuid in one.gpu_uuids]
        assert sorted(placed) == ["GPU-aaaa", "GPU-bbbb"]
        assert forecast.refused is not None


@pytest.mark.parametrize(
    ("millis", "text"), [(0, "0"), (500, "0.5 x NVIDIA T4"), (1000, "1 x NVIDIA T4")]
)
async def test_the_gpu_of_a_forecast_is_named_as_the_driver_does(
    life: Life, world: World, millis: int, text: str
) -> None:
    world.gpus.add("GPU-aaaa", name="NVIDIA T4")
    world.gpus.add("GPU-bbbb", name="NVIDIA L4")
    forecaster = Forecaster(life.appliance.parts.observer)
    resources = Resources(cpu_millis=1, memory_bytes=1, gpu_millis=millis)
    placed = Placement(node="rack-7", cpu_millis=1, memory_bytes=1, gpu_uuids=("GPU-aaaa",))

    assert forecaster.gpu_text(resources, [placed]) == text
