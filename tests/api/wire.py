"""Bytes on a socket, for what no HTTP client would send."""

import json
import socket
from typing import Any

_SECONDS = 30.0


def exchange(address: Any, raw: bytes) -> bytes:
    """Send bytes and return what comes back until the server closes the connection."""
    with connected(address) as client:
        client.sendall(raw)
        return until_closed(client)


def connected(address: Any) -> socket.socket:
    """Return a connection to a Unix path or a TCP address."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = socket.socket(family)
    client.settimeout(_SECONDS)
    try:
        client.connect(address)
    except OSError:
        client.close()
        raise
    return client


def until_closed(client: socket.socket) -> bytes:
    """Return everything until the server closes the connection."""
    received = bytearray()
    try:
        while chunk := client.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass  # closed with bytes of ours unread
    return bytes(received)


def parts(answer: bytes) -> tuple[int, dict[str, str], Any]:
    """Return status, headers in lower case and JSON body of one whole answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, json.loads(body)
