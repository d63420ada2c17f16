"""Who sends a request: which proof counts, and what is left of what they may send."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from aiohttp import web

from prsmd.api.origin import Proxies, origin_of
from prsmd.core.meter import Standing
from prsmd.domain.access import Principal
from prsmd.domain.errors import InvalidApiKeyError
from prsmd.gateway.meters import Held, tightest
from prsmd.service.access import Access, Identified
from prsmd.service.throttle import Throttle
from prsmd.service.underway import Underway

LEFT = web.RequestKey("left", Standing)


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
    proxies: Proxies = dataclasses.field(default_factory=Proxies)


async def identify(request: web.Request, door: Door) -> Identified:
    """Return who calls: by a key or token where one is given, else the Unix peer.

    Raises:
        InvalidApiKeyError: nobody that is known here.
    """
    text, origin = _credential(request), origin_of(request, door.proxies)
    if text is not None:
        return await door.access.by_credential(text, origin.ip)
    if origin.peer is not None:
        return door.access.by_peer(origin.peer.uid, origin.peer.gid)
    raise InvalidApiKeyError(
        "An API key is needed: send 'Authorization: Bearer KEY'. An administrator creates one"
        " with 'prsmctl key create'."
    )


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


def _credential(request: web.Request) -> str | None:
    text = request.headers.get("X-API-Key")
    authorization = request.headers.get("Authorization")
    if text is None and authorization is not None:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidApiKeyError("Send the key as 'Authorization: Bearer KEY'.")
    return None if text is None else text.strip()
