"""Streamed answers and long polls: each counts for its caller, and none ends as whole that is not.

A stream whose source fails, whose caller's proof ends or which the daemon's stop cuts ends as
broken off: with an `error` event where it is one of events, and never with the end of its body.
Everything that begins a stream is here, so that there is one way in which they end.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.http import HttpVersion11

from prsmd.api.connection_claims import claimed_stream
from prsmd.api.operations import OPERATION, REQUEST_ID
from prsmd.api.respond import error_body
from prsmd.core.connection_limits import ConnectionLimits
from prsmd.domain.errors import DaemonStoppingError, InvalidInputError, PrsmdError
from prsmd.protocols.base import EVENT_ENDS
from prsmd.service.caller import Caller

_KEEP_ALIVE_SECONDS = 30.0  # half of what proxies and the SDK take for a dead connection
_STOPPING = "the daemon is stopping; ask the next one to go on"


class StreamedAnswer(web.StreamResponse):
    """An answer in pieces, of which nobody knows at its beginning whether it gets to its end."""

    async def break_off(self, request: web.Request, error: PrsmdError) -> None:  # noqa: ARG002
        """End it so that no client takes what it got for everything: without its proper end."""
        if request.transport is not None:
            request.transport.close()


class EventStream(StreamedAnswer):
    """An answer of server-sent events."""

    def __init__(self) -> None:
        super().__init__(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        self._end = EVENT_ENDS[0]

    @property
    def whole(self) -> bool:
        """True while no event is half written: a container's own may break off anywhere."""
        return self._end.endswith(EVENT_ENDS)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes of events."""
        self._end = (self._end + bytes(data[-4:]))[-4:]
        await super().write(data)

    async def break_off(self, request: web.Request, error: PrsmdError) -> None:
        """Send the error as the last event, then cut."""
        if self.whole:
            body = error_body(error.code, error.message, error.details, request[REQUEST_ID])
            with contextlib.suppress(ConnectionError):
                await send_event(self, "error", body)
        await super().break_off(request, error)


STREAM = web.RequestKey("stream", StreamedAnswer)


class OpenStreams:
    """The streams and long polls that are open, within `limits`."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._endless: set[asyncio.Timeout] = set()
        self._stopping = False

    @contextlib.asynccontextmanager
    async def hold(self, caller: Caller, *, endless: bool) -> AsyncIterator[None]:
        """Count a stream while it is open. An `endless` one ends when the daemon begins to stop.

        Raises:
            TooManyOpenError: the caller has as many open as they may.
            DaemonStoppingError: the daemon stops; what went on inside was cancelled.
        """
        with claimed_stream(self._limits, caller.principal):
            if not endless:
                yield
                return
            if self._stopping:
                raise DaemonStoppingError(_STOPPING, resource_type="daemon")
            ending: asyncio.Timeout | None = None
            try:
                async with asyncio.timeout(None) as ending:
                    self._endless.add(ending)
                    yield
            except TimeoutError:
                if ending is None or not ending.expired():
                    raise
                raise DaemonStoppingError(_STOPPING, resource_type="daemon") from None
            finally:
                if ending is not None:
                    self._endless.discard(ending)

    def end_endless(self) -> None:
        """End those that would go on for ever, now and from now on: the daemon begins to stop."""
        self._stopping = True
        now = asyncio.get_running_loop().time()
        for ending in tuple(self._endless):
            if not ending.expired():
                ending.reschedule(now)


OPEN_STREAMS = web.AppKey("open_streams", OpenStreams)


def wants_stream(request: web.Request) -> bool:
    """Tell whether the client asked for server-sent events."""
    return any("text/event-stream" in value for value in request.headers.getall("Accept", ()))


@contextlib.asynccontextmanager
async def held_stream(
    request: web.Request, caller: Caller, *, endless: bool = False
) -> AsyncIterator[None]:
    """Hold what a stream needs, from before its source is asked for it until its end."""
    if not request[OPERATION].streams:
        raise RuntimeError(f"{request.method} {request.path} is not declared as streaming")
    if request.version < HttpVersion11:  # only there does a body have an end of its own
        raise InvalidInputError.field("request", "must be HTTP/1.1 where the answer is a stream")
    async with request.app[OPEN_STREAMS].hold(caller, endless=endless):
        yield


@contextlib.asynccontextmanager
async def held_poll(request: web.Request, caller: Caller) -> AsyncIterator[None]:
    """Count a long poll while it is open. DaemonStoppingError when the daemon stops meanwhile."""
    if not request[OPERATION].polls:
        raise RuntimeError(f"{request.method} {request.path} is not declared as a long poll")
    async with request.app[OPEN_STREAMS].hold(caller, endless=True):
        yield


async def event_stream(request: web.Request) -> EventStream:
    """Begin a stream of server-sent events, inside `held_stream`."""
    response = EventStream()
    await response.prepare(request)
    request[STREAM] = response
    return response


async def streamed_file(request: web.Request, headers: Mapping[str, str]) -> StreamedAnswer:
    """Begin an answer of bytes in pieces, inside `held_stream`."""
    response = StreamedAnswer(headers=headers)
    await response.prepare(request)
    request[STREAM] = response
    return response


@contextlib.asynccontextmanager
async def followed_stream(
    request: web.Request, caller: Caller, known: Callable[[], Awaitable[Any]] | None = None
) -> AsyncIterator[EventStream]:
    """Give a stream that may be silent for long: comments in between show that it is alive.

    They also make a client that has gone noticed, so that nothing is followed for nobody. `known`
    raises what is wrong before the stream begins, and reads nothing for who may have no more open.
    """
    async with held_stream(request, caller, endless=True):
        if known is not None:
            await known()
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
