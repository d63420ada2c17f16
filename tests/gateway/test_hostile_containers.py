"""Whatever a container answers becomes outputs or the documented error, in bounded time."""

import json

import pytest
from aiohttp import web

from prsmd.domain.errors import InferenceTimeoutError, ProviderError
from prsmd.gateway.infer import Gateway, InferenceResult, Outcome
from tests.gateway.backends import Backend, Raw, RouteTarget, route, table
from tests.support.asking import asking, outputs_of


async def ask(
    gateway: Gateway, target: RouteTarget, *, stream: bool = False, seconds: float = 20.0
) -> InferenceResult:
    published = route(target, request_timeout_seconds=seconds)
    gateway.publish(table(published))
    return await gateway.infer(published, asking(inputs=1, request_id="r", stream=stream))


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


OK = b'{"outputs": 1}'
WRONG = {
    "an error status": (http(b"CUDA out of memory", "500 Oops"), "status 500: CUDA out of memory"),
    "a redirect": (http(b"", "302 Found", "Location: http://127.0.0.1:1/"), "status 302"),
    "a created": (http(OK, "201 Created"), "status 201"),
    "switching protocols": (http(b"", "101 Switching Protocols", "Upgrade: x"), ""),
    "no JSON": (http(b"<html>"), "not valid JSON: <html>"),
    "nothing": (http(b""), "not valid JSON"),
    "not UTF-8": (http(b'{"outputs": "\xff"}'), "not valid JSON"),
    "a list": (http(b"[1]"), 'not a JSON object with "outputs"'),
    "no outputs": (http(b'{"output": 1}'), 'not a JSON object with "outputs"'),
    "NaN": (http(b'{"outputs": NaN}'), "not valid JSON"),
    "endless nesting": (http(b'{"outputs": ' + b"[" * 90_000), "not valid JSON"),
    "an endless number": (http(b'{"outputs": ' + b"1" * 90_000 + b"}"), "not valid JSON"),
    "a huge answer": (http(b'{"outputs": "' + b"x" * 100_000 + b'"}'), "larger than 100000 bytes"),
    "an event stream": (
        http(b"data: 1\n\n", "200 OK", "Content-Type: text/event-stream"), "not asked to stream",
    ),
    "compression": (http(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip"), "compressed its answer"),
    "a hang-up in the body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + OK, "broke off: the body is incomplete",
    ),
    "a hang-up in the head": (b"HTTP/1.1 200 OK\r\nContent-", "it closed the connection"),
    "a hang-up without a word": (b"", "it closed the connection"),
    "a chunk that is none": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" + OK, "",
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "did not answer in HTTP"),
    "both lengths": (
        http(OK, "200 OK", "Transfer-Encoding: chunked"), "",
    ),
    "two lengths": (http(OK, "200 OK", "Content-Length: 3"), ""),
    "a huge header": (http(OK, "200 OK", "X: " + "y" * 20_000), "did not answer in HTTP"),
    "very many headers": (http(OK, "200 OK", *["X: y"] * 2_000), "did not answer in HTTP"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "message"), WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_is_a_provider_error(gateway: Gateway, answer: bytes, message: str):
    async with Raw(answer) as backend:
        with pytest.raises(ProviderError) as caught:
            await ask(gateway, backend.target)
        assert message in caught.value.message
        assert len(caught.value.message) < 700
        assert backend.connections == 1  # something was sent, so nothing is tried again
        assert gateway.in_flight() == {"raw": 0}
        assert gateway.totals()["deploy_a"].requests == {Outcome.PROVIDER_ERROR: 1}


async def test_an_error_quotes_status_and_500_characters_and_no_header(gateway: Gateway):
    answer = http(b"\x1b[31mboom\r\n" + b"x" * 5000, "503 Busy", "Set-Cookie: secret=1")
    async with Raw(answer) as backend:
        with pytest.raises(ProviderError) as caught:
            await ask(gateway, backend.target)
        details = dict(caught.value.details)
        assert details["provider_status"] == 503
        assert len(details["provider_text"]) <= 500
        assert details["provider_text"].startswith("[31mboom  xxx")
        assert "secret" not in json.dumps(details) + caught.value.message


async def test_an_answer_that_drips_for_ever_ends_with_the_request_timeout(gateway: Gateway):
    async with Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", linger=True) as backend:
        with pytest.raises(InferenceTimeoutError):
            await ask(gateway, backend.target, seconds=0.1)
        assert gateway.in_flight() == {"raw": 0}


async def test_a_container_that_never_answers_ends_with_the_request_timeout(gateway: Gateway):
    async with Raw(b"", linger=True) as backend:
        with pytest.raises(InferenceTimeoutError):
            await ask(gateway, backend.target, seconds=0.1)


async def test_cookies_of_a_container_are_not_sent_back(gateway: Gateway):
    async def set_cookie(request: web.Request) -> web.Response:
        response = web.json_response({"outputs": 1})
        response.set_cookie("session", "1")
        return response

    async with Backend(handler=set_cookie) as backend:
        for _ in range(2):
            await ask(gateway, backend.target)
        assert all("Cookie" not in request.headers for request in backend.requests)


@pytest.mark.parametrize("outputs", [None, 0, "", [], {}, {"a": [1.5, "ü", None, True]}])
async def test_any_json_can_be_outputs(gateway: Gateway, outputs: object):
    async with Raw(http(json.dumps({"outputs": outputs, "extra": 1}).encode())) as backend:
        assert outputs_of(await ask(gateway, backend.target)) == outputs


async def test_the_proxy_of_the_environment_is_not_used(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with Raw(http(OK)) as backend:
        assert outputs_of(await ask(gateway, backend.target)) == 1
