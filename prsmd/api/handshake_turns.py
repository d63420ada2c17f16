"""Begins TLS handshakes one by one, addresses in turn, and only with clients that said hello.

To sign for a handshake takes about a millisecond of the event loop: what hundreds ask for at once
is done over as many of its turns, with a pause for everything else in between. Who connects and
says nothing, or half a hello, takes part in nothing.
"""

import asyncio
import socket

from prsmd.core.round_robin import RoundRobin

_PAUSE_SECONDS = 0.002
# RFC 8446, section 5.1: type, version and length of a record, which has 2^14 bytes at most.
_RECORD_HEAD = 5
_HANDSHAKE = 22
_MOST_RECORD = 2**14


class HandshakeTurns:
    """Whose handshake waits to begin. For one event loop."""

    def __init__(self) -> None:
        self._waiting: RoundRobin[asyncio.Future[None]] = RoundRobin()
        self._next: asyncio.Handle | None = None

    async def wait(self, client: socket.socket, source: str, seconds: float) -> None:
        """Return when the client's hello is here, or what is none, and it is its turn.

        TimeoutError: it was not here in so many seconds.
        """
        async with asyncio.timeout(seconds):
            await _hello(client)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.push(source, turn)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)
        await turn

    def _turn(self) -> None:
        self._next = None
        while self._waiting:
            _, turn = self._waiting.pop()
            if not turn.done():  # it did not give up meanwhile
                turn.set_result(None)
                self._next = asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._turn)
                return


async def _hello(client: socket.socket) -> None:
    """Wait for the first record, of which nothing is taken; or for what shows that it is none."""
    await _readable(client, 1)
    if len(client.recv(_RECORD_HEAD, socket.MSG_PEEK)) < _RECORD_HEAD:
        await _readable(client, _RECORD_HEAD)
    head = client.recv(_RECORD_HEAD, socket.MSG_PEEK)
    size = int.from_bytes(head[3:5])
    if len(head) == _RECORD_HEAD and head[0] == _HANDSHAKE and size <= _MOST_RECORD:
        await _readable(client, _RECORD_HEAD + size)


async def _readable(client: socket.socket, size: int) -> None:
    """Wait until so many bytes can be read, or the client has ended."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(client.fileno(), _settle, readable)
    try:
        await readable
    finally:
        loop.remove_reader(client.fileno())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
