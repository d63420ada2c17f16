"""Connections: how long a client may take for a request's head, and what malformed HTTP is told.

What comes after a complete head is the application's.
"""

import asyncio
import dataclasses
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from prsmd.api.operations import REQUEST_ID
from prsmd.api.request_heads import close_after
from prsmd.api.respond import error_response, mark, new_request_id
from prsmd.domain.errors import InvalidInputError, PrsmdError, RequestTooLargeError

log = logging.getLogger(__name__)
_LINGER_SECONDS = 5.0  # an unread body is thrown away for so long that its sender reads the answer


@dataclasses.dataclass(slots=True, kw_only=True)
class Patience:
    """How long a client is waited for, and how long each line of a head may be.

    Connections that are made after it was changed go by what it is then.

    `header_seconds` is from a head's first byte, or from the connection's beginning, to its last
    byte; `idle_seconds` is between an answer and the next request.
    """

    header_seconds: float
    idle_seconds: float
    header_bytes: int


class Runner(web.AppRunner):
    """Serves the application on connections that do not wait for ever."""

    def __init__(self, application: web.Application, patience: Patience) -> None:
        super().__init__(application, shutdown_timeout=1.0)
        self.patience = patience

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            patience=self.patience,
            request_factory=made.request_factory,
            handler_cancellation=True,
        )


class _Server(web.Server):
    def __init__(self, handler: Any, *, patience: Patience, **arguments: Any) -> None:
        super().__init__(handler, **arguments)
        self._patience = patience

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self._patience)


class Connection(web.RequestHandler):
    """One client's connection. aiohttp ends idle ones; this ends those with a head half sent."""

    __slots__ = ("_deadline", "_header_seconds")

    def __init__(self, server: web.Server, patience: Patience) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,  # nothing is unpacked for whom nobody has let in yet
            access_log=None,  # type: ignore[arg-type]  # its own default is the annotated type
            keepalive_timeout=patience.idle_seconds,
            lingering_time=min(_LINGER_SECONDS, patience.header_seconds),
            max_line_size=patience.header_bytes,
            max_field_size=patience.header_bytes,
        )
        self._header_seconds = patience.header_seconds
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect the first head from now on."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read; a byte of an incomplete head starts the clock, a complete one stops it."""
        super().data_received(data)
        if not self._head_is_due():
            self._forget_deadline()
        elif self._deadline is None:
            self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clock with the connection."""
        self._forget_deadline()
        super().connection_lost(exc)

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
