"""Nothing of a body is looked at for whom may not send it: on every route, whatever the body is."""

import gzip
import itertools
import re
import socket
from collections.abc import Iterator, Sequence

import pytest

from prsmd.api.app import OPERATIONS
from prsmd.api.operations import Operation
from prsmd.service.shares import SHAREABLE
from tests.api.cells import NEVER, OURS, name_of
from tests.api.conftest import Site
from tests.api.envelope import refused
from tests.api.wire import connected, parts

MIB = 1024**2
CHANGES = [each for each in OPERATIONS if each.answer is not None]
WITH_BODY = [each for each in OPERATIONS if each.body is not None or each.uploads]
INFER = next(each for each in OPERATIONS if each.path.endswith("/infer"))
# Each body is refused as what it is once it is looked at, and none of them ever ends.
BODIES = {
    "unparsable": ("Content-Length: 1000", b"{" * 10),
    "huge": (f"Content-Length: {1000 * MIB}", b'{"a":1,' * 100),
    "endless": ("Transfer-Encoding: chunked", b'5\r\n{"a":\r\n'),
    "compressed": ("Content-Length: 100000\r\nContent-Encoding: gzip", gzip.compress(b"x" * MIB)),
    "of another type": ("Content-Length: 1000\r\nContent-Type: text/plain", b"text"),
    "awaited": ("Content-Length: 1000\r\nExpect: 100-continue", b""),
}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def powerless(site: Site) -> str:
    """The key of somebody who may do nothing at all."""
    role = {"name": f"powerless-{next(_numbers)}", "permissions": []}
    made = site.daemon.call("POST", "/v1/roles", role)
    assert made.status == 201, made
    return site.daemon.key(role["name"])


def path_of(site: Site, operation: Operation) -> str:
    """The path on things that are there, as far as that matters for the permission."""
    there = {"model_id": OURS, "deployment_id": site.accepted["deployment_id"]}
    return operation.path.format(**{**NEVER, **there})


def head(operation: Operation, path: str, lines: str, key: str | None = None) -> bytes:
    """The head of a request of which no more than its body's beginning is ever sent."""
    lines = f"X-API-Key: {key}\r\n{lines}" if key is not None else lines
    kind = "" if "Content-Type" in lines else "Content-Type: application/json\r\n"
    return (
        f"{operation.method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}{lines}\r\n\r\n"
    ).encode("latin-1")


def answer_of(address: object, raw: bytes) -> bytes:
    """The answer to a client that never sends the rest of its body, nor hangs up."""
    with connected(address) as client:
        client.sendall(raw)
        return one_answer(client)


def one_answer(client: socket.socket) -> bytes:
    received = b""
    while True:
        before, found, after = received.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", before)
        if found and length is not None and len(after) >= int(length[1]):
            return received
        chunk = client.recv(65536)
        assert chunk, received
        received += chunk


def tcp(site: Site) -> tuple[str, int]:
    return "127.0.0.1", site.daemon.tcp_port


def told(answer: bytes) -> tuple[int, dict[str, str]]:
    status, headers, body = parts(answer)
    assert body["error"]["code"], body
    return status, headers


def test_only_changes_of_the_callers_own_self_name_no_permission() -> None:
    assert {name_of(each) for each in CHANGES if each.permission is None} == {
        "POST /v1/members/{member_id}/accept",
        "POST /v1/members/{member_id}/leave",
    }


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_nobody_is_refused_without_a_look_at_the_body(site: Site, operation):
    for lines, body in BODIES.values():
        answer = answer_of(tcp(site), head(operation, path_of(site, operation), lines) + body)

        refused(answer, 401, "INVALID_API_KEY")


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.permission is not None], ids=name_of
)
def test_who_lacks_the_permission_is_refused_without_a_look_at_the_body(
    site: Site, powerless: str, operation
):
    for kind, (lines, body) in BODIES.items():
        raw = head(operation, path_of(site, operation), lines, powerless) + body

        status, headers = told(answer_of(tcp(site), raw))

        assert status in {403, 404}
        ends = kind in {"huge", "endless", "compressed", "awaited"}  # a small rest is waited for
        assert (headers.get("connection") == "close") == ends


@pytest.mark.parametrize(
    "operation",
    [
        each
        for each in OPERATIONS
        if each.permission is not None
        and (each.method != "GET" or each.permission not in SHAREABLE.values())
    ],
    ids=name_of,
)
def test_who_lacks_the_permission_is_refused_without_a_look_at_the_rest_of_the_request(
    site: Site, powerless: str, operation
):
    path = path_of(site, operation)
    for query, lines in (
        ("?bogus=1", ""),
        ("?dry_run=perhaps", ""),
        ("?limit=-1&limit=x&since=never&sequence=x&log=x", ""),
        ("", "Idempotency-Key: \xff\r\n"),
        ("", "If-Match: x\r\n"),
        ("", "Last-Event-ID: x\r\nAccept: text/event-stream\r\n"),
    ):
        raw = head(operation, path + query, f"{lines}Content-Length: 0", powerless)

        status, _ = told(answer_of(tcp(site), raw))

        assert status in {403, 404}, (query, lines)


@pytest.mark.parametrize(
    "operation",
    [each for each in (*CHANGES, INFER) if "{model_id}" in each.path],
    ids=name_of,
)
def test_a_foreign_model_is_not_found_without_a_look_at_the_body(site: Site, operation):
    for lines, body in BODIES.values():
        messages = set()
        for model in (OURS, NEVER["model_id"]):
            path = operation.path.format(**{**NEVER, "model_id": model})
            raw = answer_of(tcp(site), head(operation, path, lines, site.other_key) + body)
            refused(raw, 404, "MODEL_NOT_FOUND")
            messages.add(parts(raw)[2]["message"].replace(model, "it"))
        assert len(messages) == 1  # what is another's is told as what never was


CODED: Sequence[Sequence[str]] = (
    ("Content-Encoding: gzip",),
    ("content-encoding: DEFLATE",),
    ("Content-Encoding: br",),
    ("Content-Encoding: x-unheard-of",),
    ("Content-Encoding: identity, gzip",),
    ("Content-Encoding: identity", "Content-Encoding: gzip"),
)


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_a_coded_body_is_refused_with_what_is_accepted(site: Site, operation):
    for coding in CODED:
        lines = "\r\n".join((*coding, f"Content-Length: {1000 * MIB}"))
        raw = head(operation, path_of(site, operation), lines)

        answer = answer_of(str(site.daemon.socket), raw)

        refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
        _, headers, body = parts(answer)
        assert headers["accept-encoding"] == "identity"
        assert "identity" in body["message"]


@pytest.mark.parametrize("operation", WITH_BODY, ids=name_of)
def test_a_body_that_says_it_is_as_it_is_is_accepted(site: Site, operation):
    lines = "Content-Encoding: Identity\r\nContent-Length: 1\r\nConnection: close"
    path = path_of(site, operation)
    asked = path if operation.uploads else f"{path}?no_such_parameter=1"

    status, _ = told(answer_of(str(site.daemon.socket), head(operation, asked, lines) + b"{"))

    assert status == (409 if operation.uploads else 400)  # this runtime loads no archives


def test_nothing_is_unpacked_while_a_body_arrives(site: Site):
    """A gigabyte in a megabyte is read by no route, and by no parser beneath them either."""
    bomb = gzip.compress(b"\0" * 64 * MIB)
    path = path_of(site, INFER)
    lines = f"Content-Length: {len(bomb)}\r\nContent-Encoding: gzip"

    with connected(str(site.daemon.socket)) as client:
        client.sendall(head(INFER, path, lines))
        for piece in _pieces(bomb):
            try:
                client.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
        refused(one_answer(client), 415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_stored_answer_is_given_again_though_what_it_tells_of_is_gone(site: Site):
    """Permission comes before the body; an answer that was given comes before the permission."""
    headers = {"Idempotency-Key": "once-removed"}
    made = site.daemon.call("POST", "/v1/api-keys", {"name": "gone", "role": "viewer"})
    path = f"/v1/api-keys/{made.json['key_id']}"
    first = site.daemon.call("DELETE", path, headers=headers)
    assert first.status == 200, first

    again = site.daemon.call("DELETE", path, headers=headers)

    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json == first.json


def test_who_lacks_the_permission_sends_no_body_for_an_answer_never_given(
    site: Site, powerless: str
):
    scale = next(each for each in OPERATIONS if each.path.endswith("/scale"))
    lines = f"Idempotency-Key: never-answered\r\nContent-Length: {1000 * MIB}"
    raw = head(scale, path_of(site, scale), lines, powerless)

    refused(answer_of(tcp(site), raw), 403, "INSUFFICIENT_PERMISSIONS")


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 65536):
        yield data[at : at + 65536]
