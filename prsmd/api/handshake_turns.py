"""Begins TLS handshakes one by one, addresses in turn, and only with clients that have spoken.

To sign for a handshake takes about a millisecond of the event loop: what hundreds ask for at once
is done over as many of its turns, with a pause for everything else in between. Who connects and
says nothing takes part in nothing.
"""

import asyncio
import socket

from prsmd.core.round_robin import RoundRobin

_PAUSE_SECONDS = 0.002


class HandshakeTurns:
    """Whose handshake waits to begin. For one event loop."""

    def __init__(self) -> None:
        self._waiting: RoundRobin[asyncio.Future[None]] = RoundRobin()
        self._next: asyncio.Handle | None = None

    async def wait(self, client: socket.socket, source: str, seconds: float) -> None:
        """Return when the client has sent something and it is its turn.

        TimeoutError: it sent nothing for so many seconds.
        """
        async with asyncio.timeout(seconds):
            await _readable(client)
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


async def _readable(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(client.fileno(), _settle, readable)
    try:
        await readable
    finally:
        loop.remove_reader(client.fileno())


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
