"""Clients that do not take their answers: cut in bounded time, whatever the answer is."""

import json
import select
import socket
import time
from pathlib import Path

import pytest

from tests.api.conftest import SETTINGS, small
from tests.api.wire import connected
from tests.support.daemon import Daemon, running_daemon

SECONDS = 60
LIMITS = {"limits.write_timeout_seconds": "1", "limits.body": '"4Mi"'}
PIPELINED = (
    "/metrics",
    "/openapi.json",
    "/nowhere",
    "/healthz",
    "/v1/custom-models",
    "/v1/audit",
    "/v1/audit/export",
    "/v1/auth/me",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A daemon with a model of one replica that does one thing at a time."""
    settings = {**{k: v for k, v in SETTINGS.items() if not k.startswith("limits.")}, **LIMITS}
    with running_daemon(tmp_path_factory.mktemp("slow"), settings) as daemon:
        body = small("one-at-a-time", max_replicas=1)
        body["deployment_config"]["serving"] = {"max_concurrency": 1}
        deployment = daemon.deploy(body)
        daemon.until_ready(deployment, 1)
        yield daemon, deployment


@pytest.fixture(params=["unix", "tcp"])
def client(served, request):
    """A connection that takes little into its own buffer, on each listener."""
    daemon, _ = served
    tcp = ("127.0.0.1", daemon.tcp_port)
    with connected(str(daemon.socket) if request.param == "unix" else tcp) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        yield connection


def ask(daemon: Daemon, path: str, *lines: str, body: bytes = b"", method: str = "GET") -> bytes:
    """Return the bytes of a request that is allowed on both listeners."""
    head = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"X-API-Key: {key_of(daemon)}",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def key_of(daemon: Daemon) -> str:
    """Return the text of one administrator's key."""
    path = Path(daemon.folder) / "key-of-the-test"
    if not path.exists():
        path.write_text(daemon.key("admin"))
    return path.read_text()


def infer(daemon: Daemon, deployment: str, text: str, *lines: str, **parameters) -> bytes:
    """Return the bytes of an inference."""
    body = json.dumps({"inputs": {"text": text}, "parameters": parameters}).encode()
    path = f"/v1/models/{deployment}/infer"
    return ask(daemon, path, "Content-Type: application/json", *lines, body=body, method="POST")


def until_cut(client: socket.socket) -> bool:
    """Tell whether the server ends the connection, of which nothing is read."""
    watched = select.poll()
    watched.register(client, select.POLLRDHUP)
    return bool(watched.poll(SECONDS * 1000))


def in_flight(daemon: Daemon, deployment: str) -> int:
    return int(daemon.status(deployment)["performance_metrics"]["in_flight"])


def outcomes(daemon: Daemon) -> dict[str, float]:
    """Return how many inferences ended how."""
    text = daemon.call("GET", "/metrics").raw.decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("prsmd_inference_requests_total"):
            outcome = line.partition('outcome="')[2].partition('"')[0]
            found[outcome] = found.get(outcome, 0.0) + float(line.rpartition(" ")[2])
    return found


def test_a_stream_that_is_not_read_gives_its_slot_back_and_counts_as_cancelled(served, client):
    daemon, deployment = served
    before = outcomes(daemon).get("cancelled", 0)
    client.sendall(infer(daemon, deployment, "flood", "Accept: text/event-stream"))
    daemon.until("it streams", lambda: in_flight(daemon, deployment) == 1)

    assert until_cut(client)

    daemon.until("the slot is free", lambda: in_flight(daemon, deployment) == 0, SECONDS)
    assert outcomes(daemon)["cancelled"] == before + 1
    assert daemon.infer(deployment).status == 200


def test_a_large_answer_that_is_not_read_is_given_up(served, client):
    daemon, deployment = served
    client.sendall(infer(daemon, deployment, "Acme Corp, " * 100_000, return_entities=True))

    assert until_cut(client)


@pytest.mark.parametrize("path", PIPELINED)
def test_answers_that_pile_up_unread_are_given_up_with_their_connection(served, path):
    """Whatever is asked and whoever answers: one place looks after all of it."""
    daemon, _ = served
    asked = ask(daemon, path) * 200
    with connected(str(daemon.socket)) as client:
        client.settimeout(0.2)
        watched = select.poll()
        watched.register(client, select.POLLRDHUP)
        deadline = time.monotonic() + SECONDS
        while not watched.poll(0):
            assert time.monotonic() < deadline, "it was not cut"
            try:
                client.sendall(asked)
            except TimeoutError:
                continue  # nothing more is read from us: now it has to be cut
            except OSError:
                break


def test_a_closed_connection_whose_last_answer_is_not_read_is_given_up(served, client):
    daemon, deployment = served
    large = infer(
        daemon, deployment, "Acme Corp, " * 100_000, "Connection: close", return_entities=True
    )
    client.sendall(large)

    assert until_cut(client)


def test_a_slow_but_steady_reader_gets_everything(served, client):
    daemon, deployment = served
    client.sendall(infer(
        daemon, deployment, "Acme Corp, " * 4_000, "Connection: close", return_entities=True
    ))  # fmt: skip
    received = bytearray()
    while piece := client.recv(32_768):
        received += piece
        time.sleep(0.05)  # this is the slow reader

    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(json.loads(body)["outputs"]["entities"]) == 4_000
