"""Under load, while replicas come and go and trials begin, change and end, nobody is lost.

Everything random comes from one seed, which the test's name shows.
"""

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from prsmd.core.routes import Route, RouteTarget
from prsmd.core.trial import Trial
from prsmd.domain.rollout import HeaderRule
from prsmd.domain.spec import Serving
from prsmd.gateway.infer import Gateway, InferenceResult, Outcome
from tests.gateway.backends import Backend, nobody_listens, route, table, until
from tests.support.asking import asking, outputs_of

CLIENTS = 24
EACH = 40
RULE = HeaderRule(name="x-canary", value="yes")
NEW = Serving(max_concurrency=2)


class Echo(Backend):
    """Answers with its name and its inputs, sooner or later."""

    def __init__(self, replica_id: str, chance: random.Random) -> None:
        super().__init__(replica_id, self._echo)
        self._chance = chance

    async def _echo(self, request: web.Request) -> web.Response:
        inputs = self.bodies[-1]["inputs"]
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        return web.json_response({"outputs": [self.replica_id, inputs]})


class Replicas:
    """Two revisions' real backends, and a replica of each that nobody answers for."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.old = [Echo(f"old{number}", chance) for number in range(3)]
        self.new = [Echo(f"new{number}", chance) for number in range(2)]
        self.dead = {"old": nobody_listens("old-dead"), "new": nobody_listens("new-dead")}

    def stable(self, least: int) -> list[RouteTarget]:
        return self._some([each.target for each in self.old], self.dead["old"], least)

    def tried(self, least: int) -> list[RouteTarget]:
        chosen = self._some([each.target for each in self.new], self.dead["new"], least)
        return [
            dataclasses.replace(each, revision=2, version="2.0.0", serving=NEW, on_trial=True)
            for each in chosen
        ]

    def _some(self, alive: list[RouteTarget], dead: RouteTarget, least: int) -> list[RouteTarget]:
        chosen = self.chance.sample(alive, self.chance.randint(least, len(alive)))
        if self.chance.random() < 0.3:
            chosen.append(dead)
        self.chance.shuffle(chosen)
        return chosen


@contextlib.asynccontextmanager
async def replicas(seed: int) -> AsyncIterator[Replicas]:
    made = Replicas(random.Random(seed))
    async with contextlib.AsyncExitStack() as stack:
        for backend in (*made.old, *made.new):
            await stack.enter_async_context(backend)
        yield made


async def client(gateway: Gateway, name: int) -> list[InferenceResult]:
    """Ask one question after the other; every second client asks for the revision on trial."""
    results = []
    for number in range(EACH):
        found = gateway.find("acme", "custom_a")
        assert found is not None
        inference = asking(
            inputs=f"{name}/{number}",
            request_id=f"{name}-{number}",
            client=f"key_{name}",
            headers={"x-canary": "yes"} if name % 2 else {},
        )
        results.append(await gateway.infer(found, inference))
    return results


async def load(gateway: Gateway, publish: Callable[[], Route]) -> list[list[InferenceResult]]:
    """Publish table after table while all clients ask; return what each was answered."""
    gateway.publish(table(publish()))
    clients = [
        asyncio.create_task(client(gateway, name), name=f"client-{name}") for name in range(CLIENTS)
    ]
    asking = asyncio.gather(*clients)
    async with asyncio.timeout(60):
        while not asking.done():
            gateway.publish(table(publish()))
            await asyncio.sleep(0.002)
        return await asking


async def nothing_is_left(gateway: Gateway) -> None:
    await until(lambda: not any(gateway.in_flight().values()))
    assert gateway.load("deploy_a").in_flight == 0
    assert gateway.load("deploy_a").queued == 0
    assert gateway.idle_since("deploy_a") is not None
    assert gateway.totals()["deploy_a"].requests == {Outcome.OK: CLIENTS * EACH}


def each_its_own(answers: list[list[InferenceResult]]) -> None:
    for name, results in enumerate(answers):
        expected = [[result.replica_id, f"{name}/{n}"] for n, result in enumerate(results)]
        assert [outputs_of(result) for result in results] == expected
        for result in results:
            assert result.model_version == ("2.0.0" if "new" in result.replica_id else "1.2.3")


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_published_every_request_is_answered_once(gateway: Gateway, seed: int):
    async with replicas(seed) as all_of_them:
        chance = all_of_them.chance
        count = 0

        def publish() -> Route:
            nonlocal count
            count += 1
            trial = Trial(
                key=str(count // 5),
                weight=chance.choice([0, 1, 10, 50, 100]),
                shadow_percent=chance.choice([0, 0, 50]),
                header=chance.choice([None, RULE]),
                sticky=chance.random() < 0.5,
            )
            return route(
                *all_of_them.stable(0),
                *all_of_them.tried(0),
                trial=chance.choice([None, trial]),
                max_concurrency=chance.choice([1, 2, 4]),
                waiting_for="the next replica is starting",
            )

        answers = await load(gateway, publish)
        each_its_own(answers)
        names = {result.replica_id for results in answers for result in results}
        assert {name[:3] for name in names} == {"old", "new"}
        await nothing_is_left(gateway)


@pytest.mark.parametrize("seed", range(2))
async def test_while_both_sides_are_there_each_request_is_answered_by_its_own(
    gateway: Gateway, seed: int
):
    async with replicas(seed) as all_of_them:
        chance, count = all_of_them.chance, 0

        def publish() -> Route:
            nonlocal count
            count += 1
            shadow_percent = chance.choice([0, 20])
            trial = Trial(key=str(count // 5), header=RULE, shadow_percent=shadow_percent)
            stable = [each for each in all_of_them.stable(1) if "dead" not in each.replica_id]
            tried = [each for each in all_of_them.tried(1) if "dead" not in each.replica_id]
            # A queue long enough that no side's part of it is ever full.
            return route(*stable, *tried, trial=trial, max_concurrency=2, queue_depth=10_000)

        answers = await load(gateway, publish)
        each_its_own(answers)
        for name, results in enumerate(answers):
            side = "new" if name % 2 else "old"
            assert {result.replica_id[:3] for result in results} == {side}
        await nothing_is_left(gateway)


async def test_a_swap_that_leaves_nobody_for_a_while_keeps_everyone_in_the_queue(
    gateway: Gateway,
):
    async with replicas(7) as all_of_them:
        old, new = all_of_them.old[0].target, all_of_them.new[0].target
        steps = [(old,), (), (), (new,), (), (old,), ()]
        count = 0

        def publish() -> Route:
            nonlocal count
            count += 1
            return route(
                *steps[count // 3 % len(steps)],
                max_concurrency=2,
                waiting_for="the next replica is starting",
            )

        answers = await load(gateway, publish)
        names = {result.replica_id for results in answers for result in results}
        assert names == {"old0", "new0"}
        await nothing_is_left(gateway)
