"""Traffic between a stable revision and one on trial, against real HTTP servers on loopback."""

import asyncio
import dataclasses
import time

import pytest

from prsmd.core.routes import Route, RouteTarget
from prsmd.core.trial import Reading, Trial, TrialReading
from prsmd.domain.errors import (
    InferenceTimeoutError,
    ProviderError,
    ResourceUnavailableError,
)
from prsmd.domain.rollout import HeaderRule
from prsmd.domain.spec import Serving
from prsmd.gateway.infer import Gateway, InferenceResult
from prsmd.protocols.base import ContainerRequest, ModelRequest
from prsmd.protocols.native import Native
from prsmd.protocols.registry import PROTOCOLS
from tests.gateway.backends import Backend, Gated, Raw, nobody_listens, route, table, until
from tests.support.asking import asking

RULE = HeaderRule(name="X-Canary", value="yes")
CANARY = {"x-canary": "yes"}
BROKEN = b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nboom"


def on_trial(target: RouteTarget, **more: object) -> RouteTarget:
    return dataclasses.replace(target, on_trial=True, revision=2, version="2.0.0", **more)


def trying(*targets: RouteTarget, weight: int = 0, **more: object) -> Route:
    """A route on which revision 2 is on trial; keyword arguments are the trial's or the route's."""
    fields = {key: more.pop(key) for key in list(more) if key in Trial.__dataclass_fields__}
    return route(*targets, trial=Trial(**{"key": "1", "weight": weight, **fields}), **more)


def ask(
    gateway: Gateway, inputs: object = 1, headers: dict[str, str] | None = None, client: str = ""
) -> "asyncio.Task[InferenceResult]":
    found = gateway.find("acme", "custom_a")
    assert found is not None
    inference = asking(inputs=inputs, request_id=f"r{inputs}", client=client, headers=headers or {})
    return asyncio.create_task(gateway.infer(found, inference), name=f"infer-{inputs}")


async def answered(gateway: Gateway, count: int, **more: object) -> list[str]:
    return [(await ask(gateway, number, **more)).replica_id for number in range(count)]


def reading(gateway: Gateway) -> TrialReading:
    return gateway.trial_readings()["deploy_a"]


@pytest.mark.parametrize("weight", [0, 10, 33, 100])
async def test_of_a_hundred_requests_exactly_the_weight_goes_on_trial(
    gateway: Gateway, weight: int
):
    async with Backend("old") as old, Backend("new") as new:
        gateway.publish(table(trying(old.target, on_trial(new.target), weight=weight)))
        assert (await answered(gateway, 100)).count("new") == weight
        measured = reading(gateway)
        assert (measured.stable.requests, measured.trial.requests) == (100 - weight, weight)


async def test_the_replicas_of_each_side_share_its_work(gateway: Gateway):
    async with Backend("old") as old, Backend("n1") as one, Backend("n2") as two:
        targets = (old.target, on_trial(one.target), on_trial(two.target))
        gateway.publish(table(trying(*targets, weight=10)))
        names = await answered(gateway, 100)
        assert (names.count("n1"), names.count("n2")) == (5, 5)


async def test_a_client_that_sticks_sees_one_side_only(gateway: Gateway):
    async with Backend("old") as old, Backend("new") as new:
        gateway.publish(table(trying(old.target, on_trial(new.target), weight=50, sticky=True)))
        seen = {
            client: set(await answered(gateway, 4, client=client))
            for client in (f"key_{number}" for number in range(12))
        }
        assert all(len(sides) == 1 for sides in seen.values())
        assert {side for sides in seen.values() for side in sides} == {"old", "new"}


async def test_the_header_reaches_the_revision_on_trial_whatever_its_weight(gateway: Gateway):
    async with Backend("old") as old, Backend("new") as new:
        gateway.publish(table(trying(old.target, on_trial(new.target), header=RULE)))
        assert set(await answered(gateway, 3)) == {"old"}
        assert set(await answered(gateway, 3, headers=CANARY)) == {"new"}
        assert "x-canary" not in {name.lower() for name in new.requests[0].headers}


async def test_each_revision_is_spoken_to_as_it_says_and_named_in_the_answer(gateway: Gateway):
    async with Backend("old") as old, Backend("new") as new:
        serving = Serving(predict_path="/v2/infer", max_concurrency=3)
        published = trying(
            old.target, on_trial(new.target, serving=serving), weight=50, predict_path="/v1/infer"
        )
        gateway.publish(table(published))
        results = [await ask(gateway, number) for number in range(2)]
        assert {(each.replica_id, each.model_version) for each in results} == {
            ("old", "1.2.3"),
            ("new", "2.0.0"),
        }
        assert old.requests[0].path == "/v1/infer"
        assert new.requests[0].path == "/v2/infer"
        assert repr(gateway).count("old 0/8, new 0/3 on trial") == 1


class Elsewhere(Native):
    """As the native protocol, on a path of its own."""

    name = "elsewhere"

    def request(self, request: ModelRequest, serving: Serving) -> ContainerRequest:
        return dataclasses.replace(super().request(request, serving), path="/elsewhere")


async def test_each_revision_is_spoken_to_in_its_own_protocol(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(PROTOCOLS, "elsewhere", Elsewhere())
    async with Backend("old") as old, Backend("new") as new:
        serving = Serving(protocol="elsewhere")
        gateway.publish(table(trying(old.target, on_trial(new.target, serving=serving), weight=50)))
        await answered(gateway, 2)
        assert [each.requests[0].path for each in (old, new)] == ["/infer", "/elsewhere"]


async def test_a_revision_s_own_timeout_bounds_its_exchange_and_no_other(gateway: Gateway):
    async with Gated("old") as old, Gated("new") as new:
        serving = Serving(request_timeout_seconds=0.1)
        published = trying(old.target, on_trial(new.target, serving=serving), weight=50)
        gateway.publish(table(published))
        patient, hasty = ask(gateway, 1), ask(gateway, 2)
        with pytest.raises(InferenceTimeoutError, match=r"did not answer within 0\.1 s") as caught:
            await hasty
        assert caught.value.details["timeout_seconds"] == 0.1
        old.let_through()
        assert (await patient).replica_id == "old"


async def test_a_revision_s_own_timeout_never_outlasts_the_request_s(gateway: Gateway):
    async with Gated("new") as new:
        patient = on_trial(new.target, serving=Serving(request_timeout_seconds=50))
        gateway.publish(table(trying(patient, weight=100, request_timeout_seconds=0.1)))
        with pytest.raises(InferenceTimeoutError, match=r"did not answer within 0\.1 s"):
            await ask(gateway)


async def test_time_lost_on_a_dead_replica_leaves_the_request_s_own_deadline(gateway: Gateway):
    hasty = Serving(request_timeout_seconds=0.05)
    async with Gated("old") as old:
        dead = on_trial(nobody_listens(), serving=hasty)
        gateway.publish(table(trying(old.target, dead, weight=100)))
        task = ask(gateway)
        await old.wait_inside(1)
        await asyncio.sleep(0.1)  # longer than the dead one's revision would have allowed
        old.let_through()
        assert (await task).replica_id == "old"


@pytest.mark.parametrize("weight", [0, 50, 100])
async def test_a_side_without_a_replica_costs_nobody_an_answer(gateway: Gateway, weight: int):
    async with Backend("one") as one:
        for target in (one.target, on_trial(one.target)):
            gateway.publish(table(trying(target, weight=weight)))
            assert set(await answered(gateway, 4)) == {"one"}


@pytest.mark.parametrize("side", ["stable", "trial"])
async def test_a_side_that_refuses_connections_costs_nobody_an_answer(gateway: Gateway, side: str):
    async with Backend("alive") as alive:
        if side == "trial":
            targets = (alive.target, on_trial(nobody_listens("d1")), on_trial(nobody_listens("d2")))
        else:
            targets = (nobody_listens("d1"), nobody_listens("d2"), on_trial(alive.target))
        gateway.publish(table(trying(*targets, weight=50)))
        assert set(await answered(gateway, 10)) == {"alive"}
        assert set(gateway.in_flight().values()) == {0}


async def test_who_could_not_connect_tries_its_own_side_before_the_other(gateway: Gateway):
    async with Backend("old") as old, Backend("new") as new:
        targets = (old.target, on_trial(nobody_listens()), on_trial(new.target))
        gateway.publish(table(trying(*targets, weight=100)))
        assert set(await answered(gateway, 6)) == {"new"}


async def test_a_busy_side_is_waited_for_and_holds_up_nobody_of_the_other(gateway: Gateway):
    async with Gated("old") as old, Gated("new") as new:
        published = trying(old.target, on_trial(new.target), header=RULE, max_concurrency=1)
        gateway.publish(table(published))
        tasks = [ask(gateway, number, headers) for number, headers in enumerate([None, CANARY] * 2)]
        await old.wait_inside(1)
        await new.wait_inside(1)
        old.let_through(2)
        await asyncio.gather(tasks[0], tasks[2])  # while one still waits for the trial, before them
        assert gateway.load("deploy_a").queued == 1
        new.let_through(2)
        await asyncio.gather(*tasks)
        assert (old.order, new.order) == ([0, 2], [1, 3])


async def test_who_finds_its_part_of_the_queue_taken_goes_to_the_stable_side(gateway: Gateway):
    async with Gated("old") as old, Gated("new") as new:
        slots = Serving(max_concurrency=1)
        published = trying(
            old.target, on_trial(new.target, serving=slots), header=RULE, queue_depth=2
        )
        gateway.publish(table(published))
        tasks = [ask(gateway, number, CANARY) for number in range(4)]
        await new.wait_inside(1)  # one inside, one waits: half of the queue
        await old.wait_inside(2)
        old.let_through(2)
        new.let_through(2)
        await asyncio.gather(*tasks)
        assert (new.order, old.order) == ([0, 1], [2, 3])


async def test_who_waits_for_a_side_that_goes_takes_the_other(gateway: Gateway):
    async with Gated("old") as old, Backend("new") as new:
        gateway.publish(table(trying(old.target, on_trial(new.target), max_concurrency=1)))
        inside, waiting = ask(gateway, "inside"), ask(gateway, "waiting")
        await old.wait_inside(1)
        gateway.publish(table(trying(on_trial(new.target), max_concurrency=1)))
        assert (await waiting).replica_id == "new"
        old.let_through()
        assert (await inside).replica_id == "old"


async def test_a_revision_that_is_only_compared_never_answers_in_another_s_place(gateway: Gateway):
    async with Backend("old") as old, Backend("new") as new:
        gateway.publish(table(trying(on_trial(new.target), shadow_percent=100)))
        waiting = ask(gateway)
        await until(lambda: gateway.load("deploy_a").queued == 1)
        assert gateway.load("deploy_a").targets == 0
        gateway.publish(table(trying(old.target, on_trial(new.target), shadow_percent=100)))
        assert (await waiting).replica_id == "old"


async def test_who_may_only_hope_for_the_stable_side_is_refused_when_that_is_hopeless(
    gateway: Gateway,
):
    async with Gated("new") as new:
        narrow = on_trial(new.target, serving=Serving(max_concurrency=1))
        more = {"shadow_percent": 1, "header": RULE}
        gateway.publish(table(trying(narrow, **more)))
        stable, inside, waiting = ask(gateway, 1), ask(gateway, 2, CANARY), ask(gateway, 3, CANARY)
        await until(lambda: gateway.load("deploy_a").queued == 2)
        gateway.publish(table(trying(narrow, **more, hopeless=True, waiting_for="exits with 1")))
        with pytest.raises(ResourceUnavailableError, match="exits with 1"):
            await stable
        new.let_through(2)
        assert {(await each).replica_id for each in (inside, waiting)} == {"new"}


async def test_the_end_of_a_trial_frees_all_replicas_for_everyone(gateway: Gateway):
    async with Gated("old") as old, Backend("new") as new:
        gateway.publish(table(trying(old.target, on_trial(new.target), max_concurrency=1)))
        inside, waiting = ask(gateway, "inside"), ask(gateway, "waiting")
        await old.wait_inside(1)
        gateway.publish(table(route(old.target, new.target, max_concurrency=1)))
        assert (await waiting).replica_id == "new"
        assert gateway.trial_readings() == {}
        old.let_through()
        await inside


async def test_errors_and_latency_of_each_side_are_measured(gateway: Gateway):
    async with Backend("old") as old, Raw(BROKEN) as new:
        gateway.publish(table(trying(old.target, on_trial(new.target), weight=50)))
        tasks = [ask(gateway, number) for number in range(10)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, ProviderError) for result in results) == 5
        measured = reading(gateway)
        assert measured.key == "1"
        assert (measured.stable.requests, measured.stable.errors) == (5, 0)
        assert measured.stable.mean_ms is not None
        assert measured.trial == Reading(requests=5, errors=5, mean_ms=None)


async def test_the_time_in_the_queue_is_not_the_revision_s(gateway: Gateway):
    async with Backend("new") as new:
        gateway.publish(table(trying(waiting_for="starting", weight=100)))
        task = ask(gateway)
        await asyncio.sleep(0.05)
        published = time.perf_counter()
        gateway.publish(table(trying(on_trial(new.target), weight=100)))
        result = await task
        since_published = (time.perf_counter() - published) * 1000
        assert reading(gateway).trial.mean_ms == pytest.approx(result.inference_time_ms)
        assert result.inference_time_ms <= since_published, "it waited before, for nobody's fault"


async def test_a_container_that_is_late_has_failed(gateway: Gateway):
    async with Gated("new") as new:
        published = trying(on_trial(new.target), weight=100, request_timeout_seconds=0.1)
        gateway.publish(table(published))
        with pytest.raises(InferenceTimeoutError):
            await ask(gateway)
        assert (reading(gateway).trial.requests, reading(gateway).trial.errors) == (1, 1)


async def test_a_container_that_was_left_no_time_by_the_queue_has_not(gateway: Gateway):
    async with Gated("new") as new:
        more = {"weight": 100, "request_timeout_seconds": 0.2}
        gateway.publish(table(trying(waiting_for="starting", **more)))
        task = ask(gateway)
        await asyncio.sleep(0.15)
        gateway.publish(table(trying(on_trial(new.target), **more)))
        with pytest.raises((InferenceTimeoutError, ResourceUnavailableError)):
            await task
        assert reading(gateway) == TrialReading(key="1")


async def test_what_is_no_answer_is_not_measured(gateway: Gateway):
    async with Gated("new") as new:
        gateway.publish(table(trying(on_trial(new.target), weight=100)))
        cancelled = ask(gateway, "cancelled")
        await new.wait_inside(1)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert reading(gateway) == TrialReading(key="1")


async def test_a_new_key_counts_anew_and_nothing_of_the_time_before(gateway: Gateway):
    async with Gated("old") as old, Backend("new") as new:
        targets = (old.target, on_trial(new.target))
        gateway.publish(table(trying(*targets, weight=50)))
        before = [ask(gateway, number) for number in range(2)]
        await old.wait_inside(1)
        await until(lambda: reading(gateway).trial.requests == 1)
        gateway.publish(table(trying(*targets, weight=50)))  # the same key goes on
        assert reading(gateway).trial.requests == 1
        gateway.publish(table(trying(*targets, weight=60, key="2")))
        old.let_through()
        await asyncio.gather(*before)
        assert reading(gateway) == TrialReading(key="2")


async def test_what_each_revision_answered_is_counted(gateway: Gateway):
    async with Backend("old") as old, Backend("new") as new:
        gateway.publish(table(trying(old.target, on_trial(new.target), weight=25)))
        await answered(gateway, 8)
        by_revision = gateway.revision_totals()["deploy_a"]
        counts = {number: dict(totals.requests) for number, totals in by_revision.items()}
        assert counts == {1: {"ok": 6}, 2: {"ok": 2}}
        assert gateway.totals()["deploy_a"].requests == {"ok": 8}


async def test_demand_is_in_replicas(gateway: Gateway):
    now = 100.0
    gateway = Gateway(clock=lambda: now)
    gateway.publish(table(route(max_concurrency=4), route(deployment_id="deploy_b")))
    tasks = [ask(gateway, number) for number in range(6)]
    await until(lambda: gateway.load("deploy_a").queued == 6)
    now = 110.0
    assert gateway.demand() == {"deploy_a": 1.5, "deploy_b": 0.0}
    await gateway.close()
    await asyncio.gather(*tasks, return_exceptions=True)
