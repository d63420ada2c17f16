"""Tells by which of the host's interfaces an address is reached. Reads the kernel's routes only."""

import ipaddress
from pathlib import Path

_ROUTES = Path("/proc/net/route")


def interface_to(address: str, routes: Path = _ROUTES) -> str | None:
    """Return the interface of the longest route to an IPv4 address; None where there is none."""
    try:
        wanted = int(ipaddress.IPv4Address(address))
        lines = routes.read_text().splitlines()[1:]
    except (ValueError, OSError):
        return None
    found, longest = None, -1
    for line in lines:
        name, destination, _, _, _, _, _, mask, *_ = line.split()
        bits = _number(mask)
        if wanted & bits == _number(destination) and bits > longest:
            found, longest = name, bits
    return found


def _number(text: str) -> int:
    """Return an address as the kernel writes it: hexadecimal, its bytes as in memory."""
    return int.from_bytes(bytes.fromhex(text)[::-1], "big")
