"""Choosing, waiting, retrying and giving back, against real HTTP servers on loopback."""

import asyncio

import pytest

from prsmd.domain.errors import (
    InferenceTimeoutError,
    QueueFullError,
    ResourceUnavailableError,
)
from prsmd.gateway.infer import Gateway, GatewaySettings, InferenceResult, Outcome
from tests.gateway.backends import Backend, Gated, NeverAccepts, nobody_listens, route, table, until
from tests.support.asking import asking, outputs_of
from tests.support.exhausted import no_descriptors


def ask(gateway: Gateway, inputs: object = "x") -> "asyncio.Task[InferenceResult]":
    found = gateway.find("acme", "custom_a")
    assert found is not None
    inference = asking(inputs=inputs, request_id=f"req-{inputs}")
    return asyncio.create_task(gateway.infer(found, inference), name=f"infer-{inputs}")


def outcomes(gateway: Gateway) -> dict[Outcome, int]:
    return dict(gateway.totals()["deploy_a"].requests)


async def test_an_inference_reaches_the_container_and_its_outputs_come_back(gateway: Gateway):
    async with Backend() as backend:
        gateway.publish(table(route(backend.target)))
        found = gateway.find("acme", "custom_a")
        assert found is not None
        inference = asking(inputs={"text": "hi"}, parameters={"k": 1}, request_id="req-1")
        result = await gateway.infer(found, inference)
        assert outputs_of(result) == {"replica": "r1"}
        assert (result.replica_id, result.model_version) == ("r1", "1.2.3")
        assert result.inference_time_ms > 0
        assert backend.bodies == [{"inputs": {"text": "hi"}, "parameters": {"k": 1}}]


async def test_the_container_sees_its_request_id_and_nothing_of_the_client(gateway: Gateway):
    async with Backend() as backend:
        gateway.publish(table(route(backend.target)))
        await ask(gateway, "1")
        assert set(backend.requests[0].headers) == {
            "Host", "X-Request-ID", "Content-Type", "Content-Length", "Accept", "Accept-Encoding",
        }  # fmt: skip
        assert backend.requests[0].headers["X-Request-ID"] == "req-1"


async def test_the_spec_chooses_the_path(gateway: Gateway):
    async with Backend() as backend:
        gateway.publish(table(route(backend.target, predict_path="/v2/go%20on")))
        await ask(gateway)
        assert backend.requests[0].raw_path == "/v2/go%20on"


async def test_150_at_once_over_two_replicas_never_exceed_the_concurrency_of_either(
    gateway: Gateway,
):
    async with Gated("r1") as one, Gated("r2") as two:
        gateway.publish(table(route(one.target, two.target, max_concurrency=7, queue_depth=136)))
        tasks = [ask(gateway, number) for number in range(150)]
        await one.wait_inside(7)
        await two.wait_inside(7)
        assert (gateway.load("deploy_a").in_flight, gateway.load("deploy_a").queued) == (14, 136)
        one.let_through(150)
        two.let_through(150)
        results = await asyncio.gather(*tasks)
        assert {result.replica_id for result in results} == {"r1", "r2"}
        assert (one.most_inside, two.most_inside) == (7, 7)
        assert len(one.requests) + len(two.requests) == 150
        assert gateway.in_flight() == {"r1": 0, "r2": 0}
        assert outcomes(gateway) == {Outcome.OK: 150}


async def test_idle_replicas_take_turns(gateway: Gateway):
    async with Backend("r1") as one, Backend("r2") as two:
        gateway.publish(table(route(one.target, two.target)))
        for number in range(10):
            await ask(gateway, number)
        assert (len(one.requests), len(two.requests)) == (5, 5)


async def test_the_queue_holds_exactly_its_depth_and_refuses_the_next(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=2, queue_depth=3)))
        accepted = [ask(gateway, number) for number in range(5)]
        await backend.wait_inside(2)
        with pytest.raises(QueueFullError) as caught:
            await ask(gateway, "one too many")
        assert caught.value.message == (
            "all 2 slots of 1 replica are busy and the queue is full (3 of 3)"
        )
        assert caught.value.details["limit_type"] == "queue_depth"
        assert caught.value.details["limit"] == 3
        assert caught.value.details["retry_after_seconds"] >= 1
        backend.let_through(5)
        await asyncio.gather(*accepted)
        assert outcomes(gateway) == {Outcome.OK: 5, Outcome.QUEUE_FULL: 1}


async def test_the_queue_is_first_in_first_out(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1)))
        tasks = [ask(gateway, number) for number in range(20)]
        backend.let_through(20)
        await asyncio.gather(*tasks)
        assert backend.order == list(range(20))


async def test_a_waiting_inference_times_out_and_leaves_the_queue(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1)))
        first = ask(gateway, "first")
        await backend.wait_inside(1)
        quick = route(backend.target, max_concurrency=1, request_timeout_seconds=0.05)
        gateway.publish(table(quick))
        with pytest.raises(InferenceTimeoutError, match=r"no slot became free within 0\.05 s"):
            await ask(gateway, "second")
        assert gateway.load("deploy_a").queued == 0
        backend.let_through()
        await first
        assert backend.order == ["first"]


async def test_a_slow_container_times_out_and_its_slot_is_given_back(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, request_timeout_seconds=0.1)))
        with pytest.raises(InferenceTimeoutError, match=r"the model did not answer within 0\.1 s"):
            await ask(gateway)
        assert gateway.in_flight() == {"r1": 0}
        assert outcomes(gateway) == {Outcome.TIMEOUT: 1}
        await backend.wait_inside(0)  # the connection was cut, so the container knows


async def test_a_client_that_goes_away_gives_its_slot_to_the_next(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1)))
        leaves, stays = ask(gateway, "leaves"), ask(gateway, "stays")
        await backend.wait_inside(1)
        leaves.cancel()
        await until(lambda: "stays" in backend.order)
        backend.let_through()
        await stays
        assert leaves.cancelled()
        assert gateway.in_flight() == {"r1": 0}
        assert outcomes(gateway) == {Outcome.CANCELLED: 1, Outcome.OK: 1}


async def test_a_client_that_goes_away_while_waiting_leaves_the_queue(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1)))
        tasks = [ask(gateway, number) for number in range(3)]
        await backend.wait_inside(1)
        tasks[1].cancel()
        await until(tasks[1].done)
        assert gateway.load("deploy_a").queued == 1
        backend.let_through(2)
        await asyncio.gather(tasks[0], tasks[2])
        assert backend.order == [0, 2]


async def test_a_client_that_goes_away_just_as_it_is_served_loses_no_slot(gateway: Gateway):
    async with Backend() as backend:
        starting = route(waiting_for="1 replica is starting")
        gateway.publish(table(starting))
        task = ask(gateway)
        await until(lambda: gateway.load("deploy_a").queued == 1)
        gateway.publish(table(route(backend.target)))  # counts a slot for the task
        assert gateway.in_flight() == {"r1": 1}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert gateway.in_flight() == {"r1": 0}


async def test_a_client_that_went_away_just_before_it_is_served_loses_no_slot(gateway: Gateway):
    async with Backend() as backend:
        gateway.publish(table(route(waiting_for="1 replica is starting")))
        task = ask(gateway)
        await until(lambda: gateway.load("deploy_a").queued == 1)
        task.cancel()
        gateway.publish(table(route(backend.target)))
        await asyncio.gather(task, return_exceptions=True)
        assert gateway.in_flight() == {"r1": 0}


async def test_a_refused_connection_is_tried_on_another_replica(gateway: Gateway):
    async with Backend("alive") as backend:
        gateway.publish(table(route(nobody_listens(), backend.target)))
        results = await asyncio.gather(*[ask(gateway, number) for number in range(8)])
        assert {result.replica_id for result in results} == {"alive"}
        assert gateway.in_flight() == {"dead": 0, "alive": 0}
        assert "dead 0/8 suspect" in repr(gateway)


async def test_who_cannot_connect_for_want_of_descriptors_blames_no_replica(gateway: Gateway):
    async with Backend("r1") as one, Backend("r2") as two:
        gateway.publish(table(route(one.target, two.target)))
        with no_descriptors(), pytest.raises(ResourceUnavailableError) as caught:
            await ask(gateway)
        assert caught.value.details["reason"] == "Too many open files"
        assert gateway.in_flight() == {"r1": 0, "r2": 0}
        assert "suspect" not in repr(gateway)
        await ask(gateway)
        assert outcomes(gateway) == {Outcome.UNAVAILABLE: 1, Outcome.OK: 1}


async def test_a_connection_that_never_comes_about_is_tried_on_another_replica():
    gateway = Gateway(GatewaySettings(connect_timeout_seconds=0.05))
    await gateway.start()
    with NeverAccepts() as hung:
        async with Backend("alive") as backend:
            gateway.publish(table(route(hung, backend.target)))
            results = [await ask(gateway, number) for number in range(3)]
            assert {result.replica_id for result in results} == {"alive"}
            assert "hung 0/8 suspect" in repr(gateway)
            assert gateway.in_flight() == {"hung": 0, "alive": 0}
    await gateway.close()


async def test_when_no_replica_accepts_an_inference_waits_and_then_says_so(gateway: Gateway):
    dead = (nobody_listens("d1"), nobody_listens("d2"))
    gateway.publish(table(route(*dead, request_timeout_seconds=0.2)))
    with pytest.raises(ResourceUnavailableError) as caught:
        await ask(gateway)
    assert caught.value.details["resource_type"] == "replica"
    assert caught.value.details["reason"] == "no replica accepts connections"
    assert gateway.in_flight() == {"d1": 0, "d2": 0}
    assert outcomes(gateway) == {Outcome.UNAVAILABLE: 1}


async def test_when_no_replica_accepts_only_a_queue_of_inferences_waits(gateway: Gateway):
    gateway.publish(table(route(nobody_listens("d1"), nobody_listens("d2"), queue_depth=2)))
    tasks = [ask(gateway, number) for number in range(4)]
    await until(lambda: sum(task.done() for task in tasks) == 2)
    assert gateway.load("deploy_a").queued == 2
    async with Backend("alive") as backend:
        gateway.publish(table(route(backend.target, queue_depth=2)))
        results = await asyncio.gather(*tasks, return_exceptions=True)
    answered = [result for result in results if isinstance(result, InferenceResult)]
    refused = [result for result in results if isinstance(result, ResourceUnavailableError)]
    assert (len(answered), len(refused)) == (2, 2)
    assert {error.message for error in refused} == {"no replica accepts connections"}


async def test_a_replica_that_was_killed_costs_nobody_who_was_not_inside(gateway: Gateway):
    gateway.publish(table(route(nobody_listens("killed"))))
    tasks = [ask(gateway, number) for number in range(8)]
    await until(lambda: gateway.load("deploy_a").queued == 8)
    async with Backend("next") as backend:
        gateway.publish(table(route(waiting_for="1 replica is starting")))
        gateway.publish(table(route(backend.target)))
        assert {result.replica_id for result in await asyncio.gather(*tasks)} == {"next"}


async def test_a_retry_waits_before_those_who_came_later(gateway: Gateway):
    async with Gated("alive") as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1)))
        first = ask(gateway, "first")
        await backend.wait_inside(1)
        gateway.publish(table(route(backend.target, nobody_listens(), max_concurrency=1)))
        retried = ask(gateway, "retried")
        later = ask(gateway, "later")
        await until(lambda: gateway.load("deploy_a").queued == 2)  # both met the dead one
        assert gateway.in_flight() == {"alive": 1, "dead": 0}
        backend.let_through(3)
        await asyncio.gather(first, retried, later)
        assert backend.order == ["first", "retried", "later"]


async def test_without_a_replica_an_inference_waits_for_the_cold_start(gateway: Gateway):
    async with Backend() as backend:
        gateway.publish(table(route(waiting_for="scaled to zero")))
        task = ask(gateway)
        await until(lambda: gateway.load("deploy_a").queued == 1)
        assert gateway.idle_since("deploy_a") is None
        gateway.publish(table(route(backend.target)))
        assert outputs_of(await task) == {"replica": "r1"}


async def test_a_cold_start_that_takes_too_long_says_what_it_waited_for(gateway: Gateway):
    waiting = route(waiting_for="pulling the image", request_timeout_seconds=0.05)
    gateway.publish(table(waiting))
    with pytest.raises(ResourceUnavailableError) as caught:
        await ask(gateway)
    assert caught.value.details["reason"] == "pulling the image"
    assert caught.value.message == "no replica became ready within 0.05 s: pulling the image"


async def test_a_hopeless_route_refuses_at_once_and_refuses_who_waits(gateway: Gateway):
    gateway.publish(table(route(waiting_for="1 replica is starting")))
    waiting = ask(gateway)
    await until(lambda: gateway.load("deploy_a").queued == 1)
    gateway.publish(table(route(waiting_for="the container exits with 1", hopeless=True)))
    for task in (waiting, ask(gateway)):
        with pytest.raises(ResourceUnavailableError) as caught:
            await task
        assert caught.value.details["reason"] == "the container exits with 1"


async def test_a_deployment_that_goes_refuses_who_waits_and_finishes_what_runs(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1)))
        running, waiting = ask(gateway, "running"), ask(gateway, "waiting")
        await backend.wait_inside(1)
        gateway.publish(table())
        assert gateway.find("acme", "custom_a") is None
        with pytest.raises(ResourceUnavailableError, match="the deployment is gone"):
            await waiting
        assert gateway.in_flight() == {"r1": 1}
        backend.let_through()
        assert outputs_of(await running) == {"replica": "r1"}
        gateway.publish(table())
        assert gateway.in_flight() == {}
        assert gateway.totals() == {}


async def test_a_route_from_before_its_deployment_went_is_refused(gateway: Gateway):
    async with Backend() as backend:
        old = route(backend.target)
        with pytest.raises(ResourceUnavailableError, match="the deployment is gone"):
            await gateway.infer(old, asking(inputs=1, request_id="r"))
        assert backend.requests == []


async def test_a_replica_that_leaves_the_table_is_counted_until_it_finished(gateway: Gateway):
    async with Gated("old") as old, Backend("new") as new:
        gateway.publish(table(route(old.target)))
        running = ask(gateway, "running")
        await old.wait_inside(1)
        gateway.publish(table(route(new.target)))
        assert gateway.in_flight() == {"old": 1, "new": 0}
        assert (await ask(gateway, "next")).replica_id == "new"
        old.let_through()
        assert (await running).replica_id == "old"
        assert gateway.in_flight() == {"new": 0}


async def test_models_are_found_by_id_and_name_in_their_organization_only(gateway: Gateway):
    ours = route()
    theirs = route(deployment_id="deploy_b", organization="rival", model_name="rival-a")
    gateway.publish(table(ours, theirs))
    assert gateway.find("acme", "custom_a") == ours
    assert gateway.find("acme", "acme-a") == ours
    assert gateway.find("rival", "custom_a") == theirs
    assert gateway.find("acme", "rival-a") is None
    assert gateway.find(None, "rival-a") == theirs
    assert gateway.find(None, "custom_a") is None  # whose? it is not for us to choose


async def test_idleness_begins_when_the_last_inference_ends():
    now = 100.0
    gateway = Gateway(clock=lambda: now)
    await gateway.start()
    async with Gated() as backend:
        gateway.publish(table(route(backend.target)))
        assert gateway.idle_since("deploy_a") == 100.0
        now = 200.0
        task = ask(gateway)
        await backend.wait_inside(1)
        assert gateway.idle_since("deploy_a") is None
        now = 300.0
        backend.let_through()
        await task
        assert gateway.idle_since("deploy_a") == 300.0
        assert gateway.idle_since("deploy_of_nobody") is None
    await gateway.close()
