"""Hands what others sent to their connections, a little of it in each turn of the event loop.

Whatever a thousand clients or containers send in the same moment, and however much parsing it
costs, everything else has its turn in between, and the addresses that it comes from are served one
after the other. Reads nothing into what was sent.
"""

import asyncio
import dataclasses
import logging
import time
from collections import deque
from typing import Protocol

from aiohttp.base_protocol import BaseProtocol

from prsmd.core.round_robin import RoundRobin

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How much is handed over in one turn: at most so many pieces, for about so long."""

    pieces: int
    piece_bytes: int
    seconds: float


class Receiver(Protocol):
    """What is handed the pieces: a connection."""

    def take(self, piece: bytes) -> None:
        """Parse what came next."""
        ...

    @property
    def full(self) -> bool:
        """True while it can take nothing more."""
        ...

    def hold(self) -> None:
        """Let the other end wait with sending."""
        ...

    def go_on(self) -> None:
        """Let the other end send again."""
        ...

    def cut(self) -> None:
        """End the connection, which failed to take a piece."""
        ...


class PacedProtocol(BaseProtocol):
    """What aiohttp's connections of clients and to containers share: both read what waits first."""

    __slots__ = ()
    _reader: "PacedReader | None"

    @property
    def full(self) -> bool:
        """True while aiohttp takes nothing more: a body or messages wait for who reads them."""
        return self._reading_paused or self._buffer_paused

    def hold(self) -> None:
        """Have the transport read nothing more."""
        self._pause_transport_reading()

    def go_on(self) -> None:
        """Have the transport read again, unless aiohttp holds it back."""
        if not self.full:
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        # aiohttp takes more: first what is here already.
        if self._reader is not None and self._reader.waits:
            self._reader.go_on()
        else:
            super()._resume_transport_reading()


class ReadTurns:
    """Whose pieces wait, and how much of this turn is left. For one event loop."""

    def __init__(self, turn: Turn) -> None:
        self.piece_bytes = turn.piece_bytes
        self._turn_bounds = turn
        self._waiting: RoundRobin[PacedReader] = RoundRobin()
        self._pieces = 0
        self._seconds = 0.0
        self._next: asyncio.Handle | None = None

    def enter(self, reader: "PacedReader") -> None:
        """Hand over a piece of a reader that has some: now, or when it is its turn."""
        if self._waiting or not self._room():
            self._waiting.push(reader.source, reader)
        else:
            self._hand_over(reader)
        self._expect_next()

    def expect(self, reader: "PacedReader") -> None:
        """Hand over a piece of a reader when it is its turn, not before the next one."""
        self._waiting.push(reader.source, reader)
        self._expect_next()

    def _turn(self) -> None:
        """Begin a new turn. What the last one's pieces began has run by now."""
        self._next = None
        self._pieces, self._seconds = 0, 0.0
        while self._waiting and self._room():
            self._hand_over(self._waiting.pop()[1])
        if self._pieces:
            self._expect_next()

    def _room(self) -> bool:
        bounds = self._turn_bounds
        return self._pieces < bounds.pieces and self._seconds < bounds.seconds

    def _hand_over(self, reader: "PacedReader") -> None:
        began = time.perf_counter()
        more = reader.hand_over()
        self._pieces += 1
        self._seconds += time.perf_counter() - began
        if more:
            self._waiting.push(reader.source, reader)

    def _expect_next(self) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)


class PacedReader:
    """What one connection received and has not been handed yet. `source` shares its turns."""

    __slots__ = ("_at", "_data", "_held", "_receiver", "_turns", "_waits", "source")

    def __init__(self, turns: ReadTurns, source: str, receiver: Receiver) -> None:
        self.source = source
        self._turns = turns
        self._receiver = receiver
        self._data: deque[bytes] = deque()
        self._at = 0
        self._waits = False
        self._held = False

    @property
    def waits(self) -> bool:
        """True while something was received that was not handed over."""
        return bool(self._data)

    def receive(self, data: bytes) -> None:
        """Take what was sent; nothing more is sent until all of it was handed over."""
        self._data.append(data)
        if not self._waits and not self._receiver.full:
            self._waits = True
            self._turns.enter(self)
        if self._data and not self._held:
            self._held = True
            self._receiver.hold()

    def go_on(self) -> None:
        """Wait for a turn again, after the receiver was full."""
        if self._data and not self._waits and not self._receiver.full:
            self._waits = True
            self._turns.expect(self)

    def hand_over(self) -> bool:
        """Hand over one piece, and tell whether there is more. For the turns only."""
        if not self._data or self._receiver.full:  # it was closed, or filled, while it waited
            self._waits = False
            return False
        data = self._data[0]
        piece = data[self._at : self._at + self._turns.piece_bytes]
        self._at += len(piece)
        if self._at >= len(data):
            self._data.popleft()
            self._at = 0
        try:
            self._receiver.take(piece)
        except Exception:
            log.exception("a connection failed to read")
            self.close()
            self._receiver.cut()
        self._waits = bool(self._data) and not self._receiver.full
        if self._data:
            return self._waits
        if self._held:
            self._held = False
            self._receiver.go_on()
        return False

    def close(self) -> None:
        """Forget what was not handed over."""
        self._data.clear()
        self._at = 0
