"""The transport to one client: what was written is counted, and it ends without losing an answer.

A socket that is closed with bytes unread takes back what its peer has not read yet. So the way out
is closed first, and what still comes in is thrown away for a moment, a little in each turn of the
event loop.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections import deque
from collections.abc import Iterable
from typing import Any

_LINGER_SECONDS = 2.0
_MOST_LINGER_SECONDS = 6.0  # while the client still sends
_READ_IN_A_TURN = 4  # connections, of each at most 256 KiB
_UNREAD = struct.Struct("i")
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time


class Discards:
    """Has few of the connections that linger read in each turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[ClientTransport] = deque()

    def wait(self, transport: "ClientTransport") -> None:
        """Have a connection read on when it is its turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        self._waiting.append(transport)

    def _turn(self) -> None:
        for _ in range(min(_READ_IN_A_TURN, len(self._waiting))):
            self._waiting.popleft().read_on()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)


class ClientTransport:
    """Stands in the place of the event loop's transport; aiohttp writes to it."""

    __slots__ = (
        "_closing",
        "_discards",
        "_inner",
        "_linger",
        "_lingers_until",
        "_sends",
        "written",
    )

    def __init__(self, inner: asyncio.Transport, discards: Discards) -> None:
        self._inner = inner
        self._discards = discards
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None
        self._lingers_until = 0.0
        self._sends = False  # since the lingering was looked at last
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def waiting(self) -> int:
        """How many bytes the client has not taken that were written."""
        return self._inner.get_write_buffer_size()

    @property
    def lingers(self) -> bool:
        """True once this end is closed, while the client's may still be open."""
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        self.written += len(data)
        self._inner.write(data)

    def writelines(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all of it."""
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        """Tell whether nothing can be sent any more."""
        return self._closing or self._inner.is_closing()

    def close(self) -> None:
        """Send what waits, then the end, and listen for a moment until the client ends it too."""
        if self.is_closing():
            return
        self._closing = True
        if not self._inner.can_write_eof():  # TLS has an end of its own
            self._inner.close()
            return
        try:
            self._inner.write_eof()
            self._inner.resume_reading()
        except (OSError, RuntimeError):
            self._inner.close()
            return
        loop = asyncio.get_running_loop()
        self._lingers_until = loop.time() + _MOST_LINGER_SECONDS
        self._linger = loop.call_later(_LINGER_SECONDS, self._end)

    def discard(self) -> None:
        """Take no note of what came in while this lingers, and wait for a turn to read more."""
        self._sends = True
        if not self._inner.is_closing():
            self._inner.pause_reading()
            self._discards.wait(self)

    def read_on(self) -> None:
        """Read what else comes in."""
        if not self._inner.is_closing():
            self._inner.resume_reading()

    def abort(self) -> None:
        """End it now. What waits is lost, in the kernel too, which would keep it for a client."""
        self._closing = True
        opened = self._inner.get_extra_info("socket")
        if opened is not None and opened.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._inner.abort()

    def end(self) -> None:
        """End it without waiting for the client; what waits is still sent."""
        self._closing = True
        self._inner.close()

    def lost(self) -> None:
        """Note that the connection is gone."""
        self._closing = True
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def unread(self) -> int:
        """Return how many bytes the client sent that nobody has read yet."""
        opened = self._inner.get_extra_info("socket")
        try:
            found = fcntl.ioctl(opened.fileno(), termios.FIONREAD, bytes(_UNREAD.size))
        except (OSError, ValueError, AttributeError):
            return 0
        return int(_UNREAD.unpack(found)[0])

    def refuse_more(self) -> bool:
        """Keep a local client from sending more, so that what it has sent is all there will be.

        Only a Unix socket can be told so; False for all others.
        """
        opened = self._inner.get_extra_info("socket")
        if opened is None or opened.family != socket.AF_UNIX:
            return False
        with contextlib.suppress(OSError):
            borrowed = socket.socket(fileno=opened.fileno())
            try:
                borrowed.shutdown(socket.SHUT_RD)
            finally:
                borrowed.detach()
        return True

    def _end(self) -> None:
        loop = asyncio.get_running_loop()
        sends, self._sends = self._sends and loop.time() < self._lingers_until, False
        # A client is waited for as long as it takes what was sent, which is watched elsewhere.
        if self.waiting or sends:
            self._linger = loop.call_later(_LINGER_SECONDS, self._end)
        else:
            self._inner.close()
