"""What both transports put on the wire and make of an answer. Pure: bytes and values, no I/O."""

import errno
import json
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from .calls import Call, Follow
from .errors import (
    ClientTimeoutError,
    ConfigurationError,
    ConnectionCutError,
    DaemonUnreachableError,
    PermissionDeniedError,
    PRSMError,
    UnexpectedAnswerError,
    error_from_answer,
)
from .target import Target

T = TypeVar("T")
CONNECT_TIMEOUT = 5.0  # seconds
DEFAULT_TIMEOUT = 60.0  # seconds for a whole call, its repetitions included
STREAM_IDLE_TIMEOUT = 90.0  # seconds without a byte after which a followed stream counts as cut
EVENT_STREAM = "text/event-stream"


def encode(call: Call[Any], target: Target) -> tuple[dict[str, str], bytes | None]:
    """Return a call's headers and body; an upload's is the transport's to send.

    Raises:
        ConfigurationError: The body is nothing that JSON can hold.
    """
    headers = _headers(target) | {"Accept": "application/json"}
    if call.idempotency_key is not None:
        headers["Idempotency-Key"] = call.idempotency_key
    if call.if_match is not None:
        headers["If-Match"] = f'"{call.if_match}"'
    if call.upload is not None:
        return headers | {"Content-Type": call.upload.content_type}, None
    if call.body is None:
        return headers, None
    try:
        body = json.dumps(call.body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the request cannot be written as JSON: {error}") from error
    return headers | {"Content-Type": "application/json"}, body


def path_of(request: Call[Any] | Follow[Any], target: Target) -> str:
    """Return a request's path and query, quoted as they go on the wire."""
    query = f"?{urlencode(request.query)}" if request.query else ""
    return target.prefix + request.path + query


def follow_headers(target: Target, last_event_id: str) -> dict[str, str]:
    """Return the headers that open an event stream after the event `last_event_id`."""
    headers = _headers(target) | {"Accept": EVENT_STREAM, "Cache-Control": "no-cache"}
    return headers | ({"Last-Event-ID": last_event_id} if last_event_id else {})


def read_answer(call: Call[T], status: int, headers: Mapping[str, str], raw: bytes) -> T:
    """Return what an answer means.

    Raises:
        PRSMError: The error that it carries, or that it is no answer of this API.
    """
    if not 200 <= status < 300:
        raise refusal(status, headers, raw)
    if not raw:
        return call.decode({})
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise UnexpectedAnswerError("the server's answer is not JSON", status=status) from error
    return call.decode(body)


def read_event(follow: Follow[T], data: str) -> T:
    """Return the value of one event's data."""
    try:
        return follow.decode(json.loads(data))
    except ValueError as error:
        raise UnexpectedAnswerError("the server sent an event that is not JSON") from error


def refusal(status: int, headers: Mapping[str, str], raw: bytes) -> PRSMError:
    """Return the error of an answer outside 2xx."""
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    return error_from_answer(status, headers, body)


def unreachable(target: Target, cause: BaseException) -> PRSMError:
    """Return the error for a connection that could not be made."""
    number = cause.errno if isinstance(cause, OSError) else None
    if number in {errno.EACCES, errno.EPERM} and target.socket_path:
        return PermissionDeniedError(f"this user may not use the socket {target.socket_path}")
    if number == errno.ENOENT:
        return DaemonUnreachableError(f"prsmd does not answer: there is no {target.socket_path}")
    if number == errno.ECONNREFUSED:
        return DaemonUnreachableError(f"prsmd does not answer: nothing listens at {target}")
    return DaemonUnreachableError(f"prsmd cannot be reached at {target}: {cause}")


def cut(target: Target, request: Call[Any] | Follow[Any]) -> ConnectionCutError:
    """Return the error for a connection that ended too early."""
    message = f"the connection to {target} was cut before the answer arrived"
    if isinstance(request, Call) and request.method != "GET":
        message += "; the request may have been carried out"
    return ConnectionCutError(message)


def timed_out(target: Target, seconds: float) -> ClientTimeoutError:
    """Return the error for an answer that took too long."""
    return ClientTimeoutError(f"{target} did not answer within {seconds:g} s")


def _headers(target: Target) -> dict[str, str]:
    headers = {"User-Agent": "prsm-sdk"}
    if target.organization is not None:
        headers["X-PRSMD-Organization"] = target.organization
    return headers | ({"Authorization": f"Bearer {target.api_key}"} if target.api_key else {})
