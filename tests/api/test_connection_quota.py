"""An organization has as many connections open as its quota says, whoever of it opens them."""

import contextlib
import itertools
import socket

import pytest

from tests.api.conftest import SETTINGS
from tests.api.wire import connected
from tests.support.daemon import Daemon, running_daemon

MOST = 4


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with running_daemon(tmp_path_factory.mktemp("quota"), SETTINGS) as daemon:
        yield daemon


def key_of(daemon: Daemon, organization: str) -> str:
    body = {"organization_id": organization}
    assert daemon.call("POST", "/v1/organizations", body).status in {201, 409}
    wanted = {"name": "k", "role": "viewer", "organization": organization}
    return str(daemon.call("POST", "/v1/api-keys", wanted).json["key"])


def ask(daemon: Daemon, key: str) -> tuple[socket.socket, bytes]:
    """Return a connection that stays open, and the whole answer to a request on it."""
    client = connected(("127.0.0.1", daemon.tcp_port))
    head = f"GET /v1/auth/me HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n\r\n"
    client.sendall(head.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(65536)
    return client, answer


def limit(daemon: Daemon, organization: str, most: object) -> None:
    path = f"/v1/organizations/{organization}/quota"
    assert daemon.call("PATCH", path, {"hard": {"connections": most}}).status == 200


def used(daemon: Daemon, organization: str) -> int:
    quota = daemon.call("GET", f"/v1/organizations/{organization}/quota").json["quota"]
    return int(quota["connections"]["used"])


def test_the_connections_of_an_organization_are_counted_over_all_its_callers(served):
    keys = itertools.cycle([key_of(served, "lab"), key_of(served, "lab")])
    other = key_of(served, "rival")
    limit(served, "lab", MOST)
    with contextlib.ExitStack() as stack:
        for _ in range(MOST):
            client, answer = ask(served, next(keys))
            stack.enter_context(client)
            assert answer.startswith(b"HTTP/1.1 200"), answer
        assert used(served, "lab") == MOST
        client, answer = ask(served, next(keys))
        stack.enter_context(client)
        assert answer.startswith(b"HTTP/1.1 429"), answer
        assert b"quota" in answer
        assert b"Retry-After" in answer
        for allowed in (other, served.key("admin")):  # others, and administrators
            client, answer = ask(served, allowed)
            stack.enter_context(client)
            assert answer.startswith(b"HTTP/1.1 200"), answer
    served.until("all are given back", lambda: used(served, "lab") == 0)


def test_a_changed_limit_holds_for_the_next_connection(served):
    key = key_of(served, "third")
    limit(served, "third", 0)
    client, answer = ask(served, key)
    client.close()
    assert answer.startswith(b"HTTP/1.1 429"), answer
    limit(served, "third", "unlimited")
    client, answer = ask(served, key)
    client.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
