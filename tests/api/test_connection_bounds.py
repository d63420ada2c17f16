"""How many connections and streams there may be, of whom, and that each is given back."""

import contextlib
import itertools
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.conftest import SETTINGS, small
from tests.api.envelope import refused
from tests.api.wire import connected, parts, until_closed
from tests.support.daemon import Daemon, running_daemon

LIMITS = {
    "limits.connections": "24",
    "limits.connections_per_principal": "6",
    "limits.connections_unidentified_per_address": "5",
    "limits.streams_per_principal": "3",
}
EVENTS = "Accept: text/event-stream"
POLL = "?wait=60"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A daemon with few connections, a running model and one that never runs."""
    settings = {**{k: v for k, v in SETTINGS.items() if not k.startswith("limits.")}, **LIMITS}
    with running_daemon(tmp_path_factory.mktemp("bounds"), settings) as daemon:
        daemon.until_ready(daemon.deploy(small("runs", max_replicas=1)), 1)
        yield daemon


def request_of(key: str, path: str, *lines: str, body: str = "") -> bytes:
    method = "POST" if body else "GET"
    length = [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"X-API-Key: {key}", *lines, *length]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def tcp(daemon: Daemon) -> socket.socket:
    return connected(("127.0.0.1", daemon.tcp_port))


def begun(daemon: Daemon, raw: bytes) -> tuple[socket.socket, bytes]:
    """Return a connection on which something was asked, and the beginning of the answer."""
    client = tcp(daemon)
    client.sendall(raw)
    return client, client.recv(65536)


def streams(daemon: Daemon, key: str) -> dict[str, bytes]:
    """Return requests for each kind of stream."""
    deployment = daemon.call("GET", "/v1/custom-models/deployments").json["deployments"][0]
    one = f"/v1/custom-models/deployments/{deployment['deployment_id']}"
    body = '{"inputs": {"text": "endless"}}'
    return {
        "events": request_of(key, f"{one}/events", EVENTS),
        "logs": request_of(key, f"{one}/logs?follow=true"),
        "audit": request_of(key, "/v1/audit", EVENTS),
        "inference": request_of(key, "/v1/models/custom_runs/infer", EVENTS, body=body),
    }


def until_one_more(daemon: Daemon, raw: bytes) -> None:
    """Return when one more is let in, which is given back at once."""

    def let_in() -> bool:
        client, answer = begun(daemon, raw)
        client.close()
        return b" 200 " in answer.partition(b"\r\n")[0]

    daemon.until("one more is let in", let_in)


@pytest.mark.parametrize("kind", ["events", "logs", "audit", "inference"])
def test_a_caller_has_so_many_streams_and_no_more_of_any_kind(served, kind):
    key, other = served.key("admin"), served.key("admin")
    raw = streams(served, key)
    with contextlib.ExitStack() as stack:
        for each in ("events", "logs", "audit"):
            client, answer = begun(served, raw[each])
            stack.enter_context(client)
            assert b" 200 " in answer, answer
        with tcp(served) as client:
            client.sendall(raw[kind])
            answer = until_closed(client)
        error = parts(answer)[2]["error"]
        refused(answer, 429, "RATE_LIMIT_EXCEEDED")
        assert "limits.streams_per_principal" in error["message"]
        assert (error["details"]["limit"], parts(answer)[1]["connection"]) == (3, "close")
        another, answer = begun(served, streams(served, other)[kind])
        stack.enter_context(another)
        assert b" 200 " in answer, "another caller has streams of their own"

    until_one_more(served, raw[kind])


def test_nothing_is_read_for_who_may_have_no_more_streams(served):
    key, nowhere = served.key("admin"), "/v1/custom-models/deployments/deploy_nowhere"
    unread = {
        "events": request_of(key, f"{nowhere}/events", EVENTS),
        "logs": request_of(key, f"{nowhere}/logs?follow=true"),
        "status": request_of(key, f"{nowhere}{POLL}"),
        "inference": request_of(key, "/v1/models/nothing/infer", EVENTS, body='{"inputs": {}}'),
    }
    with contextlib.ExitStack() as stack:
        for each in ("events", "logs", "audit"):
            client, answer = begun(served, streams(served, key)[each])
            stack.enter_context(client)
            assert b" 200 " in answer, answer
        found = {}
        for kind, raw in unread.items():
            client, answer = begun(served, raw)
            client.close()
            found[kind] = answer.split()[1]

    assert found == dict.fromkeys(unread, b"429"), "to say 404 somebody has to look"


def test_streams_are_given_back_however_they_end(served):
    """By the client, by its reset, by an error before they begin, by their own end."""
    key = served.key("admin")
    raw = streams(served, key)
    ended = request_of(
        key, "/v1/models/custom_runs/infer", EVENTS, body='{"inputs": {"text": "one"}}'
    )
    for way in itertools.islice(itertools.cycle(["close", "reset", "error", "end", "half"]), 15):
        if way == "error":
            wrong = request_of(key, "/v1/custom-models/deployments/none/events", EVENTS)
            client, answer = begun(served, wrong)
            assert b" 404 " in answer
        elif way == "end":
            client, answer = begun(served, ended)
        else:
            client, _ = begun(served, raw["events"])
        with client:
            if way == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif way == "half":
                client.shutdown(socket.SHUT_WR)

    with contextlib.ExitStack() as stack:
        for _ in range(2):
            until_one_more(served, raw["audit"])
            stack.enter_context(begun(served, raw["audit"])[0])


def test_a_caller_has_so_many_connections(served):
    key = served.key("viewer")
    me = request_of(key, "/v1/auth/me")
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            client, answer = begun(served, me)
            stack.enter_context(client)
            assert b" 200 " in answer
        client, answer = begun(served, me)
        stack.enter_context(client)
        refused(answer + until_closed(client), 429, "RATE_LIMIT_EXCEEDED")
        assert b"limits.connections_per_principal" in answer

    until_one_more(served, me)


def test_an_address_has_so_many_connections_that_did_not_say_who_calls(served):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(tcp(served)) for _ in range(5)]
        served.until("they are taken", lambda: turned_away(served))
        assert served.call("GET", "/healthz").status == 200, "the Unix socket has its own"
        silent[0].sendall(request_of(served.key("viewer"), "/v1/auth/me"))
        assert b" 200 " in silent[0].recv(65536)
        with tcp(served) as client:  # in the place of the one that has said who it is
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert until_closed(client).startswith(b"HTTP/1.1 200")
        assert len(silent) == 5


def turned_away(served: Daemon) -> bool:
    """Tell whether a new connection over TCP is turned away in words."""
    with tcp(served) as client:
        client.settimeout(0.2)
        try:
            answer = until_closed(client)
        except TimeoutError:
            return False
    refused(answer, 429, "RATE_LIMIT_EXCEEDED")
    return b"limits.connections_unidentified_per_address" in answer


def test_the_sum_is_bounded_and_leaves_the_unix_socket_its_part(served):
    keys = [served.key("viewer") for _ in range(4)]
    with contextlib.ExitStack() as stack:
        answers = []
        for number in range(24):
            client = stack.enter_context(tcp(served))
            with contextlib.suppress(OSError):
                client.sendall(request_of(keys[number // 6], "/v1/auth/me"))
            answers.append(client.recv(65536))
        statuses = [int(answer.split()[1]) for answer in answers]
        assert statuses == [200] * 21 + [503] * 3
        assert b"limits.connections" in answers[-1]
        local = [stack.enter_context(connected(str(served.socket))) for _ in range(3)]
        assert served.call("GET", "/healthz").status == 200
        assert len(local) == 3
    served.until("they are given back", lambda: served.call("GET", "/healthz", key=keys[0]))


DESCRIPTORS = 128
_FEW = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


class FewDescriptors(Daemon):
    """A daemon that may open few files."""

    def _spawn(self, command, log):
        return super()._spawn([sys.executable, "-c", _FEW, str(DESCRIPTORS), *command], log)


@pytest.mark.parametrize("at_once", [DESCRIPTORS * 2])
def test_the_network_cannot_take_the_last_descriptor_of_the_operators(tmp_path, at_once):
    """More connect than the process may have files; who comes by the Unix socket is served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 2 * at_once or hard > 2 * at_once
    with running_daemon(tmp_path, SETTINGS, kind=FewDescriptors) as daemon:
        key = daemon.key("viewer")
        with contextlib.ExitStack() as stack:
            for _ in range(at_once):
                client = stack.enter_context(tcp(daemon))
                with contextlib.suppress(OSError):
                    client.sendall(request_of(key, "/v1/auth/me"))
            for _ in range(10):
                assert daemon.call("GET", "/v1/auth/me").status == 200
            made = daemon.call("POST", "/v1/api-keys", {"name": "made", "role": "viewer"})
            assert made.status == 201, "an operator can also change something"
        daemon.until("the network is served", lambda: daemon.call("GET", "/healthz", key=key))
        assert daemon.call("GET", "/v1/auth/me", key=key).status == 200


def test_when_no_descriptor_is_left_the_unix_socket_is_served_from_the_reserve(tmp_path):
    """Whoever took them: here, the limit is lowered to what is open."""
    with running_daemon(tmp_path, SETTINGS) as daemon:
        assert daemon.process is not None
        key = daemon.key("viewer")
        opened = len(list(open_files(daemon)))
        subprocess.run(
            ["prlimit", f"--pid={daemon.process.pid}", f"--nofile={opened}:"], check=True
        )
        with tcp(daemon) as waiting:
            waiting.sendall(request_of(key, "/v1/auth/me"))
            for _ in range(20):
                assert daemon.call("GET", "/v1/auth/me").status == 200
            subprocess.run(["prlimit", f"--pid={daemon.process.pid}", "--nofile=1024:"], check=True)
            assert waiting.recv(65536).startswith(b"HTTP/1.1 "), "who waited is not forgotten"
        daemon.until(
            "all is well", lambda: daemon.call("GET", "/v1/auth/me", key=key).status == 200
        )


def open_files(daemon: Daemon):
    return Path(f"/proc/{daemon.process.pid}/fd").iterdir()
