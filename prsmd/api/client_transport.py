"""The transport to one client: what was written is counted, and it ends without losing an answer.

A socket that is closed with bytes unread takes back what its peer has not read yet. So the way out
is closed first, and what still comes in is thrown away for a moment.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Iterable
from typing import Any

_LINGER_SECONDS = 2.0
_UNREAD = struct.Struct("i")
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time


class ClientTransport:
    """Stands in the place of the event loop's transport; aiohttp writes to it."""

    __slots__ = ("_closing", "_inner", "_linger", "written")

    def __init__(self, inner: asyncio.Transport) -> None:
        self._inner = inner
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None
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
        self._linger = loop.call_later(_LINGER_SECONDS, self._end)

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
        if self.waiting:  # as long as it takes what was sent, which is watched elsewhere
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(_LINGER_SECONDS, self._end)
        else:
            self._inner.close()
