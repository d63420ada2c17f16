"""Copies of answered requests: compared, counted, and in nobody's way."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from prsmd.core.routes import RouteTarget
from prsmd.core.trial import Reading, Trial, TrialReading
from prsmd.domain.rollout import HeaderRule
from prsmd.domain.spec import Serving
from prsmd.gateway.infer import Gateway, GatewaySettings, InferenceResult
from prsmd.gateway.shadow import COPIED_BYTES
from tests.gateway.backends import Backend, Gated, Raw, nobody_listens, route, table, until
from tests.support.asking import asking, outputs_of
from tests.support.exhausted import no_descriptors

SHADOW = Trial(key="s", shadow_percent=100)


class Answering(Backend):
    """Answers with what its inputs, times a factor, are."""

    def __init__(self, replica_id: str, factor: float = 1.0) -> None:
        super().__init__(replica_id, self._times)
        self.factor = factor

    async def _times(self, request: web.Request) -> web.Response:
        inputs = self.bodies[-1]["inputs"]
        outputs = [inputs * self.factor] if isinstance(inputs, int) else inputs
        return web.json_response({"outputs": outputs})


@pytest.fixture
async def old() -> AsyncIterator[Answering]:
    async with Answering("old") as backend:
        yield backend


def shadowed(
    gateway: Gateway, stable: RouteTarget, tried: RouteTarget, trial: Trial = SHADOW, **more: object
) -> None:
    copies = dataclasses.replace(tried, on_trial=True, revision=2, version="2.0.0")
    gateway.publish(table(route(stable, copies, trial=trial, **more)))


async def ask(gateway: Gateway, inputs: object = 1, *, stream: bool = False) -> InferenceResult:
    found = gateway.find("acme", "custom_a")
    assert found is not None
    return await gateway.infer(found, asking(inputs=inputs, request_id="q", stream=stream))


def reading(gateway: Gateway) -> TrialReading:
    return gateway.trial_readings()["deploy_a"]


async def settled(gateway: Gateway) -> TrialReading:
    """Return what was measured when no copy is under way any more."""
    await until(lambda: not any(gateway.in_flight().values()))
    return reading(gateway)


async def test_an_answer_comes_from_the_stable_side_and_its_copy_is_compared(
    gateway: Gateway, old: Answering
):
    async with Answering("new", factor=1 + 1e-9) as new:
        shadowed(gateway, old.target, new.target)
        result = await ask(gateway, 7)
        assert (result.replica_id, outputs_of(result), new.bodies) == ("old", [7.0], [])
        measured = await settled(gateway)
        assert new.bodies == [{"inputs": 7, "parameters": {}}]
        assert (measured.compared, measured.differing, measured.dropped) == (1, 0, 0)
        assert (measured.stable.requests, measured.trial.requests) == (1, 1)
        assert measured.trial.mean_ms is not None


async def test_answers_that_differ_are_counted(gateway: Gateway, old: Answering):
    async with Answering("new", factor=1.01) as new:
        shadowed(gateway, old.target, new.target)
        for number in (0, 1, 2):  # zero is the same whatever it is multiplied with
            await ask(gateway, number)
            await settled(gateway)
        assert (reading(gateway).compared, reading(gateway).differing) == (3, 2)


@pytest.mark.parametrize("percent", [0, 30, 100])
async def test_exactly_the_percent_is_copied(gateway: Gateway, old: Answering, percent: int):
    async with Answering("new") as new:
        shadowed(gateway, old.target, new.target, Trial(key="s", shadow_percent=percent))
        for number in range(100):
            await ask(gateway, number)
            await settled(gateway)
        assert (len(old.bodies), len(new.bodies)) == (100, percent)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nboom",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nshort",
        b"",
    ],
)
async def test_a_copy_that_is_answered_wrongly_is_an_error_of_the_trial_only(
    gateway: Gateway, old: Answering, answer: bytes
):
    async with Raw(answer) as new:
        shadowed(gateway, old.target, new.target)
        assert (await ask(gateway)).replica_id == "old"
        measured = await settled(gateway)
        assert measured.trial == Reading(requests=1, errors=1)
        assert (measured.compared, measured.stable.errors) == (0, 0)
        assert gateway.totals()["deploy_a"].requests == {"ok": 1}


async def test_a_copy_that_takes_too_long_is_an_error_and_delays_nobody(
    gateway: Gateway, old: Answering
):
    async with Gated("new") as new:
        hasty = dataclasses.replace(new.target, serving=Serving(request_timeout_seconds=0.05))
        shadowed(gateway, old.target, hasty)
        assert (await ask(gateway)).replica_id == "old"
        assert (await settled(gateway)).trial == Reading(requests=1, errors=1)


async def test_copies_beyond_the_slots_of_the_trial_are_dropped_and_counted(
    gateway: Gateway, old: Answering
):
    async with Gated("new") as new:
        narrow = dataclasses.replace(new.target, serving=Serving(max_concurrency=2))
        shadowed(gateway, old.target, narrow)
        for number in range(5):
            await ask(gateway, number)
        assert gateway.in_flight() == {"old": 0, "new": 2}
        assert reading(gateway).dropped == 3
        new.let_through(2)
        assert (await settled(gateway)).compared == 2


async def test_copies_are_no_load_of_the_deployment(gateway: Gateway, old: Answering):
    async with Gated("new") as new:
        shadowed(gateway, old.target, new.target)
        await ask(gateway)
        load = gateway.load("deploy_a")
        assert (gateway.in_flight()["new"], load.in_flight, load.targets) == (1, 0, 1)
        assert gateway.idle_since("deploy_a") is not None
        new.let_through()
        await settled(gateway)


async def test_only_so_many_copies_are_under_way_at_once(old: Answering):
    gateway = Gateway(GatewaySettings(shadow_copies=3))
    await gateway.start()
    async with Gated("new") as new:
        shadowed(gateway, old.target, new.target)
        for number in range(5):
            await ask(gateway, number)
        assert (gateway.in_flight()["new"], reading(gateway).dropped) == (3, 2)
        await gateway.close()
        assert gateway.in_flight() == {"old": 0, "new": 0}


async def test_a_copy_that_reaches_nobody_is_dropped(gateway: Gateway, old: Answering):
    shadowed(gateway, old.target, nobody_listens())
    await ask(gateway)
    measured = await settled(gateway)
    assert (measured.dropped, measured.trial.requests) == (1, 0)


async def test_a_copy_that_cannot_be_sent_for_want_of_descriptors_is_dropped(old: Answering):
    gateway = Gateway(GatewaySettings(keep_alive_seconds=60.0))
    await gateway.start()
    async with Backend("new") as new:
        gateway.publish(table(route(old.target)))
        await ask(gateway)
        shadowed(gateway, old.target, new.target)
        with no_descriptors():
            await ask(gateway)
            measured = await settled(gateway)
        assert (measured.dropped, measured.trial.requests) == (1, 0)
    await gateway.close()


async def test_what_is_too_large_is_not_copied(gateway: Gateway):
    async with Backend("old") as old, Backend("new") as new:
        shadowed(gateway, old.target, new.target)
        await ask(gateway, "x" * COPIED_BYTES)
        assert (await settled(gateway)).dropped == 1
        assert new.bodies == []


async def test_who_waits_for_the_slot_of_a_copy_gets_it(gateway: Gateway, old: Answering):
    rule = HeaderRule(name="x-canary", value="yes")
    async with Gated("new") as new:
        narrow = dataclasses.replace(new.target, serving=Serving(max_concurrency=1))
        shadowed(gateway, old.target, narrow, dataclasses.replace(SHADOW, header=rule))
        await ask(gateway, 1)
        found = gateway.find("acme", "custom_a")
        assert found is not None
        inference = asking(inputs=2, request_id="q2", headers={"x-canary": "yes"})
        waiting = asyncio.create_task(gateway.infer(found, inference), name="infer-2")
        await until(lambda: gateway.load("deploy_a").queued == 1)
        new.let_through(2)
        assert (await waiting).replica_id == "new"


async def test_failures_and_the_trial_s_own_answers_are_not_copied(gateway: Gateway):
    async with Raw(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") as old, Backend("new") as new:
        shadowed(gateway, old.target, new.target, dataclasses.replace(SHADOW, weight=50))
        found = gateway.find("acme", "custom_a")
        assert found is not None
        results = [
            await asyncio.gather(ask(gateway, number), return_exceptions=True)
            for number in range(2)
        ]
        assert isinstance(results[0][0], Exception)
        measured = await settled(gateway)
        assert len(new.bodies) == 1
        assert (measured.compared, measured.dropped, measured.trial.requests) == (0, 0, 1)


async def test_streams_are_not_copied(gateway: Gateway):
    async def stream(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"data: 1\n\n", content_type="text/event-stream")

    async with Backend("old", stream) as old, Backend("new") as new:
        shadowed(gateway, old.target, new.target)
        result = await ask(gateway, stream=True)
        assert result.stream is not None
        assert [chunk async for chunk in result.stream] == [b"data: 1\n\n"]
        await result.stream.aclose()
        measured = await settled(gateway)
        assert (new.bodies, measured.dropped, measured.stable.requests) == ([], 0, 1)


async def test_draining_gives_copies_up_and_waits_for_none(gateway: Gateway, old: Answering):
    async with Gated("new") as new:
        shadowed(gateway, old.target, new.target)
        await ask(gateway)
        await new.wait_inside(1)
        assert await gateway.drain(0) == 0
        assert (await settled(gateway)).dropped == 1
        await new.wait_inside(0)


async def test_a_copy_that_is_given_up_before_it_began_gives_its_slot_back(
    gateway: Gateway, old: Answering
):
    async with Answering("new") as new:
        shadowed(gateway, old.target, new.target)
        await ask(gateway)
        assert gateway.in_flight()["new"] == 1
        await gateway.close()  # nothing ran in between
        assert gateway.in_flight() == {"old": 0, "new": 0}
        assert (new.bodies, reading(gateway).dropped) == ([], 1)


async def test_a_replica_on_trial_that_leaves_is_not_kept_by_copies(
    gateway: Gateway, old: Answering
):
    async with Gated("new") as new:
        shadowed(gateway, old.target, new.target)
        await ask(gateway)
        await new.wait_inside(1)
        gateway.publish(table(route(old.target)))
        await until(lambda: gateway.in_flight() == {"old": 0})
        await new.wait_inside(0)


async def test_a_copy_that_ends_under_another_key_counts_for_none(gateway: Gateway, old: Answering):
    async with Gated("new") as new:
        shadowed(gateway, old.target, new.target)
        await ask(gateway)
        await new.wait_inside(1)
        shadowed(gateway, old.target, new.target, dataclasses.replace(SHADOW, key="t"))
        new.let_through()
        assert await settled(gateway) == TrialReading(key="t")
