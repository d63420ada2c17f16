"""Connections: how long a client may take for a head and for an answer; malformed HTTP; the end.

What comes after a complete head is the application's.
"""

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong

from prsmd.api.client_transport import ClientTransport
from prsmd.api.connection_claims import ConnectionClaims
from prsmd.api.operations import REQUEST_ID
from prsmd.api.origin import source_of
from prsmd.api.request_heads import close_after
from prsmd.api.respond import error_response, mark, new_request_id
from prsmd.core.write_progress import WriteLimits, WriteProgress
from prsmd.domain.errors import InvalidInputError, PrsmdError, RequestTooLargeError
from prsmd.gateway.read_turns import PacedProtocol, PacedReader

if TYPE_CHECKING:
    from prsmd.api.http_server import HttpServer

log = logging.getLogger(__name__)
_BUFFER_BYTES = 32 * 1024  # of a body; aiohttp holds a quarter as many chunks, however small
_FREE_FRAMING = 64 * 1024  # bytes of a body, and what of the last piece is not parsed yet
_LEAST_CONTENT = 2  # at least one byte in so many has to be content
_LINGER_SECONDS = 5.0  # an unread body is thrown away for so long that its sender reads the answer
_RECENT_SECONDS = 5.0  # a connection that was used so shortly ago is about to be used again
_TURN_SECONDS = 1.0  # how long a client may take from an answer to its next request


@dataclasses.dataclass(slots=True, kw_only=True)
class Patience:
    """How long a client is waited for, and how long each line of a head may be.

    Connections that are made after it was changed go by what it is then.

    `header_seconds` is from a head's first byte, or from the connection's beginning, to its last
    byte; `idle_seconds` is between an answer and the next request; `write` is how fast it has to
    take an answer.
    """

    header_seconds: float
    idle_seconds: float
    header_bytes: int
    write: WriteLimits


class Connection(PacedProtocol, web.RequestHandler):
    """One client's connection.

    aiohttp ends idle ones; this ends those with a head half sent and those whose answer is not
    taken, whoever writes it: an abort cancels the handler, which gives back what it holds.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_deadline",
        "_head_begun",
        "_header_seconds",
        "_http_server",
        "_progress",
        "_quiet_since",
        "_reader",
        "_resuming",
        "_takes_no_more",
        "claims",
        "line",
    )

    def __init__(self, server: "HttpServer", patience: Patience, claims: ConnectionClaims) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,  # nothing is unpacked for whom nobody has let in yet
            access_log=None,  # type: ignore[arg-type]  # its own default is the annotated type
            keepalive_timeout=patience.idle_seconds,
            lingering_time=min(_LINGER_SECONDS, patience.header_seconds),
            max_line_size=patience.header_bytes,
            max_field_size=patience.header_bytes,
            read_bufsize=_BUFFER_BYTES,
        )
        self.claims = claims
        self.line: ClientTransport | None = None
        self._http_server = server
        self._header_seconds = patience.header_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._progress = WriteProgress(patience.write)
        self._quiet_since = 0.0
        self._head_begun = False
        self._takes_no_more = False
        self._reader: PacedReader | None = None
        self._body: StreamReader | None = None
        self._body_bytes = 0
        self._resuming = False

    @property
    def finished(self) -> bool:
        """True when this end is closed and the client has all that was sent."""
        return self.line is None or (self.line.lingers and not self.line.waiting)

    @property
    def ends_with_next_answer(self) -> bool:
        """True when the server stops and nothing is asked beyond the request that is answered."""
        return self._http_server.stopping and not self._messages and not self._unparsed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect the first head from now on."""
        server = self._http_server
        self.line = ClientTransport(transport, server.discards)  # type: ignore[arg-type]  # a stream's it is
        super().connection_made(self.line)  # type: ignore[arg-type]  # it stands in its place
        self._reader = PacedReader(server.read_turns, source_of(transport), self)
        self._quiet_since = asyncio.get_running_loop().time()
        server.opened(self)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read, when it is this connection's turn; without `data` aiohttp goes on where it was."""
        if self.line is None or self._reader is None:
            return
        if self.line.lingers:
            self.line.discard()
            return
        self._quiet_since = asyncio.get_running_loop().time()
        if data:
            self._reader.receive(data)
        else:
            self.take(data)

    def take(self, piece: bytes) -> None:
        """Parse; a byte of an incomplete head starts the clock, a complete one stops it."""
        before = self._request_count
        super().data_received(piece)
        if self._request_count != before:
            self._body, self._body_bytes = self._messages[-1][1], 0
        else:
            self._refuse_framing(len(piece))
        self._head_begun = bool(piece) and self._head_is_due()
        if not self._head_is_due():
            self._forget_deadline()
        elif self._deadline is None:
            self._expect_head()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp's says None only
        """Keep what cannot be sent more still open for answers, where it was this end's doing."""
        return True if self._takes_no_more else None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clocks with the connection, and give back what it counted in."""
        self._forget_deadline()
        if self._reader is not None:
            self._reader.close()
        if self.line is not None:
            self.line.lost()
        self.line = self._reader = self._body = None  # they refer to this: a cycle is freed late
        self.claims.release()
        self._http_server.closed(self)
        super().connection_lost(exc)

    def cut(self) -> None:
        """End it."""
        self.force_close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the rest of an answer; the connection is quiet from now on.

        Where it ends with this answer, what is unread of the body is not parsed any more.
        """
        sent = await super().finish_response(request, resp, start_time)
        if not resp.keep_alive and self.line is not None and self.line.can_write_eof():
            self._lingering_time = 0.0
        self._quiet_since = asyncio.get_running_loop().time()
        return sent

    def check_progress(self, seconds: float) -> None:
        """Cut it if its client does not take what is sent; `seconds` passed since the last look."""
        line = self.line
        if line is None:
            return
        waiting = line.waiting
        if self._progress.too_slow(seconds, line.written - waiting, waiting):
            log.info("a client did not take its answer in time; %d bytes were left", waiting)
            line.abort()

    def retire(self, now: float, since: float) -> None:
        """Close it if nothing is asked and nothing is about to be, while the server stops `since`.

        What a client sends in this very moment is still read and answered: a local one is kept
        from sending first; on a network, the gap is that between two calls of the kernel.
        """
        line = self.line
        if line is None or line.lingers or self._head_begun or not self._head_is_due():
            return
        if self._unparsed:
            return
        quiet = now - max(self._quiet_since, since)
        if self._quiet_since > since - _RECENT_SECONDS and quiet < _TURN_SECONDS:
            return
        if line.unread():
            return
        if not self._takes_no_more and line.refuse_more():
            self._takes_no_more = True
            if line.unread():
                return
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's words may quote raw bytes
    ) -> web.StreamResponse:
        """Answer HTTP that cannot be parsed, or what escaped the application, in the envelope."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        request[REQUEST_ID] = new_request_id()
        if status >= 500:
            log.error("request failed", exc_info=exc, extra={"request_id": request[REQUEST_ID]})
        response = error_response(request, _refusal(status, exc))
        mark(response, request[REQUEST_ID])
        close_after(response)
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what failed here; a body that cannot be decoded was the client's and is answered."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        """Parse on in a turn of the loop: aiohttp asks for it at each chunk that is taken."""
        if not resume_parser:
            super().resume_reading(resume_parser)
        elif self._reading_paused and not self._resuming:
            self._resuming = True
            self._loop.call_soon(self._parse_on)

    def _parse_on(self) -> None:
        self._resuming = False
        if self._reading_paused and self.transport is not None:
            super().resume_reading()

    @property
    def _unparsed(self) -> bool:
        return self._reader is not None and self._reader.waits

    def _refuse_framing(self, received: int) -> None:
        """Give up a body of tiny chunks: each costs more to parse than a thousand bytes do."""
        self._body_bytes += received
        body = self._body
        if body is None or body.is_eof():
            return
        if body.total_bytes * _LEAST_CONTENT + _FREE_FRAMING < self._body_bytes:
            body.set_exception(web.RequestPayloadError("more framing than content"))
            self.close()

    def _head_is_due(self) -> bool:
        # aiohttp has no public word for it: nothing is queued, handled or just handed over.
        waiting = self._waiter is None or not self._waiter.done()
        return waiting and not self._messages and not self._request_in_progress

    def _expect_head(self) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._header_seconds, self._give_up)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._head_is_due():
            self.force_close()


def _refusal(status: int, error: BaseException | None) -> PrsmdError:
    if isinstance(error, LineTooLong):
        return RequestTooLargeError("A line of the request's head is longer than accepted here.")
    if status < 500:
        return InvalidInputError.field("request", "is not well-formed HTTP")
    return PrsmdError("Something failed here; see the log.")
