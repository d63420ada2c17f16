"""HTTP as no client sends it: refused in the envelope or closed, never guessed at, never a 500."""

import json

import pytest

from tests.api.conftest import Site
from tests.api.envelope import refused
from tests.api.wire import connected, parts, until_closed

ME = "GET /v1/auth/me HTTP/1.1"
JSON = "Content-Type: application/json"
SCALE = "POST /v1/custom-models/custom_legal_analyzer_v2/scale HTTP/1.1"
BODY = '{"target_replicas": 2}'


def raw(*lines, body=""):
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


MALFORMED = {
    "two lengths": raw(SCALE, "Host: localhost", JSON, *["Content-Length: 22"] * 2, body=BODY),
    "two different lengths": raw(
        SCALE, "Host: localhost", JSON, "Content-Length: 22", "Content-Length: 3", body=BODY
    ),
    "length and chunks": raw(
        SCALE, "Host: localhost", JSON, "Content-Length: 22", "Transfer-Encoding: chunked",
        body=f"16\r\n{BODY}\r\n0\r\n\r\n",
    ),
    "a negative length": raw(SCALE, "Host: localhost", JSON, "Content-Length: -1", body=BODY),
    "a length with a sign": raw(SCALE, "Host: localhost", JSON, "Content-Length: +22", body=BODY),
    "no chunked at the end": raw(
        SCALE, "Host: localhost", JSON, "Transfer-Encoding: chunked, identity", body=BODY
    ),
    "an unknown transfer encoding": raw(
        SCALE, "Host: localhost", JSON, "Transfer-Encoding: xchunked", body=BODY
    ),
    "a folded header": raw(ME, "Host: localhost", "X-A: 1", " folded"),
    "a space before the colon": raw(ME, "Host: localhost", "X-A : 1"),
    "a header without colon": raw(ME, "Host: localhost", "nonsense"),
    "a bare line feed": b"GET /v1/auth/me HTTP/1.1\nHost: localhost\n\n",
    "a bare return in a value": raw(ME, "Host: localhost", "X-A: 1\rX-B: 2"),
    "a NUL in a value": raw(ME, "Host: localhost", "X-A: 1\0"),
    "another version": raw("GET / HTTP/3.0", "Host: localhost"),
    "no version": raw("GET /v1/auth/me"),
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a method of symbols": raw("G{T / HTTP/1.1", "Host: localhost"),
    "a control character in the path": raw("GET /\x01 HTTP/1.1", "Host: localhost"),
}  # fmt: skip


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_http_is_refused_in_the_envelope_and_the_connection_closed(
    site: Site, request_bytes
):
    before = site.rows()

    answer = site.unix(request_bytes)

    refused(answer, 400, "INVALID_INPUT")
    assert site.rows() == before


BAD_CHUNKS = {
    "a size that is no number": "zz\r\n{}\r\n0\r\n\r\n",
    "a negative size": "-2\r\n{}\r\n0\r\n\r\n",
    "a size with 0x": "0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than its size": "1\r\n{}\r\n0\r\n\r\n",
    "a size beyond all bounds": "f" * 20 + "\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_malformed_chunks_are_refused(site: Site, body):
    before = site.rows()

    answer = site.unix(raw(SCALE, "Host: localhost", JSON, "Transfer-Encoding: chunked", body=body))

    refused(answer, 400, "INVALID_INPUT")
    assert site.rows() == before


def test_what_follows_a_refused_request_is_not_executed(site: Site):
    before = site.rows()
    smuggled = raw(SCALE, "Host: localhost", JSON, f"Content-Length: {len(BODY)}", body=BODY)
    first = raw(
        SCALE, "Host: localhost", JSON, "Content-Length: 5", "Transfer-Encoding: chunked",
        body="0\r\n\r\n",
    )  # fmt: skip

    answer = site.unix(first + smuggled)

    refused(answer, 400, "INVALID_INPUT")
    assert answer.count(b"HTTP/1.") == 1
    assert site.rows() == before


@pytest.mark.parametrize(
    "lines",
    [
        [ME, "Host: localhost", "X-Long: " + "x" * 20_000],
        ["GET /" + "x" * 20_000 + " HTTP/1.1", "Host: localhost"],
        [ME, "Host: localhost", *[f"X-{n}: " + "x" * 1000 for n in range(20)]],
    ],
    ids=["one header", "the path", "all headers together"],
)
def test_a_head_that_is_too_large_is_refused(site: Site, lines):
    answer = site.unix(raw(*lines, "Connection: close"))

    refused(answer, 413, "REQUEST_TOO_LARGE")
    assert b"x" * 201 not in answer


def test_too_many_headers_are_refused(site: Site):
    answer = site.unix(raw(ME, "Host: localhost", *[f"X-{n}: 1" for n in range(500)]))

    refused(answer, 400, "INVALID_INPUT")


@pytest.mark.parametrize(
    "target",
    ["http://localhost/v1/auth/me", "http://elsewhere/v1/auth/me", "*", "localhost:80"],
)
def test_a_target_that_is_no_path_is_refused(site: Site, target):
    method = "OPTIONS" if target == "*" else "CONNECT" if target == "localhost:80" else "GET"

    answer = site.unix(raw(f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close"))

    refused(answer, 400, "INVALID_INPUT")


@pytest.mark.parametrize(
    "host", ["elsewhere.example", "", "localhost.evil.example", "[::2]:80", "127.0.0.2", "\xff"]
)
def test_a_foreign_name_is_refused_on_tcp(site: Site, host):
    answer = site.tcp(raw("GET /healthz HTTP/1.1", f"Host: {host}", "Connection: close"))

    refused(answer, 400, "INVALID_INPUT")


def test_no_name_at_all_is_refused_on_tcp(site: Site):
    refused(site.tcp(raw("GET /healthz HTTP/1.0")), 400, "INVALID_INPUT")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:7443", "[::1]:7443"])
def test_our_own_names_are_accepted_on_tcp(site: Site, host):
    answer = site.tcp(raw("GET /healthz HTTP/1.1", f"Host: {host}", "Connection: close"))

    assert parts(answer)[::2] == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "path",
    [
        "/v1/custom-models/%2e%2e/api-keys",
        "/v1/custom-models/../api-keys",
        "/v1/custom-models/..%2fapi-keys",
        "/v1/custom-models/%00",
        "/v1/custom-models/a%00b",
        "/v1/custom-models/%ff%fe",
        "/v1/custom-models/%ed%a0%80",
        "/v1/custom-models/deployments/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/custom-models/" + "x" * 5000,
        "//v1/custom-models",
        "/v1//custom-models",
        "/V1/custom-models",
        "/v1/custom-models/",
        "/v2/custom-models",
        "/v1/custom-models/a;b=c",
        "/.env",
        "/docs/../openapi.json",
    ],
)
def test_paths_that_lead_nowhere_are_not_found(site: Site, path):
    answer = site.unix(raw(f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close"))

    status, _, body = parts(answer)
    assert status == 404, body
    refused(answer, 404, body["error"]["code"])
    assert b"x" * 201 not in answer


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/v1/custom-models/custom_legal_analyzer_v2"),
        ("DELETE", "/v1/custom-models"),
        ("GET", "/v1/custom-models/custom_legal_analyzer_v2/scale"),
        ("TRACE", "/v1/auth/me"),
        ("OPTIONS", "/v1/custom-models"),
        ("POST", "/healthz"),
        ("PROPFIND", "/v1/models"),
    ],
)
def test_a_method_that_is_not_served_is_refused_with_those_that_are(site: Site, method, path):
    answer = site.unix(raw(f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"))

    refused(answer, 405, "METHOD_NOT_ALLOWED")
    allowed = parts(answer)[1]["allow"]
    assert all(name in parts(answer)[2]["message"] for name in allowed.split(","))


def test_an_expectation_that_cannot_be_met_is_refused(site: Site):
    lines = [ME, "Host: localhost", "Expect: miracles", "Connection: close"]

    refused(site.unix(raw(*lines)), 400, "INVALID_INPUT")


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(site: Site):
    body = json.dumps({"inputs": {"text": "a contract"}})
    head = raw(
        "POST /v1/models/custom_legal_analyzer_v2/infer HTTP/1.1", "Host: localhost", JSON,
        "Expect: 100-continue", f"Content-Length: {len(body)}", "Connection: close",
    )  # fmt: skip
    with connected(str(site.daemon.socket)) as client:
        client.sendall(head)
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body.encode())
        assert parts(until_closed(client))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/nowhere", 404), ("PUT", "/v1/auth/me", 405)]
)
def test_a_body_that_nothing_takes_is_not_asked_for(site: Site, method, path, status):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Expect: 100-continue"]

    answer = site.unix(raw(*lines, "Content-Length: 100000"))

    assert parts(answer)[0] == status
    assert parts(answer)[1]["connection"] == "close"


@pytest.mark.parametrize("given", ["abc-123", "x" * 128, "~!@#$%^&*()"])
def test_a_request_id_is_taken_from_the_client(site: Site, given):
    answer = site.daemon.call("GET", "/v1/auth/me", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given

    refusal = site.daemon.call("GET", "/nowhere", headers={"X-Request-ID": given})
    refused(refusal, 404, "NOT_FOUND")
    assert refusal.json["error"]["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "\xff", "tab\there"])
def test_a_request_id_that_cannot_be_used_is_replaced(site: Site, given):
    answer = site.daemon.call("GET", "/v1/auth/me", headers={"X-Request-ID": given})

    assert answer.headers["X-Request-ID"].startswith("req_")


def test_every_answer_says_that_it_is_not_to_be_guessed_at(site: Site):
    for path in ("/healthz", "/v1/auth/me", "/nowhere", "/metrics", "/openapi.json"):
        headers = site.daemon.call("GET", path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "prsmd"
        assert headers["X-Request-ID"]


def test_the_log_keeps_malformed_bytes_and_tracebacks_of_clients_out(site: Site):
    site.unix(b"GET /evil-bytes\x01 HTTP/1.1\r\n\r\n")

    assert "Traceback" not in site.daemon.log, site.daemon.log
    assert "evil-bytes" not in site.daemon.log
