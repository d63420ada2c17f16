"""A model whose server speaks HTTP as an attacker would: its callers hear so, nobody else does.

What each single answer comes to is in `tests/gateway/`; here it is one of two models of an
appliance, and the other one's callers must not notice.
"""

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.traffic import Traffic

pytestmark = pytest.mark.engine

SERVER = r"""
import json, os, socket, threading
OK = b'{"outputs": 1}'
def http(status, body=b"", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "bytes": (CHUNKED, b"1\r\nx\r\n"),
    "extension": (CHUNKED + b"1;", b"a=b;"),
    "body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
}
ONCE = {
    "ready": http("200 OK", b"{}"),
    "upgrade": http("101 Switching Protocols", b"", "Upgrade: websocket", "Connection: Upgrade"),
    "bomb": http("200 OK", b"\x1f\x8b" + b"\0" * 9000, "Content-Encoding: gzip"),
    "split": http("200 OK", OK, "X-Y: a\r\n\r\nHTTP/1.1 200 OK"),
    "deep": http("200 OK", b'{"outputs": ' + b"[" * 900000),
    "nothing": b"",
}
def answer(way, kind):
    if kind.startswith("redirect "):
        way.sendall(http("307 Temporary Redirect", b"", "Location: " + kind.split()[1]))
    elif kind == "silence":
        threading.Event().wait()
    elif kind in ENDLESS:
        first, more = ENDLESS[kind]
        way.sendall(first)
        while True:
            way.sendall(more * (65536 // len(more)))
    else:
        way.sendall(ONCE[kind])
def serve(way):
    try:
        file = way.makefile("rb")
        head = []
        while (line := file.readline().strip()):
            head.append(line)
        length = [line for line in head if line.lower().startswith(b"content-length:")]
        body = file.read(int(length[0].split(b":")[1])) if length else b""
        health = head[0].startswith(b"GET /health")
        answer(way, os.environ["HEALTH"] if health else json.loads(body)["inputs"])
    except OSError:
        pass
    finally:
        way.close()
listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
while True:
    way, _ = listener.accept()
    threading.Thread(target=serve, args=(way,), daemon=True).start()
"""


def hostile_body(health: str = "ready") -> dict[str, object]:
    body = deploy_body(
        "company-hostile",
        environment={"HEALTH": health},
        serving={"request_timeout_seconds": 3, "startup_timeout_seconds": 600},
    )
    body["deployment_config"]["command"] = ["python3", "-c", SERVER]  # type: ignore[index]
    return body


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """Give a listener of the host that nobody may be led to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def neighbour(daemon: Daemon, traffic: Callable[..., Traffic]) -> Iterator[Traffic]:
    """Give traffic to a model beside the hostile one; afterwards every request was answered."""
    daemon.until_ready(daemon.deploy(deploy_body(cpu="500m")), 1)
    steady = traffic("custom_model", threads=2, each=100_000)
    steady.until_answered(20)
    yield steady
    steady.until_answered(20)
    steady.stop()
    assert steady.failed == []
    assert daemon.call("GET", "/readyz").status == 200


def test_nothing_that_it_answers_reaches_anyone_but_its_callers(
    daemon: Daemon, neighbour: Traffic, trap: socket.socket
) -> None:
    daemon.until_ready(daemon.deploy(hostile_body()), 1)
    led = f"redirect http://127.0.0.1:{trap.getsockname()[1]}/latest/meta-data"
    kinds = ["hints", "bytes", "extension", "body", "trailers", "headers", "upgrade", "bomb"]
    for kind in [*kinds, "split", "deep", "nothing", "silence", led]:
        answer = daemon.infer("custom_hostile", kind)
        assert answer.status == (504 if kind == "silence" else 502), (kind, answer)
        assert daemon.call("GET", "/healthz").status == 200
        neighbour.until_answered(5)
    with pytest.raises(BlockingIOError):
        trap.accept()


HEALTH = {
    "silence": "no answer from /health in time",
    "hints": "/health broke off",
    "extension": "",  # its head says 200, and no more than that is read
    "upgrade": "/health answered 101",
    "redirect": "/health answered 307",
}


@pytest.mark.parametrize(("health", "words"), HEALTH.items(), ids=HEALTH)
def test_a_health_endpoint_that_attacks_holds_up_nobody(
    daemon: Daemon, neighbour: Traffic, trap: socket.socket, health: str, words: str
) -> None:
    led = f"redirect http://127.0.0.1:{trap.getsockname()[1]}/"
    deployment = daemon.deploy(hostile_body(led if health == "redirect" else health))

    def found() -> bool:
        details = daemon.status(deployment)["replica_details"]
        told = bool(words) and bool(details) and words in (details[0]["message"] or "")
        return told or (not words and bool(details) and details[0]["ready"])

    daemon.until(f"its probe found: {words}", found)
    neighbour.until_answered(50)
    with pytest.raises(BlockingIOError):
        trap.accept()
