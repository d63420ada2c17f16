"""Slow, idle and vanishing clients: closed in time, without disturbing those that wait rightly."""

import contextlib
import threading

import pytest

from tests.api.conftest import Site
from tests.api.wire import connected, parts, until_closed

HEAD = b"GET /v1/auth/me HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(params=["unix", "tcp"])
def client(site: Site, request):
    """A connection on each listener."""
    tcp = ("127.0.0.1", site.daemon.tcp_port)
    with connected(str(site.daemon.socket) if request.param == "unix" else tcp) as connection:
        yield connection


def read_answer(client):
    """Return one answer of a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    [length] = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
    while len(body) < length:
        body += client.recv(65536)
    return parts(head + b"\r\n\r\n" + body)


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, HEAD + b"X-A: "], ids=repr)
def test_a_head_that_is_not_completed_ends_the_connection(client, sent):
    client.sendall(sent)

    assert until_closed(client) == b""


def test_a_head_that_trickles_for_ever_ends_the_connection(client):
    client.sendall(HEAD)
    ended = threading.Event()

    def trickle():
        with contextlib.suppress(OSError):
            while not ended.wait(0.02):
                client.sendall(b"X-A: 1\r\n")

    trickling = threading.Thread(target=trickle)
    trickling.start()
    try:
        assert until_closed(client) == b""
    finally:
        ended.set()
        trickling.join()


def test_the_second_head_of_a_connection_has_the_same_deadline(client):
    client.sendall(HEAD + b"X-API-Key: none\r\n\r\n")
    assert read_answer(client)[0] == 401

    client.sendall(HEAD)

    assert until_closed(client) == b""


def test_a_connection_can_rest_between_requests_for_longer_than_a_head_may_take(site: Site):
    with connected(str(site.daemon.socket)) as idle, connected(str(site.daemon.socket)) as slow:
        idle.sendall(HEAD + b"\r\n")
        assert read_answer(idle)[0] == 200
        slow.sendall(HEAD)
        assert until_closed(slow) == b""  # now the time of a head is over

        idle.sendall(HEAD + b"\r\n")

        assert read_answer(idle)[0] == 200


def test_a_connection_that_rests_too_long_is_closed(client):
    client.sendall(HEAD + b"X-API-Key: none\r\n\r\n")
    assert read_answer(client)[0] == 401

    assert until_closed(client) == b""


def test_many_idle_connections_do_not_keep_others_out(site: Site):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(str(site.daemon.socket))) for _ in range(200)]

        assert site.daemon.call("GET", "/healthz").status == 200
        assert [until_closed(client) for client in idle] == [b""] * 200


def test_a_long_poll_and_a_stream_outlast_the_deadline_of_a_head(site: Site):
    one = f"/v1/custom-models/deployments/{site.accepted['deployment_id']}"
    with (
        connected(str(site.daemon.socket)) as stream,
        connected(str(site.daemon.socket)) as slow,
    ):
        stream.sendall(
            f"GET {one}/events HTTP/1.1\r\nHost: localhost\r\n".encode()
            + b"Accept: text/event-stream\r\n\r\n"
        )
        assert stream.recv(65536).startswith(b"HTTP/1.1 200 OK")
        slow.sendall(HEAD)
        assert until_closed(slow) == b""
        site.daemon.call(
            "POST",
            "/v1/custom-models/custom_legal_analyzer_v2/scale",
            {"target_replicas": 1, "scaling_strategy": "immediate"},
        )
        received = b""
        while b"ScaleRequested" not in received:
            chunk = stream.recv(65536)
            assert chunk, "the stream was closed"
            received += chunk


def test_a_large_body_in_small_pieces_is_no_slow_head(site: Site):
    body = b'{"inputs": {"text": "' + b"a contract " * 2000 + b'"}}'
    with connected(str(site.daemon.socket)) as client:
        client.sendall(
            b"POST /v1/models/custom_legal_analyzer_v2/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        for start in range(0, len(body), 100):
            client.sendall(body[start : start + 100])
        assert parts(until_closed(client))[0] == 200
