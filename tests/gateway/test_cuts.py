"""Cuts of our own making: whatever ends the container's body, a cut answer is told as cut."""

import asyncio

import pytest

from prsmd.domain.errors import PrsmdError, ResourceUnavailableError
from prsmd.gateway.infer import Gateway, Inference
from tests.gateway.backends import Gated, Raw, route, table, until

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
