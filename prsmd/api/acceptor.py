"""Takes connections of one listener, within the bounds, and without taking the last descriptor.

It stops without closing the listener, in which clients then wait for the next daemon. When the
process runs out of descriptors the network waits, and local clients are served from a reserve.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import socket
import ssl
from collections.abc import Callable

from prsmd.api.connection_claims import ConnectionClaims, claim_connection, refusal
from prsmd.api.connections import Connection
from prsmd.api.handshake_turns import HandshakeTurns
from prsmd.api.origin import address_of
from prsmd.api.respond import error_bytes
from prsmd.core.connection_limits import ConnectionLimits, Exceeded
from prsmd.core.exhaustion import is_exhausted
from prsmd.domain.errors import PrsmdError

log = logging.getLogger(__name__)
_AT_ONCE = 4  # connections taken before others have their turn: a millisecond or two of it
_BETWEEN_SECONDS = 0.001
_PAUSE_SECONDS = 0.25  # when no descriptor is left
_MOST_READ = 65536
_LENT_AT_ONCE = 8  # its socket, and a database's files that nobody has open yet
_LAST_SECONDS = (
    3.0  # for handshakes that had begun when it stopped: who is silent is not waited for
)

_Make = Callable[[ConnectionClaims], Connection]


class DescriptorReserve:
    """Descriptors that are kept open for nothing, so that they can be had when none is left."""

    def __init__(self, count: int) -> None:
        self._wanted = count
        self._kept: list[int] = []
        self.refill()

    def lend(self) -> bool:
        """Free enough for a connection and what is opened for it; False when all are lent."""
        if not self._kept:
            return False
        for _ in range(min(_LENT_AT_ONCE, len(self._kept))):
            os.close(self._kept.pop())
        return True

    def refill(self) -> None:
        """Take back what can be had."""
        with contextlib.suppress(OSError):
            while len(self._kept) < self._wanted:
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Keep nothing any more."""
        self._wanted = 0
        while self._kept:
            os.close(self._kept.pop())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who is let in. `whose` names who opened a socket ("": a trusted proxy) and tells operators.

    Operators have a reserve.
    """

    limits: ConnectionLimits
    reserve: DescriptorReserve
    whose: Callable[[socket.socket], tuple[str, bool]]
    handshake_seconds: float


class Acceptor:
    """One listener's. `tls` None: connections are not encrypted.

    A listener that is `owned` is nobody's after this process, and is closed when it stops.
    """

    def __init__(
        self,
        listener: socket.socket,
        admission: Admission,
        tls: ssl.SSLContext | None = None,
        *,
        owned: bool = False,
    ) -> None:
        self._owned = owned
        address = listener.getsockname()
        self.name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self._listener = listener
        self._local = listener.family == socket.AF_UNIX
        self._admission = admission
        self._tls = tls
        self._handshakes = HandshakeTurns()
        self._make: _Make | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._short = self._stopping = False

    @property
    def under_way(self) -> bool:
        """True while a connection is taken that is not a connection yet."""
        return bool(self._opening)

    def start(self, make: _Make) -> None:
        """Take connections from now on; `make` gives what handles one."""
        self._make = make
        self._listener.settimeout(0.0)
        self._listen()

    def stop(self) -> None:
        """Take none any more. Who waits in another's listener waits for the next daemon."""
        if self._make is None:
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._stopping = True
        if self._owned:
            while self._accept_some():
                pass
            self._listener.close()
        self._make = None
        asyncio.get_running_loop().call_later(_LAST_SECONDS, self._give_up)

    async def close(self) -> None:
        """Give up connections that are no connections yet."""
        self._give_up()
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _give_up(self) -> None:
        for task in tuple(self._opening):
            task.cancel()

    def _accept(self) -> None:
        """Take some of those who wait, and where there may be more, leave those for a moment."""
        if self._accept_some():
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener.fileno())
            self._pause = loop.call_later(_BETWEEN_SECONDS, self._listen)

    def _accept_some(self) -> bool:
        """Take some of those who wait; False when nobody does, or none can be taken now."""
        for _ in range(_AT_ONCE):
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except ConnectionError:
                continue  # it was given up before it was taken
            except OSError as error:
                if not is_exhausted(error):
                    raise
                if not (self._local and self._admission.reserve.lend()):
                    self._wait(error)
                    return False
                continue
            self._admit(client)
        return True

    def _admit(self, client: socket.socket) -> None:
        client.settimeout(0.0)
        whose, operator = self._admission.whose(client)
        claims = claim_connection(
            self._admission.limits, whose, network=not self._local, operator=operator
        )
        if isinstance(claims, Exceeded):
            self._turn_away(client, refusal(claims))
            return
        assert self._make is not None  # noqa: S101 - else nobody would be taken
        task = asyncio.get_running_loop().create_task(
            self._open(client, claims, self._make), name=f"accept:{self.name}"
        )
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket, claims: ConnectionClaims, make: _Make) -> None:
        try:
            seconds = self._admission.handshake_seconds
            timeouts = {} if self._tls is None else {"ssl_handshake_timeout": seconds}
            if self._tls is not None:
                await self._handshakes.wait(client, address_of(client), seconds)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: make(claims), client, ssl=self._tls, **timeouts
            )
        except (OSError, ssl.SSLError) as error:  # it hung up, or speaks no TLS
            log.debug("a connection came to nothing: %s", error)
            client.close()
            claims.release()
        except BaseException:
            client.close()
            claims.release()
            raise

    def _turn_away(self, client: socket.socket, error: PrsmdError) -> None:
        """Say why, if that can be done at once, and close."""
        with client:
            if self._tls is not None:
                return
            with contextlib.suppress(OSError):
                client.send(error_bytes(error))
                client.shutdown(socket.SHUT_WR)
                client.recv(_MOST_READ)  # what is left unread would take the answer back

    def _wait(self, error: OSError) -> None:
        """Leave who connects in the listener for a moment."""
        loop = asyncio.get_running_loop()
        if not self._short:
            log.error("no connection can be taken on %s: %s", self.name, error.strerror)
        self._short = True
        loop.remove_reader(self._listener.fileno())
        if self._stopping:
            return
        self._pause = loop.call_later(_PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._admission.reserve.refill()
        self._short = False
        self._listen()

    def _listen(self) -> None:
        self._pause = None
        if self._make is not None:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)
