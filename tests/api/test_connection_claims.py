"""What a connection counts in, from its acceptance to its end."""

import itertools

import pytest

from prsmd.api.connection_claims import claim_connection, claimed_stream, refusal
from prsmd.core.connection_limits import (
    CONNECTIONS,
    CONNECTIONS_OF_ORGANIZATION,
    CONNECTIONS_OF_PRINCIPAL,
    NETWORK_CONNECTIONS,
    OPERATOR_RESERVE,
    STREAMS_OF_PRINCIPAL,
    UNIDENTIFIED,
    UNIDENTIFIED_OF_ADDRESS,
    Bound,
    ConnectionLimits,
    Exceeded,
    Scope,
)
from prsmd.domain.access import ROLES, Principal
from prsmd.domain.errors import PrsmdError, TooManyOpenError


def principal(name: str, organization: str = "acme") -> Principal:
    return Principal(id=name, organization=organization, role="viewer", permissions=ROLES["viewer"])


def bounded(**bounds: int) -> ConnectionLimits:
    limits = ConnectionLimits()
    for kind, limit in bounds.items():
        limits.bound(globals()[kind], lambda _of, most=limit, name=kind: Bound(most, name))
    return limits


def opened(limits: ConnectionLimits, whose: str = "10.0.0.1", **how: bool):
    claims = claim_connection(limits, whose, network=how.pop("network", True), **how)
    assert not isinstance(claims, Exceeded), claims
    return claims


def test_a_connection_counts_as_unidentified_until_it_says_who_calls():
    limits = ConnectionLimits()
    claims = opened(limits)
    assert limits.count(Scope(UNIDENTIFIED)) == 1

    claims.identify(principal("key:a"))
    claims.identify(principal("key:a"))

    assert limits.counts() == {
        Scope(CONNECTIONS): 1,
        Scope(NETWORK_CONNECTIONS): 1,
        Scope(CONNECTIONS_OF_PRINCIPAL, "key:a"): 1,
        Scope(CONNECTIONS_OF_ORGANIZATION, "acme"): 1,
    }
    claims.release()
    claims.release()
    assert limits.counts() == {}


def test_a_connection_that_others_use_in_turn_counts_for_the_last_of_them():
    limits = bounded(CONNECTIONS_OF_PRINCIPAL=1)
    claims = opened(limits)
    for name in ("key:a", "key:b", "key:a"):
        claims.identify(principal(name))

    assert limits.count(Scope(CONNECTIONS_OF_PRINCIPAL, "key:a")) == 1
    assert limits.count(Scope(CONNECTIONS_OF_PRINCIPAL, "key:b")) == 0


@pytest.mark.parametrize("kind", ["CONNECTIONS_OF_PRINCIPAL", "CONNECTIONS_OF_ORGANIZATION"])
def test_one_too_many_is_refused_and_still_counts_as_unidentified(kind):
    limits = bounded(**{kind: 1})
    opened(limits).identify(principal("key:a"))
    second = opened(limits)

    with pytest.raises(TooManyOpenError, match=kind):
        second.identify(principal("key:a"))

    assert limits.count(Scope(UNIDENTIFIED)) == 1
    second.release()
    assert limits.count(Scope(CONNECTIONS)) == 1


def test_operators_have_a_reserve_beyond_all_others():
    limits = bounded(CONNECTIONS=1, OPERATOR_RESERVE=1, UNIDENTIFIED=1)
    opened(limits)

    assert isinstance(claim_connection(limits, "unix:uid=5", network=False), Exceeded)
    operator = opened(limits, "unix:uid=0", network=False, operator=True)
    assert isinstance(claim_connection(limits, "x", network=False, operator=True), Exceeded)
    assert limits.count(Scope(OPERATOR_RESERVE)) == 1
    operator.release()
    assert limits.count(Scope(OPERATOR_RESERVE)) == 0


def test_an_address_is_bounded_and_a_trusted_proxy_is_not():
    limits = bounded(UNIDENTIFIED_OF_ADDRESS=1)
    opened(limits)

    refused = claim_connection(limits, "10.0.0.1", network=True)

    assert isinstance(refused, Exceeded)
    assert refusal(refused).status_hint == 429
    assert limits.count(Scope(CONNECTIONS)) == 1
    for _ in range(5):
        opened(limits, "")


def test_sums_are_refused_with_503_and_parts_with_429():
    for kind in (CONNECTIONS, NETWORK_CONNECTIONS, UNIDENTIFIED, OPERATOR_RESERVE):
        assert refusal(Exceeded(Scope(kind), Bound(1, "x"))).status_hint == 503
    for kind in (UNIDENTIFIED_OF_ADDRESS, CONNECTIONS_OF_PRINCIPAL, STREAMS_OF_PRINCIPAL):
        assert refusal(Exceeded(Scope(kind, "a"), Bound(1, "x"))).status_hint == 429


@pytest.mark.parametrize("ends", [ValueError, PrsmdError, GeneratorExit, KeyboardInterrupt])
def test_a_stream_is_given_back_however_it_ends(ends):
    limits = bounded(STREAMS_OF_PRINCIPAL=1)

    def stream():
        with claimed_stream(limits, principal("key:a")):
            with pytest.raises(TooManyOpenError), claimed_stream(limits, principal("key:a")):
                pass
            raise ends("it ended")

    for _ in itertools.repeat(None, 3):
        with pytest.raises(ends):
            stream()
        with claimed_stream(limits, principal("key:a")):
            pass
    assert limits.counts() == {}
