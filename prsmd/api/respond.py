"""How answers are written: JSON, errors in the documented envelope, event streams."""

import asyncio
import contextlib
import datetime as dt
import json
import math
import secrets
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from typing import Any

from aiohttp import web

from prsmd.api.operations import REQUEST_ID
from prsmd.domain.errors import PrsmdError

_RETRY_SECONDS = 5
_EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")
_KEEP_ALIVE_SECONDS = 30.0  # half of what proxies and the SDK take for a dead connection


class EventStream(web.StreamResponse):
    """An answer of server-sent events."""

    def __init__(self) -> None:
        super().__init__(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        self._end = _EVENT_ENDS[0]

    @property
    def whole(self) -> bool:
        """True while no event is half written: a container's own may break off anywhere."""
        return self._end.endswith(_EVENT_ENDS)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes of events."""
        self._end = (self._end + bytes(data[-4:]))[-4:]
        await super().write(data)


STREAM = web.RequestKey("stream", EventStream)


def rfc3339(at: float | None) -> str | None:
    """Return epoch seconds as RFC 3339 UTC with milliseconds; None stays None."""
    if at is None:
        return None
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rounded(value: float | None, digits: int = 2) -> float | None:
    """Return a measurement as JSON shows it; None stays None (unknown)."""
    return None if value is None else round(value, digits)


def json_response(body: Any, status: int = 200) -> web.Response:
    """Return a JSON answer."""
    return web.Response(body=json_text(body), status=status, content_type="application/json")


def json_text(value: Any) -> bytes:
    """Return a value as JSON in UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Headers can bring bytes that are no text; an error that quotes them must still be sent.
    return text.encode(errors="replace")


def etag(revision: int) -> dict[str, str]:
    """Return the header that names the revision of a model; `If-Match` takes it."""
    return {"ETag": f'"{revision}"'}


def new_request_id() -> str:
    """Return an id for a request whose client gave none."""
    return f"req_{secrets.token_hex(8)}"


def mark(response: web.StreamResponse, request_id: str) -> None:
    """Set the headers that every answer has."""
    response.headers["X-Request-ID"] = request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "prsmd"


def error_response(request: web.BaseRequest, error: PrsmdError) -> web.Response:
    """Return an error in the documented envelope, with `Retry-After` where waiting helps."""
    body = error_body(error.code, error.message, error.details, request.get(REQUEST_ID, ""))
    response = json_response(body, error.status_hint)
    if error.retryable or error.status_hint in {429, 503}:
        seconds = error.details.get("retry_after_seconds", _RETRY_SECONDS)
        response.headers["Retry-After"] = str(max(1, math.ceil(float(seconds))))
    if error.status_hint == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="prsmd"'
    if error.status_hint == 415:
        response.headers["Accept-Encoding"] = ", ".join(error.details["accepted_codings"])
    return response


def error_body(
    code: str, message: str, details: Mapping[str, Any], request_id: str
) -> dict[str, Any]:
    """Return the body of an error; the outer message repeats the inner one for older clients."""
    inner = {
        "code": code,
        "message": message,
        "details": dict(details),
        "request_id": request_id,
        "timestamp": rfc3339(dt.datetime.now(dt.UTC).timestamp()),
    }
    return {"error": inner, "message": message}


def wants_stream(request: web.Request) -> bool:
    """Tell whether the client asked for server-sent events."""
    return any("text/event-stream" in value for value in request.headers.getall("Accept", ()))


async def event_stream(request: web.Request) -> EventStream:
    """Begin a stream of server-sent events."""
    response = EventStream()
    await response.prepare(request)
    request[STREAM] = response
    return response


async def break_off(request: web.Request, stream: EventStream, error: PrsmdError) -> None:
    """End a stream that failed after its head was sent: the error as its last event, then a cut.

    Without the proper end of its body, no client takes what it got for everything.
    """
    if stream.whole:
        body = error_body(error.code, error.message, error.details, request[REQUEST_ID])
        with contextlib.suppress(ConnectionError):
            await send_event(stream, "error", body)
    if request.transport is not None:
        request.transport.close()


@contextlib.asynccontextmanager
async def followed_stream(request: web.Request) -> AsyncIterator[EventStream]:
    """Give a stream that may be silent for long: comments in between show that it is alive.

    They also make a client that has gone noticed, so that nothing is followed for nobody.
    """
    response = await event_stream(request)
    beat = asyncio.create_task(_keep_alive(response), name="event-stream:keep-alive")
    try:
        yield response
    finally:
        beat.cancel()


async def send_event(
    response: web.StreamResponse, event: str, data: Any, sequence: int | None = None
) -> None:
    """Write one server-sent event with JSON data."""
    await response.write(encoded_event(event, data, sequence))


def encoded_event(event: str, data: Any, sequence: int | None = None) -> bytes:
    """Return one server-sent event with JSON data."""
    head = f"event: {event}\n" if sequence is None else f"id: {sequence}\nevent: {event}\n"
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"{head}data: {text}\n\n".encode(errors="replace")


class EncodedEvents:
    """The newest events as bytes: what many follow is encoded once. Keys name what was encoded."""

    def __init__(self, kept: int = 256) -> None:
        self._kept = kept
        self._encoded: dict[Hashable, bytes] = {}

    def of(self, key: Hashable, encode: Callable[[], bytes]) -> bytes:
        """Return the bytes for a key, encoded now if need be."""
        found = self._encoded.get(key)
        if found is None:
            found = self._encoded[key] = encode()
            if len(self._encoded) > self._kept:
                del self._encoded[next(iter(self._encoded))]
        return found


async def _keep_alive(response: web.StreamResponse) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(_KEEP_ALIVE_SECONDS)
            await response.write(b": keep-alive\n\n")
