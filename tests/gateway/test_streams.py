"""Event streams pass through chunk by chunk and hold their slot until they are closed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from prsmd.domain.errors import InferenceTimeoutError, ProviderError
from prsmd.gateway.infer import Gateway, InferenceResult, Outcome
from tests.gateway.backends import Backend, Raw, RouteTarget, route, table
from tests.support.asking import asking, outputs_of

EVENTS = [b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n"]


class Streaming(Backend):
    """Sends one event whenever `step` is released."""

    def __init__(self) -> None:
        super().__init__("r1", self._stream)
        self.step = asyncio.Semaphore(0)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        assert "text/event-stream" in request.headers["Accept"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for event in EVENTS:
            await self.step.acquire()
            await response.write(event)
        return response


@pytest.fixture
async def backend() -> AsyncIterator[Streaming]:
    async with Streaming() as backend:
        yield backend


async def ask(gateway: Gateway, target: RouteTarget, seconds: float = 20.0) -> InferenceResult:
    published = route(target, request_timeout_seconds=seconds)
    gateway.publish(table(published))
    return await gateway.infer(published, asking(inputs=1, request_id="r", stream=True))


async def test_each_event_arrives_before_the_next_is_made(gateway: Gateway, backend: Streaming):
    result = await ask(gateway, backend.target)
    assert outputs_of(result) is None
    assert result.stream is not None
    async with result.stream as stream:
        for event in EVENTS:
            backend.step.release()
            assert await anext(stream) == event
            assert gateway.in_flight() == {"r1": 1}
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert gateway.in_flight() == {"r1": 0}
    assert gateway.totals()["deploy_a"].requests == {Outcome.OK: 1}


async def test_closing_early_cuts_the_container_off_and_gives_the_slot_back(
    gateway: Gateway, backend: Streaming
):
    result = await ask(gateway, backend.target)
    assert result.stream is not None
    backend.step.release()
    await anext(result.stream)
    await result.stream.aclose()
    assert gateway.in_flight() == {"r1": 0}
    await backend.wait_inside(0)
    assert [chunk async for chunk in result.stream] == []
    assert gateway.totals()["deploy_a"].requests == {Outcome.CANCELLED: 1}


async def test_a_reader_that_is_cancelled_gives_the_slot_back(gateway: Gateway, backend: Streaming):
    result = await ask(gateway, backend.target)
    assert result.stream is not None
    reader = asyncio.ensure_future(anext(result.stream))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert gateway.in_flight() == {"r1": 0}


async def test_a_stream_that_pauses_for_the_request_timeout_ends(
    gateway: Gateway, backend: Streaming
):
    result = await ask(gateway, backend.target, seconds=0.2)
    assert result.stream is not None
    with pytest.raises(InferenceTimeoutError, match=r"paused for 0\.2 s"):
        await anext(result.stream)
    assert gateway.in_flight() == {"r1": 0}
    assert gateway.totals()["deploy_a"].requests == {Outcome.TIMEOUT: 1}


async def test_a_stream_that_breaks_off_says_so(gateway: Gateway):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 50\r\n\r\n"
    async with Raw(head + EVENTS[0]) as backend:
        result = await ask(gateway, backend.target)
        assert result.stream is not None
        assert await anext(result.stream) == EVENTS[0]
        with pytest.raises(ProviderError, match="broke off"):
            await anext(result.stream)
        assert gateway.totals()["deploy_a"].requests == {Outcome.PROVIDER_ERROR: 1}


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@pytest.mark.parametrize("half", [b'data: {"token": "ha', b"data: two\n", b"d"])
async def test_a_stream_that_a_closed_connection_ends_within_an_event_is_not_whole(
    gateway: Gateway, half: bytes
):
    async with Raw(HEAD + b"\r\n" + EVENTS[0] + half) as backend:
        result = await ask(gateway, backend.target)
        assert result.stream is not None
        with pytest.raises(ProviderError, match="ended within an event"):
            async for _ in result.stream:
                pass
        assert set(gateway.in_flight().values()) == {0}
        assert gateway.totals()["deploy_a"].requests == {Outcome.PROVIDER_ERROR: 1}


WHOLE = {
    "closed": HEAD + b"\r\n" + b"".join(EVENTS),
    "closed at once": HEAD + b"\r\n",
    "other line ends": HEAD + b"\r\n" + b"data: one\r\n\r\n",
    "a sloppy end with its length": HEAD + b"Content-Length: 9\r\n\r\ndata: one",
    "a sloppy end in chunks": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: one\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", WHOLE)
async def test_a_stream_with_its_end_is_whole(gateway: Gateway, kind: str):
    async with Raw(WHOLE[kind]) as backend:
        result = await ask(gateway, backend.target)
        assert result.stream is not None
        chunks = [chunk async for chunk in result.stream]
        assert WHOLE[kind].endswith(b"".join(chunks)) or kind == "a sloppy end in chunks"
        assert gateway.totals()["deploy_a"].requests == {Outcome.OK: 1}


async def test_a_model_that_does_not_stream_may_answer_at_once(gateway: Gateway):
    async with Backend() as backend:
        result = await ask(gateway, backend.target)
        assert (result.stream, outputs_of(result)) == (None, {"replica": "r1"})


async def test_an_error_status_is_no_stream(gateway: Gateway):
    head = b"HTTP/1.1 500 No\r\nContent-Type: text/event-stream\r\nContent-Length: 4\r\n\r\nboom"
    async with Raw(head) as backend:
        with pytest.raises(ProviderError, match="status 500: boom"):
            await ask(gateway, backend.target)


async def test_draining_waits_for_a_stream(gateway: Gateway, backend: Streaming):
    result = await ask(gateway, backend.target)
    assert result.stream is not None
    drain = asyncio.create_task(gateway.drain(20), name="drain")
    for _ in EVENTS:
        backend.step.release()
    assert b"".join([chunk async for chunk in result.stream]) == b"".join(EVENTS)
    assert await drain == 0
