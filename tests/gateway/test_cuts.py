"""Cuts of our own making: whatever ends the container's body, a cut answer is told as cut."""

import asyncio
import dataclasses

import pytest

from prsmd.core.trial import Trial
from prsmd.domain.errors import ProviderError, PrsmdError, ResourceUnavailableError
from prsmd.gateway.infer import Gateway, Inference
from tests.gateway.backends import Backend, Gated, NeverAccepts, Raw, route, table, until

EVENT = b"data: one\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FRAMINGS = {
    "ends with the connection": HEAD + b"\r\n" + EVENT,
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(EVENT), EVENT),
    "a length": HEAD + b"Content-Length: 999\r\n\r\n" + EVENT,
}
WHY = "its drain timeout is over"


async def streamed(gateway: Gateway) -> list[bytes]:
    """Infer and return every chunk of the stream."""
    found = gateway.find("acme", "custom_a")
    assert found is not None
    result = await gateway.infer(found, Inference(inputs=b"1", request_id="r", stream=True))
    assert result.stream is not None
    async with result.stream as stream:
        return [chunk async for chunk in stream]


async def close(gateway: Gateway, _backend: Raw) -> str:
    await gateway.close()
    return "the daemon is stopping"


async def stop_replica(gateway: Gateway, backend: Raw) -> str:
    """Do as the executor does: say it first, then end the container."""
    gateway.cut_off(backend.target.replica_id, WHY)
    backend._release.set()
    return WHY


async def release(_gateway: Gateway, backend: Raw) -> str:
    """Let the container end by itself."""
    backend._release.set()
    return ""


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("cut", [close, stop_replica])
async def test_a_stream_that_we_cut_ends_with_the_reason_however_its_body_ends(
    gateway: Gateway, framing, cut
):
    async with Raw(FRAMINGS[framing], linger=True) as backend:
        gateway.publish(table(route(backend.target)))
        stream = asyncio.create_task(streamed(gateway))
        await until(lambda: backend.connections == 1 and gateway.load("deploy_a").in_flight == 1)
        await asyncio.sleep(0)

        why = await cut(gateway, backend)

        with pytest.raises(ResourceUnavailableError, match=why):
            await stream
    assert gateway.load("deploy_a").in_flight == 0
    totals = gateway.totals()["deploy_a"].requests
    assert {outcome.value for outcome, count in totals.items() if count} == {"unavailable"}


async def test_a_stream_that_ends_by_itself_is_whole(gateway: Gateway):
    async with Raw(FRAMINGS["ends with the connection"], linger=True) as backend:
        gateway.publish(table(route(backend.target)))
        stream = asyncio.create_task(streamed(gateway))
        await until(lambda: backend.connections == 1)
        await release(gateway, backend)

        assert b"".join(await stream) == EVENT


async def test_only_what_the_stopped_replica_works_on_is_cut(gateway: Gateway):
    async with Gated("r1") as one, Gated("r2") as other:
        gateway.publish(table(route(one.target, other.target, max_concurrency=1)))
        found = gateway.find("acme", "custom_a")
        assert found is not None
        tasks = [
            asyncio.create_task(
                gateway.infer(found, Inference(inputs=b"%d" % n, request_id=str(n)))
            )
            for n in range(3)  # the third waits in the queue
        ]
        await one.wait_inside(1)
        await other.wait_inside(1)

        gateway.cut_off("r1", WHY)
        await until(lambda: any(task.done() for task in tasks))
        other.let_through(3)
        one.let_through(3)
        ended = await asyncio.gather(*tasks, return_exceptions=True)

    errors = [each for each in ended if isinstance(each, BaseException)]
    assert len(errors) == 1
    assert isinstance(errors[0], PrsmdError)
    assert errors[0].message == WHY


async def test_what_was_not_sent_to_a_stopped_replica_yet_goes_to_another(gateway: Gateway):
    with NeverAccepts() as hung:
        async with Backend("alive") as alive:
            gateway.publish(table(route(hung, alive.target, max_concurrency=1)))
            found = gateway.find("acme", "custom_a")
            assert found is not None
            tasks = [
                asyncio.create_task(
                    gateway.infer(found, Inference(inputs=b"1", request_id=str(number)))
                )
                for number in range(2)
            ]
            await until(lambda: any(task.done() for task in tasks))
            assert gateway.in_flight() == {"hung": 1, "alive": 0}

            gateway.cut_off("hung", WHY)

            results = await asyncio.gather(*tasks)
            assert {result.replica_id for result in results} == {"alive"}
            assert gateway.in_flight() == {"hung": 0, "alive": 0}
            assert "hung 0/1 suspect" in repr(gateway)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"])
async def test_a_replica_whose_exchange_broke_off_is_asked_no_more_while_another_is_free(
    gateway: Gateway, answer: bytes
):
    async with Raw(answer) as ending, Backend("alive") as alive:
        gateway.publish(table(route(ending.target, alive.target)))
        found = gateway.find("acme", "custom_a")
        assert found is not None

        async def infer() -> str:
            result = await gateway.infer(found, Inference(inputs=b"1", request_id="r"))
            return result.replica_id

        ended = await asyncio.gather(*[infer() for _ in range(2)], return_exceptions=True)
        later = [await infer() for _ in range(8)]

    assert [isinstance(each, ProviderError) for each in ended].count(True) == 1
    assert later == ["alive"] * 8
    assert ending.connections == 1


async def test_a_replica_on_trial_is_judged_by_its_trial_and_not_avoided(gateway: Gateway):
    async with Raw(b"") as ending, Backend("alive") as alive:
        on_trial = dataclasses.replace(ending.target, on_trial=True, revision=2)
        wanted = route(on_trial, alive.target, trial=Trial(key="t", weight=100))
        gateway.publish(table(wanted))
        for _ in range(5):
            with pytest.raises(ProviderError):
                await gateway.infer(wanted, Inference(inputs=b"1", request_id="r"))

    assert ending.connections == 5
