"""A container that sends without end is cut off soon, and keeps the loop from nobody meanwhile."""

import asyncio
import socket

import aiohttp
import pytest

from prsmd.domain.errors import ProviderError
from prsmd.gateway.infer import Gateway
from prsmd.gateway.read_turns import ReadTurns, Turn
from prsmd.gateway.wary import WaryConnector, _Resumed, _WaryProtocol
from tests.gateway.backends import Backend, Endless, Raw, route, table, until
from tests.support.asking import asking

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "provisional answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "several answers"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", "several answers"),
    "chunks of one byte": (CHUNKED, b"1\r\nx\r\n", "more framing than content"),
    "a chunk's extension": (CHUNKED + b"1;", b"a=b;", "more framing than content"),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n", "did not answer in HTTP"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", "did not answer in HTTP"),
    "one header": (b"HTTP/1.1 200 OK\r\nA: ", b"b", "did not answer in HTTP"),
    "a reason": (b"HTTP/1.1 200 ", b"x", "did not answer in HTTP"),
    "empty lines": (b"", b"\r\n", "more framing than content"),
    "a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x", "larger than"),
    "a body without an end": (b"HTTP/1.1 200 OK\r\n\r\n", b"x", "larger than"),
    "chunks": (CHUNKED, b"400\r\n" + b"x" * 1024 + b"\r\n", "larger than"),
}


@pytest.mark.parametrize(("answer", "more", "message"), FLOODS.values(), ids=FLOODS)
async def test_a_flood_is_cut_off_and_the_others_are_answered(
    gateway: Gateway, answer: bytes, more: bytes, message: str
) -> None:
    async with Endless(answer, more) as flood, Backend() as neighbour:
        beside = route(neighbour.target, deployment_id="deploy_b", model_id="custom_b")
        hostile = route(flood.target)
        gateway.publish(table(hostile, beside))
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            answers = [
                group.create_task(gateway.infer(beside, asking(inputs=1, request_id=f"b{number}")))
                for number in range(8)
            ]
            with pytest.raises(ProviderError, match=message):
                await gateway.infer(hostile, asking(inputs=1, request_id="a"))
        assert all(each.result() for each in answers)
        assert flood.sent < 16 * MIB  # what sockets take in, not what a timeout would let through


async def test_what_follows_an_answer_is_not_taken_for_the_next(gateway: Gateway) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + b'{"outputs": 1}'
    async with Endless(ok, ok) as flood:
        hostile = route(flood.target)
        gateway.publish(table(hostile))
        for number in range(3):
            await gateway.infer(hostile, asking(inputs=1, request_id=f"a{number}"))
        assert flood.connections == 3


async def test_a_provisional_answer_before_the_real_one_is_nothing_to_complain_of(
    gateway: Gateway,
) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + b'{"outputs": 1}'
    async with Raw(early + ok) as patient:
        gateway.publish(table(route(patient.target)))
        await gateway.infer(route(patient.target), asking(inputs=1, request_id="a"))


async def test_a_large_answer_in_small_chunks_comes_through_whole() -> None:
    """Chunks as small as a token; flow control holds the connection back in between."""
    text = b"".join(b"8\r\n%08d\r\n" % number for number in range(100_000)) + b"0\r\n\r\n"
    async with (
        Raw(CHUNKED + text) as server,
        aiohttp.ClientSession(connector=WaryConnector(), read_bufsize=4096) as session,
        asyncio.timeout(60),
        session.get(f"http://{server.target.endpoint}/") as response,
    ):
        body = bytearray()
        while piece := await response.content.read(1000):
            body += piece
            await asyncio.sleep(0)  # a slow reader, so that reading is paused
    assert bytes(body) == b"".join(b"%08d" % number for number in range(100_000))


async def test_taking_what_is_there_has_nothing_more_parsed_in_the_same_call() -> None:
    text = b"".join(b"8\r\n%08d\r\n" % number for number in range(200_000))
    async with (
        Raw(CHUNKED + text) as server,
        aiohttp.ClientSession(connector=WaryConnector(), read_bufsize=4096) as session,
        asyncio.timeout(60),
        session.get(f"http://{server.target.endpoint}/") as response,
    ):
        content = response.content
        for _ in range(20):
            await content.read(1)
            parsed = content.total_bytes
            content.read_nowait()
            assert content.total_bytes == parsed
            assert parsed < len(text) / 4  # else it would prove nothing


async def test_an_answer_that_came_just_before_the_end_is_read():
    loop = asyncio.get_running_loop()
    turns = ReadTurns(Turn(pieces=0, piece_bytes=1024, seconds=1.0))  # it is never its turn
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        protocol = _WaryProtocol(turns, _Resumed(loop), loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        protocol.set_response_params()
        await until(lambda: protocol._reader is not None and protocol._reader.waits)

        transport.abort()

        head, payload = await protocol.read()
        assert (head.code, await payload.read()) == (413, b"no")
