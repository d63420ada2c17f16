"""Following: events and logs as streams, resumed where they broke off, and the long poll."""

import contextlib
import json
import threading

import pytest

from tests.api.conftest import Site, small
from tests.api.document import INFER
from tests.api.envelope import refused
from tests.api.wire import connected

SCALE = "/v1/custom-models/custom_legal_analyzer_v2/scale"


class Stream:
    """A followed path; `next` gives one event after the other."""

    def __init__(self, site: Site, path: str, *headers: str) -> None:
        self._client = connected(str(site.daemon.socket))
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Accept: text/event-stream", *headers]
        self._client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._file = self._client.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._client.close()

    def next(self):
        """Return (id, event, data) of the next event; a comment or heartbeat is none."""
        found = {}
        while True:
            line = self._line()
            if not line and "data" in found:
                return found.get("id"), found["event"], json.loads(found["data"])
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                found[name] = value

    def _line(self):
        """Return one line of the body, which comes in chunks."""
        if not hasattr(self, "_chunk"):
            self._chunk = b""
        while b"\n" not in self._chunk:
            size = int(self._file.readline(), 16)
            assert size, "the stream ended"
            self._chunk += self._file.read(size)
            self._file.readline()
        line, _, self._chunk = self._chunk.partition(b"\n")
        return line.decode()


@pytest.fixture
def one(site: Site):
    return f"/v1/custom-models/deployments/{site.accepted['deployment_id']}"


def until(stream, reason):
    """Return the first event for a reason."""
    while True:
        number, _, data = stream.next()
        if data["reason"] == reason:
            return number, data


def test_events_are_given_from_the_first_and_then_as_they_happen(site: Site, one):
    with Stream(site, f"{one}/events") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        first, _ = until(stream, "Deployed")
        ready, _ = until(stream, "Ready")
        assert int(first) < int(ready)

        latest = site.daemon.call("GET", f"{one}/events").json["events"][-1]["sequence"]
        site.daemon.call("POST", SCALE, {"target_replicas": 1})

        number, data = until(stream, "ScaleRequested")
        while int(number) <= latest:
            number, data = until(stream, "ScaleRequested")
        assert data["message"].startswith("1 replicas asked")
        assert data["sequence"] == int(number)


@pytest.mark.parametrize("way", ["header", "parameter"])
def test_a_stream_goes_on_after_the_last_event_that_was_seen(site: Site, one, way):
    events = site.daemon.call("GET", f"{one}/events").json["events"]
    seen, following = events[1]["sequence"], events[2:]
    path = f"{one}/events" + (f"?after={seen}" if way == "parameter" else "")
    headers = [f"Last-Event-ID: {seen}"] if way == "header" else []

    with Stream(site, path, *headers) as stream:
        for expected in following:
            number, kind, data = stream.next()
            assert (int(number), kind, data) == (expected["sequence"], "deployment", expected)


def test_the_last_events_are_given_oldest_first(site: Site, one):
    every = site.daemon.call("GET", f"{one}/events?limit=1000").json["events"]
    last = site.daemon.call("GET", f"{one}/events?limit=2").json["events"]

    assert last == every[-2:]
    assert [event["sequence"] for event in every] == sorted(e["sequence"] for e in every)


def test_logs_are_given_and_followed(site: Site, one):
    lines = site.daemon.call("GET", f"{one}/logs?tail=10000").json["lines"]
    assert "listening" in [line["text"] for line in lines]
    assert set(lines[0]) == {"at", "stream", "text", "replica_id"}

    with Stream(site, f"{one}/logs?tail=1") as stream:
        stream.next()
        site.daemon.call("POST", "/v1/models/custom_legal_analyzer_v2/infer", INFER)
        _, kind, line = stream.next()
        assert (kind, line["stream"]) == ("log", "stdout")
        assert line["text"].startswith("analyzing ")


def test_logs_can_be_of_one_replica(site: Site, one):
    [replica] = [
        item["replica_id"]
        for item in site.daemon.call("GET", one).json["replica_details"]
        if item["ready"]
    ]
    lines = site.daemon.call("GET", f"{one}/logs?replica={replica}&tail=5").json["lines"]

    assert {line["replica_id"] for line in lines} == {replica}
    assert len(lines) <= 5
    refused(site.daemon.call("GET", f"{one}/logs?replica=none"), 404, "NOT_FOUND")


def test_a_settled_deployment_answers_a_long_poll_at_once(site: Site, one):
    assert site.daemon.call("GET", f"{one}?wait=300", timeout=10).json["status"] == "running"


def test_a_long_poll_answers_when_the_time_is_over(site: Site):
    made = unplaceable(site)
    try:
        path = f"/v1/custom-models/deployments/{made}?wait=0.2"
        assert site.daemon.call("GET", path, timeout=10).json["status"] == "deploying"
    finally:
        remove(site, made)


def test_a_long_poll_on_a_deployment_that_is_deleted_meanwhile_ends_with_not_found(site: Site):
    made = unplaceable(site)
    found = []

    def poll():
        found.append(site.daemon.call("GET", f"/v1/custom-models/deployments/{made}?wait=60"))

    polling = threading.Thread(target=poll)
    polling.start()
    remove(site, made)
    polling.join(30)

    assert not polling.is_alive()
    refused(found[0], 404, "DEPLOYMENT_NOT_FOUND")


def test_an_event_stream_tells_that_its_deployment_is_deleted(site: Site):
    made = unplaceable(site)
    with Stream(site, f"/v1/custom-models/deployments/{made}/events") as stream:
        until(stream, "Deployed")
        remove(site, made)
        until(stream, "DeleteRequested")


def test_clients_that_vanish_leave_nothing_behind(site: Site, one):
    for _ in range(20):
        with Stream(site, f"{one}/events"), Stream(site, f"{one}/logs"):
            pass
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connected(str(site.daemon.socket)))
            client.sendall(f"GET {one}?wait=300 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    assert site.daemon.call("GET", "/readyz").status == 200
    assert "Traceback" not in site.daemon.log, site.daemon.log


def streamed(site: Site, text: str) -> tuple[bytes, bytes]:
    """Return head and body of a streamed inference, as they stand on the wire."""
    body = json.dumps({"inputs": {"text": text}})
    lines = [
        "POST /v1/models/custom_legal_analyzer_v2/infer HTTP/1.1",
        "Host: localhost",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    head, _, rest = site.unix(("\r\n".join(lines) + "\r\n\r\n" + body).encode()).partition(
        b"\r\n\r\n"
    )
    return head, rest


def test_a_models_stream_is_relayed_and_properly_ended(site: Site):
    head, body = streamed(site, "one two")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"data: one\n\n" in body
    assert b"data: two\n\n" in body
    assert body.endswith(b"0\r\n\r\n")


def test_a_stream_that_breaks_off_ends_with_an_error_event_and_without_a_proper_end(site: Site):
    head, body = streamed(site, "one break-off")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1" not in body, body
    assert not body.endswith(b"0\r\n\r\n")
    _, _, said = body.partition(b"event: error\ndata: ")
    error = json.loads(said.splitlines()[0])["error"]
    assert error["code"] == "PROVIDER_ERROR"
    assert error["request_id"].encode() in head


def test_nothing_is_added_to_a_half_written_event(site: Site):
    head, body = streamed(site, "one half break-off")
    assert head.startswith(b"HTTP/1.1 200")
    assert body.endswith(b"data: ha\r\n"), body


def unplaceable(site: Site) -> str:
    """Deploy what cannot be placed while the document's model holds the GPU; return its id."""
    body = small("waiting-for-a-gpu")
    body["deployment_config"]["resource_requirements"]["gpu"] = "1"
    made = site.daemon.call("POST", "/v1/custom-models/deploy", body)
    assert made.status == 202, made
    assert made.json["reasons"]
    return str(made.json["deployment_id"])


def remove(site: Site, deployment: str) -> None:
    """Delete that model again; return when it is gone."""
    site.daemon.call("DELETE", "/v1/custom-models/waiting-for-a-gpu")
    path = f"/v1/custom-models/deployments/{deployment}"
    site.daemon.until("it is gone", lambda: site.daemon.call("GET", path).status == 404)
