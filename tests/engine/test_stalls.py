"""A daemon that stood still, or an engine that hangs, costs no healthy model anything."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from prsmd.core.stalls import StallKind, Unknown
from prsmd.domain.errors import PullBrokenOffError
from prsmd.domain.replica import ExitKind, ReplicaState
from prsmd.domain.rollout import Gate, RolloutPhase, RolloutStrategy
from prsmd.domain.spec import Serving
from prsmd.engine.pulling import Puller
from prsmd.gateway.endings import StalledError
from prsmd.gateway.infer import Outcome
from tests.engine.harness import Life, World, caller, finished, spec
from tests.gateway.backends import until
from tests.support.asking import asking

TIMEOUT = 0.15
BLOCKED = 4 * TIMEOUT
HASTY = {
    "probe_seconds": 0.02,
    "probe_timeout_seconds": TIMEOUT,
    "liveness_failures": 1,
}


@contextlib.asynccontextmanager
async def measured(world: World) -> AsyncIterator[Life]:
    """A daemon's life with the monitor running, whose probes have little patience."""
    async with world.life(**HASTY) as life:
        lag = asyncio.create_task(life.appliance.lag.run(), name="loop-lag")
        await asyncio.sleep(0)
        try:
            yield life
        finally:
            await finished(lag)


class Handling:
    """What the model server does with health checks from now on."""

    def __init__(self, world: World) -> None:
        self.blocks = 0
        self.hangs = False
        self.hung = asyncio.Event()
        self.asked = 0
        self._answer = world.server._health
        world.server._health = self._health  # type: ignore[method-assign]

    async def _health(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.blocks:
            self.blocks -= 1
            time.sleep(BLOCKED)  # noqa: ASYNC251 - the probe that asks is in flight just now
        if self.hangs:
            await self.hung.wait()
        return await self._answer(request)


@pytest.fixture
async def handling(world: World) -> AsyncIterator[Handling]:
    await world.server.close()
    handling = Handling(world)
    await world.server.start()
    yield handling
    handling.hung.set()


async def steady(life: Life, handling: Handling) -> None:
    """Look on until every replica was asked several times more."""
    more = handling.asked + 10

    async def asked() -> bool:
        return handling.asked >= more

    await life.until(asked)


async def test_a_loop_that_is_blocked_longer_than_a_probe_may_take_fells_nobody(
    world: World, handling: Handling
) -> None:
    async with measured(world) as life:
        deployment = await life.deploy(min_replicas=2)
        await life.settle()
        for _ in range(3):
            handling.blocks = 1
            await steady(life, handling)

        rows = await life.replicas()
        assert [row.state for row in rows] == [ReplicaState.RUNNING] * 2
        ready = life.appliance.parts.prober.probes()
        assert all(ready[row.id].ready for row in rows)
        assert not {"LivenessFailed", "NotReady", "Unhealthy"} & set(await life.reasons(deployment))
        assert life.appliance.lag.lag().lost_seconds[StallKind.LOOP] >= 3 * (BLOCKED - TIMEOUT)


async def test_a_replica_that_really_hangs_is_ended_while_the_loop_is_on_time(
    world: World, handling: Handling
) -> None:
    async with measured(world) as life:
        await life.deploy(min_replicas=1)
        await life.settle()
        handling.hangs = True

        async def ended() -> bool:
            rows = await life.replicas(ReplicaState.FAILED)
            return any(r.exit and r.exit.kind is ExitKind.LIVENESS_FAILED for r in rows)

        await life.until(ended)


async def test_a_replica_that_is_slow_while_the_engine_hangs_is_not_ended(
    world: World, handling: Handling
) -> None:
    async with measured(world) as life:
        await life.deploy(min_replicas=1)
        await life.settle()
        (row,) = await life.active()
        world.engine.hang()
        looking = asyncio.create_task(life.tick(), name="tick")
        lag, since = life.appliance.lag, life.appliance.lag.now()
        await until(lambda: lag.unknown(since) is not None)
        handling.hangs = True
        asked = handling.asked
        await until(lambda: handling.asked >= asked + 3)
        probe = life.appliance.parts.prober.probes()[row.id]
        assert probe.ready
        handling.hangs = False
        handling.hung.set()
        world.engine.recover()
        await looking
        await life.settle()
        assert [r.id for r in await life.active()] == [row.id]


async def infer(life: Life, inputs: str) -> None:
    route = life.appliance.gateway.find("default", "legal")
    assert route is not None
    await life.appliance.gateway.infer(route, asking(inputs=inputs, request_id="r"))


async def infer_on_time(life: Life, inputs: str) -> None:
    """Infer, again where the machine itself was late."""
    while True:
        with contextlib.suppress(StalledError):
            return await infer(life, inputs)


async def test_no_canary_goes_back_for_answers_that_the_daemon_was_late_for(
    world: World, handling: Handling
) -> None:
    blocks = [0]

    async def answer(request: web.Request) -> web.Response:
        if blocks[0]:
            blocks[0] -= 1
            time.sleep(BLOCKED)  # noqa: ASYNC251 - the inference is in flight just now
        body = await request.json()
        return web.json_response({"outputs": body["inputs"]})

    await world.server.close()
    world.server._infer = answer  # type: ignore[method-assign]
    await world.server.start()
    async with measured(world) as life:
        serving = Serving(startup_timeout_seconds=60.0, request_timeout_seconds=TIMEOUT)
        await life.deploy(given=dataclasses.replace(spec(), serving=serving))
        await life.settle()
        gate = Gate(min_requests=3, max_error_rate=0.0)
        await life.update(
            {"A": "1"},
            strategy=RolloutStrategy.CANARY,
            steps=(100,),
            bake_seconds=3600.0,
            gate=gate,
        )

        async def flowing() -> bool:
            trial = life.appliance.gateway.trial_readings()
            return any(reading.key.endswith("flowing") for reading in trial.values())

        await life.until(flowing)
        for number in range(5):
            blocks[0] = 1
            with pytest.raises(StalledError, match="this daemon itself stood still"):
                await infer(life, f"late-{number}")
            await infer_on_time(life, f"on-time-{number}")
        await life.tick()

        (deployment,) = await life.deployments()
        (reading,) = life.appliance.gateway.trial_readings().values()
        assert reading.trial.errors == 0
        totals = life.appliance.gateway.totals()[deployment.id].requests
        assert totals.keys() == {Outcome.OK, Outcome.STALLED}
        assert totals[Outcome.STALLED] >= 5
        performance = life.appliance.gateway.performance(deployment.id, world.now())
        assert performance.error_rate == 0
        _, report = await life.services.rollouts.get(caller(), "legal")
        assert report.rollout.phase is RolloutPhase.TRYING


async def test_an_engine_that_the_daemon_was_too_late_to_hear_is_not_blamed(world: World) -> None:
    async with measured(world) as life:
        observer, listing = life.appliance.parts.observer, life.appliance.runtime.list
        observer._patience_seconds = TIMEOUT
        late = [True]

        async def list_late() -> object:
            if late.pop():
                time.sleep(BLOCKED)  # noqa: ASYNC251 - the look is under way just now
                await asyncio.sleep(BLOCKED)
            return await listing()

        life.appliance.runtime.list = list_late  # type: ignore[method-assign,assignment]
        late.insert(0, False)
        assert (await observer.snapshot()).containers is None, "nothing is concluded"
        assert observer.engine_error is None
        assert observer._patience_seconds == TIMEOUT, "no more patience for one that is on time"


async def test_a_pull_that_broke_off_while_the_daemon_stood_still_is_no_attempt() -> None:
    class Broken:
        pulled = 0

        async def pull(self, *_: object) -> object:
            self.pulled += 1
            raise PullBrokenOffError("pull m: broke off")

    class Judge:
        unknowns = 2

        def now(self) -> float:
            return 0.0

        def unknown(self, _began: float, _kinds: object = None) -> Unknown | None:
            self.unknowns -= 1
            return Unknown(1.0, "it stood still") if self.unknowns >= 0 else None

    async def make_room(_what: str, _more: int) -> None:
        return None

    images = Broken()
    puller = Puller(images, 3, 0.0, Judge())  # type: ignore[arg-type]
    with pytest.raises(PullBrokenOffError, match="tried 3 times"):
        await puller.pull("m", None, lambda _: None, make_room)
    assert images.pulled == 3 + 2
