"""Which addresses a key may be used from. The Unix socket counts as this machine's own address."""

import functools
import ipaddress
from collections.abc import Iterable

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOCAL = ("127.0.0.1", "::1")


def canonical(text: str) -> str:
    """Return a network as it is stored: `10.0.0.0/8`; of a single address, with its full length.

    Raise ValueError for what is none, or has bits set behind its length.
    """
    return str(ipaddress.ip_network(text))


def allows(networks: Iterable[str], address: str | None) -> bool:
    """Tell whether an address (None: the Unix socket) is in one of the networks."""
    parsed = _parsed(tuple(networks))
    return any(_contains(parsed, each) for each in (_LOCAL if address is None else (address,)))


def within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """Tell whether each of the `inner` networks lies in one of the `outer` ones."""
    around = _parsed(tuple(outer))
    return all(
        any(_lies_in(network, other) for other in around) for network in _parsed(tuple(inner))
    )


def _lies_in(network: _Network, other: _Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)


@functools.lru_cache(maxsize=4096)
def _parsed(networks: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in networks)


@functools.lru_cache(maxsize=16384)
def _contains(networks: tuple[_Network, ...], address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)
