"""Which addresses a key may be used from. The Unix socket counts as this machine's own address."""

import bisect
import functools
import ipaddress
from collections.abc import Iterable

_LOCAL = ("127.0.0.1", "::1")
_Range = tuple[int, int, int]  # version, first and last address


def canonical(text: str) -> str:
    """Return a network as it is stored: `10.0.0.0/8`; of a single address, with its full length.

    Raise ValueError for what is none, or has bits set behind its length.
    """
    return str(ipaddress.ip_network(text))


class AllowList:
    """Canonical networks in order, so that a look-up does not compare with each of them."""

    __slots__ = ("_ranges",)

    def __init__(self, networks: Iterable[str]) -> None:
        # A network that lies in another one begins no earlier; the wider one stands before it.
        ordered = sorted(map(_range, networks), key=lambda each: (each[0], each[1], -each[2]))
        self._ranges: list[_Range] = []
        for each in ordered:
            if not self._ranges or not _lies_in(each, self._ranges[-1]):
                self._ranges.append(each)

    def allows(self, address: str | None) -> bool:
        """Tell whether an address (None: the Unix socket) is in one of the networks."""
        if address is None:
            return any(map(self.allows, _LOCAL))
        found = _address(address)
        return found is not None and self._has(found)

    def covers(self, networks: Iterable[str]) -> bool:
        """Tell whether each of these networks lies in one of the list's."""
        return all(self._has(_range(text)) for text in networks)

    def _has(self, wanted: _Range) -> bool:
        place = bisect.bisect_right(self._ranges, wanted[:2], key=lambda each: each[:2])
        return place > 0 and _lies_in(wanted, self._ranges[place - 1])


def allows(networks: Iterable[str], address: str | None) -> bool:
    """Tell whether an address (None: the Unix socket) is in one of the networks."""
    return _allow_list(tuple(networks)).allows(address)


def within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """Tell whether each of the `inner` networks lies in one of the `outer` ones."""
    return _within(tuple(inner), tuple(outer))


@functools.lru_cache(maxsize=256)  # holders of a role are often held to the same networks
def _within(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    return inner == outer or _allow_list(outer).covers(inner)


@functools.lru_cache(maxsize=64)
def _allow_list(networks: tuple[str, ...]) -> AllowList:
    return AllowList(networks)


def _lies_in(inner: _Range, outer: _Range) -> bool:
    """Tell whether a range lies in one that begins no later."""
    return inner[0] == outer[0] and inner[2] <= outer[2]


def _range(text: str) -> _Range:
    address, _, length = text.partition("/")
    first = ipaddress.ip_address(address)
    size = 1 << first.max_prefixlen - int(length)
    return first.version, int(first), int(first) + size - 1


def _address(text: str) -> _Range | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.version, int(found), int(found)
