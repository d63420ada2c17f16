"""Heads that two readers would understand differently: refused, and nothing after is answered."""

import ast
import contextlib
import re
from pathlib import Path

import pytest

import prsmd.api
from prsmd.api.request_heads import SINGLETON_HEADERS
from tests.api.conftest import Site
from tests.api.envelope import refused
from tests.api.wire import connected, parts, until_closed

ME = "GET /v1/auth/me HTTP/1.1"
HOST = "Host: localhost"
JSON = "Content-Type: application/json"
SCALE = "POST /v1/custom-models/custom_legal_analyzer_v2/scale HTTP/1.1"
BODY = '{"target_replicas": 2}'
CHUNKS = f"16\r\n{BODY}\r\n0\r\n\r\n"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def raw(*lines, body=""):
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def scale(*lines, body=BODY):
    return raw(SCALE, HOST, *lines, body=body)


AMBIGUOUS = {
    **{
        f"two of {name}": raw(ME, *([] if name == "host" else [HOST]), *[f"{name}: {value}"] * 2)
        for name in sorted(SINGLETON_HEADERS)
        for value in ["100-continue" if name == "expect" else "localhost"]
        if name not in {"content-length", "transfer-encoding", "upgrade"}
    },
    **{
        f"a wrong Expect, {words}": raw(first, HOST, "Expect: miracles", *lines, body=body)
        for words, first, lines, body in (
            ("to be read", ME, [], ""),
            ("with a body", SCALE, [JSON, "Content-Length: 22"], BODY),
            ("with two codings", SCALE, [JSON, "Transfer-Encoding: gzip, chunked"], CHUNKS),
            ("at no path", "GET /nowhere HTTP/1.1", [], ""),
            ("with no method", "BREW /v1/auth/me HTTP/1.1", [], ""),
        )
    },
    "two upgrades": raw(ME, HOST, "Upgrade: a", "Upgrade: b"),
    "two different names of a key": raw(ME, HOST, "Authorization: Bearer a", "X-API-Key: b"),
    "a key beside a password": raw(ME, HOST, "Authorization: Basic YTpi", "X-API-Key: b"),
    "gzip, chunked": scale(JSON, "Transfer-Encoding: gzip, chunked", body=CHUNKS),
    "chunked, chunked": scale(JSON, "Transfer-Encoding: chunked, chunked", body=CHUNKS),
    "identity": scale(JSON, "Transfer-Encoding: identity", "Content-Length: 22"),
    "chunked; q=1": scale(JSON, "Transfer-Encoding: chunked; q=1", body=CHUNKS),
    "an empty coding": scale(JSON, "Transfer-Encoding: ", "Content-Length: 22"),
    "two codings": scale(JSON, *["Transfer-Encoding: chunked"] * 2, body=CHUNKS),
    "chunks before the length": scale(
        JSON, "Transfer-Encoding: chunked", "Content-Length: 22", body=CHUNKS
    ),
    "chunks in HTTP/1.0": raw(
        SCALE.replace("1.1", "1.0"), HOST, JSON, "Transfer-Encoding: chunked", body=CHUNKS
    ),
    **{
        f"HTTP/{version}": raw(f"GET /v1/auth/me HTTP/{version}", HOST)
        for version in ("0.9", "1.2", "1.9", "2.0", "3.0", "9.9", "1.10", "01.1")
    },
    **{
        f"a path with a fragment, {path}": raw(f"GET {path} HTTP/1.1", HOST)
        for path in ("/v1/auth/me#a", "/v1/auth/me#/healthz", "/healthz#", "/nowhere?a=b#c")
    },
    **{
        f"Host {host!r}": raw(ME, f"Host: {host}")
        for host in (
            "localhost:evil", "localhost:80:80", "user@localhost", "user:pass@localhost:80", "",
            "localhost:99999", "localhost:+80", "localhost:-1", "localhost:8 0", ":80",
            "local host",
            "localhost/", "localhost?", "localhost#a", "[::1", "::1", "[::1]x", "[zz]", "\xff",
            "localhost, localhost", "localhost:000080", "http://localhost",
        )
    },
    **{
        f"Content-Type {kind!r}": scale(f"Content-Type: {kind}", "Content-Length: 22")
        for kind in (
            "application/json; charset=utf-16", "application/json;charset=latin-1",
            'application/json; charset="utf-7"', "Application/JSON; a=b; CHARSET=ascii",
            "application/json; charset=utf-8; charset=utf-16", "application/json; charset=",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("head", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
@pytest.mark.parametrize("listener", ["unix", "tcp"])
def test_an_ambiguous_head_is_refused_and_nothing_after_it_is_answered(site: Site, head, listener):
    before = site.rows()

    answer = getattr(site, listener)(head + NEXT)

    if answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
        pytest.fail("was asked for its body")
    refused(answer, 400, "INVALID_INPUT")
    assert answer.count(b"HTTP/1.") == 1
    assert parts(answer)[1]["connection"] == "close"
    assert site.rows() == before


ACCEPTED = {
    "the same key in both headers": ["Authorization: Bearer {key}", "X-API-Key: {key}"],
    "lists in several lines": ["Accept: a/b", "Accept: c/d", "If-Match: *"],
    "a port": ["Host: localhost:7443"],
    "capitals": ["Host: LOCALHOST"],
    "an address": ["Host: [::1]:7443"],
    "an empty port": ["Host: localhost:"],
}


@pytest.mark.parametrize("lines", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_head_with_one_meaning_is_accepted(site: Site, lines):
    key = site.keys["viewer"]
    lines = [line.format(key=key) for line in lines]
    host = [] if any(line.startswith("Host") for line in lines) else [HOST]
    identity = [] if any("Bearer" in line for line in lines) else [f"X-API-Key: {key}"]

    answer = site.tcp(raw(ME, *host, *identity, *lines, "Connection: close"))

    assert parts(answer)[0] == 200, answer


@pytest.mark.parametrize(
    "kind", ["application/json; charset=UTF-8", 'application/json;charset="utf8"']
)
def test_a_body_in_utf_8_is_accepted(site: Site, kind):
    body = '{"inputs": {"text": "a"}}'
    path = "POST /v1/models/custom_legal_analyzer_v2/infer HTTP/1.1"
    head = [
        path,
        HOST,
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]

    assert parts(site.unix(raw(*head, body=body)))[0] == 200


@pytest.mark.parametrize("protocol", ["h2c", "tcp", "foo", "websocket", "TLS/1.0", "h2c, foo", ""])
@pytest.mark.parametrize("connection", ["Upgrade", "upgrade, HTTP2-Settings", "keep-alive"])
@pytest.mark.parametrize("split", [False, True])
def test_an_offer_of_another_protocol_is_ignored_and_the_last_on_its_connection(
    site: Site, protocol, connection, split
):
    """What was sent after it is not answered, and the answer says so: it can be sent again."""
    offer = raw(ME, HOST, f"Connection: {connection}", f"Upgrade: {protocol}")
    with connected(str(site.daemon.socket)) as client:
        client.sendall(offer + NEXT[:20])
        answer = client.recv(65536) if split else b""
        with contextlib.suppress(BrokenPipeError):  # it may have been closed by now
            client.sendall(NEXT[20:] + NEXT)
        answer += until_closed(client)

    assert answer.count(b"HTTP/1.") == 1
    status, headers, _ = parts(answer)
    assert (status, headers["connection"]) == (200, "close")


def test_a_body_of_a_request_that_offers_another_protocol_is_read(site: Site):
    body = '{"inputs": {"text": "a contract"}}'
    for framing, sent in (
        (f"Content-Length: {len(body)}", body),
        ("Transfer-Encoding: chunked", f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"),
    ):
        head = [
            "POST /v1/models/custom_legal_analyzer_v2/infer HTTP/1.1", HOST, JSON, framing,
            "Connection: Upgrade", "Upgrade: h2c",
        ]  # fmt: skip
        answer = site.unix(raw(*head, body=sent) + NEXT)

        assert answer.count(b"HTTP/1.") == 1
        assert parts(answer)[0] == 200, answer


def test_pipelined_requests_are_answered_in_order(site: Site):
    mixed = raw("GET /nowhere HTTP/1.1", HOST)

    answer = site.unix((NEXT + mixed) * 10 + raw(ME, HOST, "Connection: close"))

    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"404"] * 10 + [b"200"]


def test_every_header_that_the_api_reads_as_one_value_has_to_be_given_once():
    """A new `headers.get(…)` belongs into the table, or reads all values (`getall`)."""
    read = set()
    for path in Path(prsmd.api.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            read |= {name.lower() for name in _read_by(node)}

    assert {"host", "authorization", "x-request-id", "last-event-id"} <= read
    assert read <= SINGLETON_HEADERS, read - SINGLETON_HEADERS


def _read_by(node):
    """Return the header that an expression such as `request.headers.get("Host")` reads."""
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute) and called.attr == "get":
        return [_name_of(node.args[0])] if _is_request_headers(called.value) else []
    if isinstance(node, ast.Subscript) and _is_request_headers(node.value):
        return [_name_of(node.slice)]
    return []


def _name_of(node):
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node)


def _is_request_headers(node):
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "headers"
        and isinstance(node.value, ast.Name)
        and node.value.id == "request"
    )
