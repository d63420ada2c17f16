"""How answers are written: JSON, and errors in the documented envelope."""

import datetime as dt
import json
import math
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from prsmd.api.operations import REQUEST_ID
from prsmd.domain.errors import PrsmdError

_RETRY_SECONDS = 5


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


def json_list_response(
    body: Mapping[str, Any], name: str, render: Callable[[Any], Any]
) -> web.Response:
    """Return a JSON answer whose items of that name are rendered; made for a thread.

    Each item is written by itself: whoever writes JSON holds up all other threads meanwhile.
    """
    items = b",".join(json_text(render(item)) for item in body[name])
    rest = json_text({key: value for key, value in body.items() if key != name})
    text = b"".join((b"{", json_text(name), b":[", items, b"],", rest.removeprefix(b"{")))
    return web.Response(body=text, content_type="application/json")


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


def error_bytes(error: PrsmdError) -> bytes:
    """Return a whole HTTP answer with an error, for a connection that is not even let in."""
    details = error.details
    request_id = new_request_id()
    text = json.dumps(error_body(error.code, error.message, details, request_id))
    head = (
        f"HTTP/1.1 {error.status_hint} {HTTPStatus(error.status_hint).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(text.encode())}",
        f"Retry-After: {details.get('retry_after_seconds', _RETRY_SECONDS)}",
        f"X-Request-ID: {request_id}",
        "X-Content-Type-Options: nosniff",
        "Server: prsmd",
        "Connection: close",
    )
    return ("\r\n".join(head) + "\r\n\r\n" + text).encode()
