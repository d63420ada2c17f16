"""Reads from containers warily: however much one sends, the loop goes on with everyone else's work.

aiohttp parses at once all that a socket has, and counts neither answers nor chunks, so that a
container that sends provisional answers (1xx) without end, or chunks of one byte, would hold up the
whole daemon. Here a connection ends when it has many answers to one request, or far more framing
than content, and containers take turns in being read. Knows nothing of inference.
"""

import asyncio
import functools
from collections import deque
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from .read_turns import PacedProtocol, PacedReader, ReadTurns, Turn

_TURN = Turn(pieces=16, piece_bytes=16 * 1024, seconds=0.002)
_MOST_HEADS = 8  # that wait to be read: a provisional answer or two may come with the real one
_FREE_FRAMING = 64 * 1024
_LEAST_CONTENT = 4  # at least one byte in so many: less than chunks of two bytes have


class WaryConnector(aiohttp.TCPConnector):
    """Connections to containers. Has to be made in the loop that uses it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        loop = asyncio.get_running_loop()
        made = functools.partial(_WaryProtocol, ReadTurns(_TURN), _Resumed(loop), loop=loop)
        self._factory = made  # type: ignore[assignment]  # its subclass


class _Resumed:
    """Connections whose readers have room again: one is parsed on in each turn of the loop.

    aiohttp parses on at each chunk that is taken, so that one reader's call takes in as much as a
    container has sent.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[_WaryProtocol] = deque()

    def add(self, protocol: "_WaryProtocol") -> None:
        if not self._waiting:
            self._loop.call_soon(self._next)
        self._waiting.append(protocol)

    def _next(self) -> None:
        self._waiting.popleft().parse_on()
        if self._waiting:
            self._loop.call_soon(self._next)


class _WaryProtocol(PacedProtocol, ResponseHandler):
    _received = 0  # since the last head
    _resuming = False

    def __init__(
        self, turns: ReadTurns, resumed: _Resumed, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(loop=loop)
        self._turns = turns
        self._resumed = resumed
        self._reader: PacedReader | None = None

    @property
    def should_close(self) -> bool:
        """True too where more was sent than was asked for."""
        return super().should_close or (self._reader is not None and self._reader.waits)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._reader = PacedReader(self._turns, str(peer), self)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._reader is not None:
            self._reader.hand_over()  # an answer that came just before, and had no turn yet
            self._reader.close()
            self._reader = None  # which refers to this in turn: a cycle is freed late
        super().connection_lost(exc)

    def cut(self) -> None:
        self._refuse("it could not be read")

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        if not resume_parser:
            super().resume_reading(resume_parser)
        elif self._reading_paused and not self._resuming:
            self._resuming = True
            self._resumed.add(self)

    def parse_on(self) -> None:
        self._resuming = False
        if self._reading_paused and self.transport is not None:
            super().resume_reading()

    def data_received(self, data: bytes) -> None:
        if data and self._reader is not None:
            self._reader.receive(data)
        else:
            self.take(data)  # aiohttp goes on where it was

    def take(self, piece: bytes) -> None:
        self._received += len(piece)
        super().data_received(piece)
        if len(self) > _MOST_HEADS:
            self._refuse("several answers to one request")
        elif self._is_mostly_framing():
            self._refuse("more framing than content")

    def feed_data(self, data: Any, size: int = 0) -> None:
        self._received = 0
        super().feed_data(data, size)

    def _is_mostly_framing(self) -> bool:
        if self._received <= _FREE_FRAMING or self._reading_paused:
            return False
        content = 0 if self._payload is None else self._payload.total_bytes
        return content * _LEAST_CONTENT < self._received

    def _refuse(self, why: str) -> None:
        error = aiohttp.ClientConnectionError(why)
        self.set_exception(error)
        if self._payload is not None:
            self._payload.set_exception(error)
        if self._reader is not None:
            self._reader.close()
        if self.transport is not None:
            self.transport.abort()
