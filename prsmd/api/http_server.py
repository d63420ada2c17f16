"""The HTTP server: its connections from their acceptance to their end, and how it stops.

While it stops it serves what arrives on open connections and closes each with its next answer; who
connects meanwhile waits in the listening socket, which may be somebody else's.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from prsmd.api.acceptor import Acceptor
from prsmd.api.client_transport import Discards
from prsmd.api.connection_claims import ConnectionClaims
from prsmd.api.connections import Connection, Patience
from prsmd.api.operations import UNDERWAY
from prsmd.api.request_heads import close_after
from prsmd.api.streams import OPEN_STREAMS
from prsmd.domain.errors import DaemonStoppingError
from prsmd.gateway.read_turns import ReadTurns, Turn

log = logging.getLogger(__name__)
_MOST_BETWEEN_LOOKS = 1.0
_LOOKS_EACH_TIMEOUT = 8
_RETIRE_SECONDS = 0.02
_FLUSH_TURNS = 3
_LAST_SECONDS = 1.0  # for errors that were just sent
# Each piece can begin a request, which takes two milliseconds; in chunks of one byte, so many
# bytes take five milliseconds to parse.
_TURN = Turn(pieces=2, piece_bytes=4 * 1024, seconds=0.004)


class HttpServer(web.Server):
    """aiohttp's server of one application, with connections that do not wait for ever."""

    def __init__(self, handler: Any, *, patience: Patience, **arguments: Any) -> None:
        super().__init__(handler, **arguments)
        self.stopping = False
        self.read_turns = ReadTurns(_TURN)
        self.discards = Discards()
        self.patience = patience
        self._open: set[Connection] = set()
        timeout = patience.write.timeout_seconds
        self._pause = min(_MOST_BETWEEN_LOOKS, timeout / _LOOKS_EACH_TIMEOUT)
        self._next_look: asyncio.TimerHandle | None = None
        self._looked_at = 0.0

    @property
    def unfinished(self) -> Sequence[Connection]:
        """The connections whose clients may still be answered."""
        return [connection for connection in self._open if not connection.finished]

    def connection(self, claims: ConnectionClaims) -> Connection:
        """Return what handles a new connection."""
        return Connection(self, self.patience, claims)

    def opened(self, connection: Connection) -> None:
        """Note a connection."""
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """Note that a connection is gone."""
        self._open.discard(connection)

    def watch(self) -> None:
        """Look from now on whether clients take their answers."""
        loop = asyncio.get_running_loop()
        self._looked_at = loop.time()
        self._next_look = loop.call_later(self._pause, self._look)

    def unwatch(self) -> None:
        """Look no more."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def retire_idle(self, since: float) -> None:
        """Close the connections that nobody is about to use."""
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._open):
            connection.retire(now, since)

    async def end_all(self) -> None:
        """End what is still open, with what was sent on its way."""
        for connection in tuple(self._open):
            if connection.line is not None:
                connection.line.end()
        for _ in range(_FLUSH_TURNS):
            await asyncio.sleep(0)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        # Time in which the loop itself stood still counts for no client.
        seconds = min(now - self._looked_at, 2 * self._pause)
        self._looked_at = now
        for connection in tuple(self._open):
            connection.check_progress(seconds)
        self._next_look = loop.call_later(self._pause, self._look)


class Runner(web.AppRunner):
    """Serves the application on listeners that it does not own."""

    def __init__(self, application: web.Application, patience: Patience) -> None:
        application.on_response_prepare.append(_close_while_stopping)
        super().__init__(application, shutdown_timeout=1.0)
        self.patience = patience
        self._acceptors: list[Acceptor] = []
        self._stopped_at = 0.0

    @property
    def http_server(self) -> HttpServer:
        """The server, once it is set up."""
        assert isinstance(self.server, HttpServer)  # noqa: S101 - made below
        return self.server

    @property
    def names(self) -> Sequence[str]:
        """Where it listens."""
        return [acceptor.name for acceptor in self._acceptors]

    def listen(self, acceptor: Acceptor) -> None:
        """Take connections of a listener from now on."""
        self._acceptors.append(acceptor)
        acceptor.start(self.http_server.connection)

    async def drain(self, seconds: float) -> int:
        """Take no more connections, and let the open ones finish what they are about.

        Returns how many were still answered when the time was over (0: all finished).
        """
        self._stopped_at = asyncio.get_running_loop().time()
        self.http_server.stopping = True
        for acceptor in self._acceptors:
            acceptor.stop()
        self.app[OPEN_STREAMS].end_endless()
        return await self._until_finished(seconds)

    async def cut(self, why: str) -> None:
        """End what is still answered: streams as broken off, what was only asked with an error."""
        self.app[UNDERWAY].end_all(DaemonStoppingError(why, resource_type="daemon"))
        await self._until_finished(_LAST_SECONDS)

    async def cleanup(self) -> None:
        """Cancel what is left and end every connection."""
        for acceptor in self._acceptors:
            acceptor.stop()
            await acceptor.close()
        server = self.server
        await super().cleanup()
        if isinstance(server, HttpServer):
            server.unwatch()
            await server.end_all()

    async def _until_finished(self, seconds: float) -> int:
        server, loop = self.http_server, asyncio.get_running_loop()
        began = loop.time()
        while server.unfinished or any(each.under_way for each in self._acceptors):
            if loop.time() >= began + seconds:
                return len(server.unfinished)
            await asyncio.sleep(_RETIRE_SECONDS)
            server.retire_idle(self._stopped_at)
        return 0

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = HttpServer(
            made.request_handler,
            patience=self.patience,
            request_factory=made.request_factory,
            handler_cancellation=True,
        )
        server.watch()
        return server


async def _close_while_stopping(request: web.Request, response: web.StreamResponse) -> None:
    protocol = request.protocol
    if isinstance(protocol, Connection) and protocol.ends_with_next_answer:
        close_after(response)
