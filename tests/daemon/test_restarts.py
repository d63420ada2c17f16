"""A restart under load: every request on a kept-alive connection is answered, on both sockets."""

import collections
import contextlib
import http.client
import json
import socket
import threading
from pathlib import Path

import psutil
import pytest

from tests.api.conftest import small
from tests.api.wire import connected, until_closed
from tests.daemon.conftest import PROCESS
from tests.support.daemon import ActivatedDaemon, Daemon, UnixConnection, running_daemon

SETTINGS = {**PROCESS, "daemon.stop_timeout_seconds": "20"}
RESTARTS = 4
CLIENTS = 4  # on each socket
INFER = json.dumps({"inputs": {"text": "a contract"}}).encode()
NOBODY = (ConnectionRefusedError, FileNotFoundError)


class Clients:
    """Naive clients: each keeps its connection, sends one request at a time, repeats nothing."""

    def __init__(self, daemon: Daemon, key: str, model: str) -> None:
        self.answered = collections.Counter()
        self.failed = []
        self.refused = 0
        self._daemon, self._key, self._model = daemon, key, model
        self._ended = threading.Event()
        self._progress = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(local, number))
            for local in (True, False)
            for number in range(CLIENTS)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join(90)

    def until_more(self, count):
        """Return when so many more requests were answered."""
        with self._progress:
            goal = self.answered.total() + count
            assert self._progress.wait_for(lambda: self.answered.total() >= goal, 60), self.failed

    def _run(self, local, number):
        connection = (
            UnixConnection(self._daemon.socket, 60)
            if local
            else http.client.HTTPConnection("127.0.0.1", self._daemon.tcp_port, timeout=60)
        )
        infers = number % 2 == 0
        path = f"/v1/models/{self._model}/infer" if infers else "/v1/auth/me"
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            while not self._ended.is_set():
                try:
                    if connection.sock is None:
                        connection.connect()
                except NOBODY:
                    self.refused += 1
                    connection.close()
                    self._ended.wait(0.05)
                    continue
                try:
                    connection.request(
                        "POST" if infers else "GET", path, INFER if infers else None, headers
                    )
                    answer = connection.getresponse()
                    body = answer.read()
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append((local, path, repr(error)))
                    connection.close()
                    continue
                if answer.status != 200:
                    self.failed.append((local, path, answer.status, body))
                with self._progress:
                    self.answered[local] += 1
                    self._progress.notify_all()


@pytest.fixture(scope="module", params=[ActivatedDaemon, Daemon])
def served(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("restarts")
    with running_daemon(folder, SETTINGS, kind=request.param) as daemon:
        deployment = daemon.deploy(small("kept"))
        daemon.until_ready(deployment, 1)
        yield daemon, deployment


def test_no_request_fails_through_restarts(served):
    daemon, deployment = served
    with Clients(daemon, daemon.key("owner"), deployment) as clients:
        for _ in range(RESTARTS):
            clients.until_more(100)
            assert daemon.stop() == 0
            daemon.start()
        clients.until_more(100)

    assert clients.failed == []
    assert min(clients.answered.values()) > RESTARTS
    if isinstance(daemon, ActivatedDaemon):
        assert clients.refused == 0


@contextlib.contextmanager
def stopping(daemon: Daemon):
    """Let the daemon stop meanwhile."""
    ended = threading.Thread(target=daemon.stop)
    ended.start()
    try:
        yield
    finally:
        ended.join(60)
        daemon.start()


def head_of(client: socket.socket) -> bytes:
    """Return what comes next, up to the end of a head."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return received


def test_a_follower_is_told_of_the_stop_and_cut_at_once(served):
    daemon, deployment = served
    follow = (
        f"GET /v1/custom-models/deployments/{deployment}/events HTTP/1.1\r\nHost: localhost\r\n"
    )
    with connected(str(daemon.socket)) as client:
        client.sendall(f"{follow}Accept: text/event-stream\r\n\r\n".encode())
        begun = head_of(client)
        with stopping(daemon):
            said = begun + until_closed(client)

    _, _, last = said.partition(b"event: error\ndata: ")
    assert "the daemon is stopping" in json.loads(last.splitlines()[0])["message"]
    assert not said.endswith(b"0\r\n\r\n")


def test_a_long_poll_is_answered_with_what_is_so_when_the_daemon_stops(served):
    daemon, _ = served
    body = small("half", min_replicas=2)  # of which only one fits
    most = psutil.virtual_memory().total * 6 // 10 // 2**20
    body["deployment_config"]["resource_requirements"]["memory"] = f"{most}Mi"
    waits = daemon.deploy(body)
    poll = f"GET /v1/custom-models/deployments/{waits}?wait=300 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(str(daemon.socket)) as client:
        client.sendall(poll.encode())
        with stopping(daemon):
            head, _, body = until_closed(client).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body)["status"] == "deploying"


def test_a_request_that_arrives_while_the_daemon_stops_is_served_and_its_connection_closed(served):
    """A stream that goes on keeps the daemon from ending before the request arrives."""
    daemon, deployment = served
    ask = f"POST /v1/models/{deployment}/infer HTTP/1.1\r\nHost: localhost\r\n"
    body = f"Content-Type: application/json\r\nContent-Length: {len(INFER)}\r\n\r\n"
    with connected(str(daemon.socket)) as slow, connected(str(daemon.socket)) as client:
        slow.sendall(f"{ask}{body}".encode())  # and not its body yet
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert head_of(client).startswith(b"HTTP/1.1 200")
        ended = threading.Thread(target=daemon.stop)
        ended.start()
        daemon.until("it stops", lambda: not takes_connections(daemon))
        client.sendall(ask.encode() + body.encode() + INFER)
        answer = until_closed(client)
        slow.sendall(INFER)
        late = until_closed(slow)
        ended.join(60)
        daemon.start()

    for answered in (answer, late):
        head = answered.partition(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 200"), answered
        assert b"connection: close" in head


def takes_connections(daemon: Daemon) -> bool:
    """Tell whether the daemon answers on a new connection now."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return daemon.call("GET", "/healthz", timeout=0.2).status == 200
    return False


def test_the_stop_timeout_cuts_what_does_not_end_and_names_itself(tmp_path: Path):
    settings = {**SETTINGS, "daemon.stop_timeout_seconds": "0.5"}
    with running_daemon(tmp_path, settings) as daemon:
        deployment = daemon.deploy(small("kept"))
        daemon.until_ready(deployment, 1)
        body = json.dumps({"inputs": {"text": "endless"}}).encode()
        with connected(str(daemon.socket)) as client:
            client.sendall(
                f"POST /v1/models/{deployment}/infer HTTP/1.1\r\nHost: localhost\r\n"
                "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            begun = head_of(client)
            assert daemon.stop() == 0
            said = begun + until_closed(client)

    _, _, last = said.partition(b"event: error\ndata: ")
    error = json.loads(last.splitlines()[0])["error"]
    assert "stop timeout of 0.5 s is over" in error["message"]
    assert error["code"] == "RESOURCE_UNAVAILABLE"
    assert not said.endswith(b"0\r\n\r\n")
