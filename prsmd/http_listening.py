"""Makes the HTTP server from its sections of the settings: patience, bounds, and its listeners."""

import os
import socket
import ssl
from collections.abc import Sequence

from aiohttp import web

from prsmd.api.acceptor import Acceptor, Admission, DescriptorReserve
from prsmd.api.connection_claims import CONNECTION_LIMITS
from prsmd.api.connections import Patience
from prsmd.api.http_server import Runner
from prsmd.api.identity import DOOR
from prsmd.api.origin import peer_of
from prsmd.connection_bounds import write_limits_of
from prsmd.core.forwarding import plain
from prsmd.core.networks import allows
from prsmd.domain.quantity import parse_memory
from prsmd.settings import Settings

_KEPT_DESCRIPTORS = 24


async def serve(
    application: web.Application,
    settings: Settings,
    sockets: Sequence[socket.socket],
    tls: ssl.SSLContext | None,
    *,
    owned: bool,
) -> Runner:
    """Serve the application on listeners; those that are not `owned` outlive this process.

    `tls` is for those of the network.
    """
    limits = settings.limits
    patience = Patience(
        header_seconds=limits.header_timeout_seconds,
        idle_seconds=limits.idle_timeout_seconds,
        header_bytes=parse_memory(limits.header),
        write=write_limits_of(limits),
    )
    door = application[DOOR]
    admission = Admission(
        limits=application[CONNECTION_LIMITS],
        reserve=DescriptorReserve(_KEPT_DESCRIPTORS),
        whose=lambda client: _whose(client, door.proxies.networks),
        handshake_seconds=limits.header_timeout_seconds,
    )
    runner = Runner(application, patience)
    await runner.setup()
    for listener in sockets:
        local = listener.family == socket.AF_UNIX
        runner.listen(Acceptor(listener, admission, None if local else tls, owned=owned))
    return runner


def _whose(client: socket.socket, proxies: Sequence[str]) -> tuple[str, bool]:
    """Return who opened a connection, "" for a trusted proxy, and whether they are operators."""
    if client.family == socket.AF_UNIX:
        uid = peer_of(client).uid
        return f"unix:uid={uid}", uid in {0, os.geteuid()}
    try:
        address = plain(client.getpeername()[0]) or ""
    except OSError:  # it has hung up already
        return "unknown", False
    return "" if allows(proxies, address) else address, False
