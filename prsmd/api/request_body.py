"""What a request's body may be, as its head tells, and how it is read: never beyond its limits.

The bytes are counted for the caller before they are taken in, until the answer is written.
"""

import asyncio
import contextlib

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from prsmd.api.identity import DOOR
from prsmd.core.memory_budget import Holding
from prsmd.domain.errors import (
    InvalidInputError,
    RequestTooLargeError,
    UnsupportedMediaTypeError,
)
from prsmd.gateway.endings import hold

BODY_BYTES = web.RequestKey("body_bytes", int)
HOLDING = web.RequestKey("holding", Holding)
SMALL_BYTES = 64 * 1024  # may wait to be written when they are no longer counted
_BODY = web.RequestKey("body", bytearray)
_VIEWS = web.RequestKey("views", list[memoryview])
ACCEPTED_CODINGS = ("identity",)
CONTINUE = "100-continue"
_SHOWN = 100


def refuse_coded(request: web.Request) -> None:
    """Refuse a body that is compressed, or encoded in any other way: a small one could be huge.

    Raises:
        UnsupportedMediaTypeError: `Content-Encoding` names a coding, or `Transfer-Encoding` another
            one than `chunked`.
    """
    codings = _tokens(request, "Content-Encoding")
    coded = [coding for coding in codings if coding not in ACCEPTED_CODINGS]
    coded += [c for c in _tokens(request, "Transfer-Encoding") if c not in {"chunked", "identity"}]
    if coded:
        raise UnsupportedMediaTypeError(
            f"A body with coding {', '.join(coded)[:_SHOWN]} is not accepted here; send it as it is"
            f" (Content-Encoding: {' or '.join(ACCEPTED_CODINGS)}).",
            accepted_codings=list(ACCEPTED_CODINGS),
        )


async def ask_for_body(request: web.Request) -> None:
    """Have the client send its body where it waits to be told so (`Expect: 100-continue`)."""
    if request.headers.get("Expect", "").lower() == CONTINUE and not request.content.total_bytes:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer nothing is sent


async def content(request: web.Request) -> bytearray:
    """Return the body. It can be asked for again.

    Raises:
        RequestTooLargeError: it is larger than it may be; at once, where it says so.
        ResourceUnavailableError: no more may be held for the caller now.
        InvalidInputError: it did not arrive, or not as its head says.
    """
    body = request.get(_BODY)
    if body is None:
        body = request[_BODY] = bytearray()
        await _read(request, body)
    return body


def leaves_much_unread(request: web.BaseRequest) -> bool:
    """Tell whether so much of a body may still come that its connection is not worth keeping.

    A small rest is read and thrown away by the server, whenever it comes; a client that waits for
    leave to send it never does.
    """
    length = request.content_length
    large = length is None or length > SMALL_BYTES
    return not request.content.is_eof() and (large or "Expect" in request.headers)


def keep_views(request: web.Request, *views: memoryview) -> None:
    """Have these views of bytes that are held for the request end with it."""
    request.setdefault(_VIEWS, []).extend(views)


def let_go(request: web.Request) -> None:
    """Give up what is held for a request: its bytes go now, whoever still knows of them.

    An error's traceback knows every frame, and may live until the garbage collector comes.
    """
    for view in request.get(_VIEWS, []):
        with contextlib.suppress(BufferError):  # being written still: it goes when that ends
            view.release()
    with contextlib.suppress(BufferError):
        request.get(_BODY, bytearray()).clear()
    request[HOLDING].release()


async def send_whole(request: web.Request, response: web.StreamResponse) -> None:
    """Send a response now, so that what it holds is held no longer than it is being written."""
    if isinstance(response, web.Response):
        await response.prepare(request)
        await response.write_eof()


async def _read(request: web.Request, body: bytearray) -> None:
    limit, length, holding = request[BODY_BYTES], request.content_length, request[HOLDING]
    if length is not None and length > limit:
        raise _too_large(request, limit)
    hold(holding, length or 0)
    try:
        async with asyncio.timeout(request.app[DOOR].body_seconds):
            await ask_for_body(request)
            while chunk := await request.content.readany():
                if len(body) + len(chunk) > limit:
                    raise _too_large(request, limit)
                if length is None:
                    hold(holding, len(chunk))
                body += chunk
    except TimeoutError:
        raise InvalidInputError.field("body", "did not arrive in time") from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise InvalidInputError.field("body", "is not sent or encoded as its head says") from None


def _too_large(request: web.Request, limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The body is larger than the {limit} bytes that {request.method} takes at this path.",
        limit_bytes=limit,
    )


def _tokens(request: web.Request, name: str) -> list[str]:
    """Return the members of a list header, however often it is given, in lower case."""
    values = request.headers.getall(name, [])
    members = (member.strip().lower() for value in values for member in value.split(","))
    return [member for member in members if member]
