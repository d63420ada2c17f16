"""Reads from a connection, and from what trusted proxies add, where a request comes from."""

import asyncio
import dataclasses
import socket
import struct
from collections.abc import Sequence

from aiohttp import web

from prsmd.core.forwarding import client_address, hops_of, plain
from prsmd.domain.errors import InvalidInputError
from prsmd.domain.origin import Origin, Peer

_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred


@dataclasses.dataclass(frozen=True, slots=True)
class Proxies:
    """The networks of the proxies that are believed, and the header in which they tell."""

    networks: Sequence[str] = ()
    header: str = "X-Forwarded-For"


ORIGIN = web.RequestKey("origin", Origin)


def origin_of(request: web.Request, proxies: Proxies) -> Origin:
    """Return where a request comes from. InvalidInputError where a proxy tells what is no address.

    What callers write who are no trusted proxy is not looked at.
    """
    known = request.get(ORIGIN)
    if known is None:
        known = request[ORIGIN] = _found(request, proxies)
    return known


def peer_of(opened: socket.socket) -> Peer:
    """Return the process that opened a Unix socket."""
    size = _PEER_CREDENTIALS.size
    credentials = opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, gid = _PEER_CREDENTIALS.unpack(credentials)
    return Peer(pid=pid, uid=uid, gid=gid)


def _found(request: web.Request, proxies: Proxies) -> Origin:
    opened = unix_socket(request)
    if opened is not None:
        return Origin(peer=peer_of(opened))
    hop = plain(request.remote or "") or ""
    if not proxies.networks:
        return Origin(ip=hop, hop=hop)
    hops = hops_of(proxies.header, request.headers.getall(proxies.header, ()))
    address = client_address(hop, hops, proxies.networks)
    if address is None:
        request[ORIGIN] = Origin(ip=hop, hop=hop)
        raise InvalidInputError.field(proxies.header, "names what is no address")
    return Origin(ip=address, hop=hop)


def unix_socket(request: web.Request) -> socket.socket | None:
    """Return the socket of a local caller; None for one on TCP."""
    found = request.transport.get_extra_info("socket") if request.transport else None
    return found if found is not None and found.family == socket.AF_UNIX else None


def source_of(transport: asyncio.BaseTransport) -> str:
    """Return a name of who opened a connection: an address, or a local user."""
    opened = transport.get_extra_info("socket")
    if opened is not None and opened.family == socket.AF_UNIX:
        credentials = opened.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size
        )
        return f"uid:{_PEER_CREDENTIALS.unpack(credentials)[1]}"
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def address_of(client: socket.socket) -> str:
    """Return the address that a socket on a network is connected to; "" when it is gone."""
    try:
        return str(client.getpeername()[0])
    except OSError:
        return ""
