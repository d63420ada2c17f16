"""What each connection and stream counts in: first as one without identity, then for its caller."""

import contextlib
from collections.abc import Iterator

from aiohttp import web

from prsmd.core.connection_limits import (
    CONNECTIONS,
    CONNECTIONS_OF_ORGANIZATION,
    CONNECTIONS_OF_PRINCIPAL,
    NETWORK_CONNECTIONS,
    OPERATOR_RESERVE,
    STREAMS_OF_PRINCIPAL,
    UNIDENTIFIED,
    UNIDENTIFIED_OF_ADDRESS,
    Claim,
    ConnectionLimits,
    Exceeded,
    Scope,
)
from prsmd.domain.access import Principal
from prsmd.domain.errors import PrsmdError, ResourceUnavailableError, TooManyOpenError

CONNECTION_LIMITS = web.AppKey("connection_limits", ConnectionLimits)
_RETRY_SECONDS = 5
_SUMS = frozenset({CONNECTIONS, NETWORK_CONNECTIONS, UNIDENTIFIED, OPERATOR_RESERVE})
_WORDS = {
    UNIDENTIFIED_OF_ADDRESS: "Your address has {limit} connections open that have not said who"
    " calls, as many as {setting} allows.",
    CONNECTIONS_OF_PRINCIPAL: "You have {limit} connections open, as many as {setting} allows.",
    CONNECTIONS_OF_ORGANIZATION: "Your organization has {limit} connections open, as many as"
    " {setting} allows (`prsmctl org quota`). Close some, or ask an administrator for more.",
    STREAMS_OF_PRINCIPAL: "You have {limit} streams and long polls open, as many as {setting}"
    " allows. Close one, or try again later.",
}
_OTHERS = "{limit} connections are open, as many as {setting} allows."


class ConnectionClaims:
    """What one connection counts in, until it is released."""

    __slots__ = ("_limits", "_opened", "_principal", "_whose")

    def __init__(self, limits: ConnectionLimits, opened: Claim, unidentified: Claim) -> None:
        self._limits = limits
        self._opened = opened
        self._whose = unidentified
        self._principal: tuple[str, str] | None = None

    def identify(self, principal: Principal) -> None:
        """Count it for who calls on it now. TooManyOpenError where they have all they may."""
        who = (principal.organization, principal.id)
        if who == self._principal:
            return
        whose = () if principal.appliance_wide else (principal.organization,)
        claim = self._limits.claim(
            Scope(CONNECTIONS_OF_PRINCIPAL, principal.id),
            # Administrators are let in whatever their organization's callers hold.
            *(Scope(CONNECTIONS_OF_ORGANIZATION, one) for one in whose),
        )
        if isinstance(claim, Exceeded):
            raise refusal(claim)
        self._whose.release()
        self._whose, self._principal = claim, who

    def release(self) -> None:
        """Give everything back; only the first call counts."""
        self._opened.release()
        self._whose.release()


def claim_connection(
    limits: ConnectionLimits, whose: str, *, network: bool, operator: bool = False
) -> ConnectionClaims | Exceeded:
    """Count a new connection of an address or local user. An `operator` has a reserve beyond all.

    A `whose` of "" is a trusted proxy: its connections are of many, and bounded in sum only.
    """
    scopes = (Scope(CONNECTIONS), *((Scope(NETWORK_CONNECTIONS),) if network else ()))
    opened = limits.claim(*scopes)
    if isinstance(opened, Exceeded) and operator:
        opened = limits.claim(Scope(OPERATOR_RESERVE))
    if isinstance(opened, Exceeded):
        return opened
    nobody = () if operator else (Scope(UNIDENTIFIED),)
    of_address = (Scope(UNIDENTIFIED_OF_ADDRESS, whose),) if whose and not operator else ()
    unidentified = limits.claim(*nobody, *of_address)
    if isinstance(unidentified, Exceeded):
        opened.release()
        return unidentified
    return ConnectionClaims(limits, opened, unidentified)


def identify_connection(request: web.Request, principal: Principal) -> None:
    """Count the connection of a request for who sent it. TooManyOpenError."""
    claims = getattr(request.protocol, "claims", None)
    if isinstance(claims, ConnectionClaims):
        claims.identify(principal)


@contextlib.contextmanager
def claimed_stream(limits: ConnectionLimits, principal: Principal) -> Iterator[None]:
    """Count a stream, or a long poll, while it is open. TooManyOpenError beyond the bound."""
    claim = limits.claim(Scope(STREAMS_OF_PRINCIPAL, principal.id))
    if isinstance(claim, Exceeded):
        raise refusal(claim)
    try:
        yield
    finally:
        claim.release()


def refusal(exceeded: Exceeded) -> PrsmdError:
    """Return the error for one more than a bound allows: 503 for a sum of all, else 429."""
    limit, setting = exceeded.bound.limit, exceeded.bound.setting
    words = _WORDS.get(exceeded.scope.kind, _OTHERS).format(limit=limit, setting=setting)
    kind = ResourceUnavailableError if exceeded.scope.kind in _SUMS else TooManyOpenError
    return kind(words, limit_type=setting, limit=limit, retry_after_seconds=_RETRY_SECONDS)
