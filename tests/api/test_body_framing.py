"""A body in chunks is taken as long as there is more content than framing in it."""

import contextlib
import json
import re

import pytest

from tests.api.conftest import Site
from tests.api.wire import connected, parts, until_closed

BODY = json.dumps({"name": "chunked", "role": "viewer"}).encode()


def ask(site: Site, size: int, blanks: int) -> bytes:
    """The answers to a request whose body has blanks before it and comes in chunks of a size."""
    body = b" " * blanks + BODY
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(piece), piece)
        for piece in (body[at : at + size] for at in range(0, len(body), size))
    )
    key = site.keys["owner"]
    head = f"POST /v1/api-keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    head += (
        "Connection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with connected(("127.0.0.1", site.daemon.tcp_port)) as client:
        client.sendall(head.encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused by then
            client.sendall(chunks + b"0\r\n\r\n")
        return until_closed(client)


@pytest.mark.parametrize("size", [1])
def test_a_body_that_is_mostly_framing_is_refused_and_its_connection_closed(site: Site, size: int):
    status, _, body = parts(ask(site, size, 50_000))

    assert status == 400
    assert "body" in body["message"]


@pytest.mark.parametrize(("size", "blanks"), [(1, 1000), (16, 50_000), (4096, 60_000)])
def test_other_chunks_are_a_body(site: Site, size: int, blanks: int):
    status, _, body = parts(ask(site, size, blanks))

    assert status == 201
    assert body["key"].startswith("prsm_")


def test_requests_that_arrive_together_are_all_answered_in_order(site: Site):
    key = site.keys["viewer"].encode()
    one = b"GET /v1/auth/me HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\n"
    one += b"X-Request-ID: r%d\r\n%s\r\n"
    count = 300
    last = b"Connection: close\r\n"
    sent = b"".join(one % (key, n, last if n == count - 1 else b"") for n in range(count))
    with connected(("127.0.0.1", site.daemon.tcp_port)) as client:
        client.sendall(sent)
        answers = until_closed(client)

    assert answers.count(b"HTTP/1.1 200 OK") == count
    ids = re.findall(rb"X-Request-ID: r(\d+)", answers)
    assert [int(number) for number in ids] == list(range(count))
