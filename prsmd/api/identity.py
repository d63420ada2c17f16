"""Who sends a request: which proof counts, and what is left of what they may send."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

from aiohttp import web

from prsmd.api.access_lines import WHO, AccessLines
from prsmd.api.operations import REQUEST_ID
from prsmd.api.origin import Proxies, origin_of
from prsmd.core.connection_limits import ConnectionLimits
from prsmd.core.meter import Standing
from prsmd.domain.access import Principal, is_organization_name
from prsmd.domain.errors import InvalidApiKeyError, InvalidInputError
from prsmd.domain.origin import Origin
from prsmd.engine.denials import Denials
from prsmd.gateway.meters import Held, tightest
from prsmd.service.access import Access, Identified
from prsmd.service.belonging import HEADER, ActingFor, Needs
from prsmd.service.failures import Failures
from prsmd.service.throttle import Throttle
from prsmd.service.underway import Underway

LEFT = web.RequestKey("left", Standing)


@dataclasses.dataclass(slots=True, kw_only=True)
class Door:
    """How callers are let in. What it holds of the settings may be replaced while it is open.

    `failures` watches who fails to say who they are (None: nobody is slowed down), `denials` is
    where it is on record what was denied (None: in the store at once).

    `hosts` are the names that TCP clients may use in `Host`; `is_replica` tells whether an address
    is a model's container, which may not call at all.
    """

    access: Access
    underway: Underway
    throttle: Throttle
    hosts: frozenset[str]
    is_replica: Callable[[str], bool]
    connection_limits: ConnectionLimits
    body_bytes: int
    body_seconds: float
    header_bytes: int
    failures: Failures | None = None
    denials: Denials | None = None
    lines: AccessLines = dataclasses.field(default_factory=AccessLines)
    proxies: Proxies = dataclasses.field(default_factory=Proxies)


DOOR = web.AppKey("door", Door)


async def identify(
    request: web.Request, door: Door, needs: Needs = Needs.ORGANIZATION
) -> Identified:
    """Return who calls: by a key or token where one is given, else the Unix peer.

    Raises:
        InvalidApiKeyError: nobody that is known here.
        AmbiguousOrganizationError: they belong to several organizations and name none.
        PermissionDeniedError: they do not belong to the one that they name.
    """
    acting = ActingFor(_organization(request), needs)
    text, usable = _credential(request)
    origin = origin_of(request, door.proxies)
    async with _watched(request, door, text):
        if not usable:
            raise InvalidApiKeyError("Send the key as 'Authorization: Bearer KEY'.")
        identified = await _identified(door, text, origin, acting)
    request[WHO] = identified.principal.id
    return identified


def _watched(
    request: web.Request, door: Door, text: str | None
) -> contextlib.AbstractAsyncContextManager[None]:
    if door.failures is None:
        return contextlib.nullcontext()
    origin = origin_of(request, door.proxies)
    return door.failures.watched(text, origin, request[REQUEST_ID])


async def _identified(
    door: Door, text: str | None, origin: Origin, acting: ActingFor
) -> Identified:
    if text is not None:

        def may_verify() -> None:
            if door.failures is not None:
                door.failures.refuse(origin.whose, text, None)

        return await door.access.by_credential(text, origin.ip, may_verify, acting)
    if origin.peer is not None:
        return door.access.by_peer(origin.peer.uid, origin.peer.gid, acting)
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


def _organization(request: web.Request) -> str | None:
    """Return the organization that a request names. InvalidInputError for what names none."""
    given = request.headers.getall(HEADER, ())
    if len(given) > 1:
        raise InvalidInputError.field(HEADER, "must be given once")
    if given and not is_organization_name(given[0]):
        problem = "must be the name of an organization: a-z, 0-9 and -"
        raise InvalidInputError.field(HEADER, problem, given[0][:100])
    return given[0] if given else None


def _credential(request: web.Request) -> tuple[str | None, bool]:
    """Return what was sent to prove somebody (None: nothing), and whether it has a known form."""
    text = request.headers.get("X-API-Key")
    authorization = request.headers.get("Authorization")
    if text is not None or authorization is None:
        return None if text is None else text.strip(), True
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return authorization, False
    return token.strip(), True
