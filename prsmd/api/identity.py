"""Who sends a request: which proof counts, and what is left of what they may send."""

import dataclasses
import socket
import struct
import time
from collections.abc import Callable, Sequence

from aiohttp import web

from prsmd.core.meter import Standing
from prsmd.domain.access import Principal
from prsmd.domain.errors import InvalidApiKeyError
from prsmd.gateway.meters import Held, tightest
from prsmd.service.access import Access, Identified
from prsmd.service.throttle import Throttle
from prsmd.service.underway import Underway

LEFT = web.RequestKey("left", Standing)
_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """How callers are let in.

    `hosts` are the names that TCP clients may use in `Host`; `is_replica` tells whether an address
    is a model's container, which may not call at all.
    """

    access: Access
    underway: Underway
    throttle: Throttle
    hosts: frozenset[str]
    is_replica: Callable[[str], bool]
    body_bytes: int
    body_seconds: float
    header_bytes: int


async def identify(request: web.Request, door: Door) -> Identified:
    """Return who calls: by a key or token where one is given, else the Unix peer.

    Raises:
        InvalidApiKeyError: nobody that is known here.
    """
    text = _credential(request)
    if text is None:
        return door.access.by_peer(*_peer(request))
    address = None if unix_socket(request) is not None else request.remote or ""
    return await door.access.by_credential(text, address)


async def count(request: web.Request, door: Door, principal: Principal) -> None:
    """Count a request in the limits of its key. RateLimitedError where one is reached."""
    limits = door.throttle.limits(principal)
    if limits is not None:
        held = await door.throttle.admit(principal, limits)
        held.end(counts=True)
        note_left(request, (held,))


def note_left(request: web.Request, held: Sequence[Held]) -> None:
    """Have the answer say what is left of the limits that the request is counted in."""
    left = tightest(held, time.time())
    if left is not None:
        request[LEFT] = left


def unix_socket(request: web.Request) -> socket.socket | None:
    """Return the socket of a local caller; None for one on TCP."""
    found = request.transport.get_extra_info("socket") if request.transport else None
    return found if found is not None and found.family == socket.AF_UNIX else None


def _credential(request: web.Request) -> str | None:
    text = request.headers.get("X-API-Key")
    authorization = request.headers.get("Authorization")
    if text is None and authorization is not None:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidApiKeyError("Send the key as 'Authorization: Bearer KEY'.")
    return None if text is None else text.strip()


def _peer(request: web.Request) -> tuple[int, int]:
    """Return the uid and gid of who opened the Unix socket."""
    peer = unix_socket(request)
    if peer is None:
        raise InvalidApiKeyError(
            "An API key is needed: send 'Authorization: Bearer KEY'. An administrator creates one"
            " with 'prsmctl key create'."
        )
    size = _PEER_CREDENTIALS.size
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _pid, uid, gid = _PEER_CREDENTIALS.unpack(credentials)
    return uid, gid
