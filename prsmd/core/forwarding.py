"""Where a request came from that trusted proxies passed on: the rightmost hop that is none of them.

Each proxy adds the address of whoever called it at the right end of the header. What stands left of
the first hop that is not trusted was written by that hop itself, and is not looked at.
"""

import ipaddress
import re
from collections.abc import Sequence

from prsmd.core.networks import allows

_MOST_HOPS = 32  # more proxies stand in no row; the rest of such a header is not looked at
_FORWARDED_FOR = re.compile(
    r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^\s";,]*))\s*(?:;|$)', re.IGNORECASE
)
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):\d{1,5}")


def plain(address: str) -> str | None:
    """Return an IP address in its one form, or None for what is none.

    An IPv4 address inside an IPv6 one is the IPv4 address; an interface's name is dropped.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def client_address(peer: str, hops: Sequence[str], trusted: Sequence[str]) -> str | None:
    """Return the address of the client behind `peer`; None: a trusted proxy wrote what is none.

    `hops` are the addresses that the header names, from left to right, in any form that it allows.
    """
    at = peer
    for hop in reversed(hops[-_MOST_HOPS:]):
        if not allows(trusted, at):
            break
        found = _address(hop)
        if found is None:
            return None
        at = found
    return at


def hops_of(name: str, values: Sequence[str]) -> list[str]:
    """Return the hops that the values of `X-Forwarded-For` or `Forwarded` name, in order."""
    listed = [part.strip() for value in values for part in value.split(",")]
    if name.lower() == "x-forwarded-for":
        return listed
    return [_forwarded_for(part) for part in listed]


def _forwarded_for(element: str) -> str:
    """Return who is named by `for=` of an element of `Forwarded` (RFC 7239); "" for nobody."""
    found = _FORWARDED_FOR.search(element)
    return "" if found is None else found.group(1) or found.group(2) or ""


def _address(hop: str) -> str | None:
    for form in (_BRACKETED, _WITH_PORT):
        found = form.fullmatch(hop)
        if found is not None:
            return plain(found.group(1))
    return plain(hop)
