"""The asynchronous transport: carries out calls and follows streams over aiohttp.

Owns one session, made at the first call. It is closed by `close()`, and otherwise by the event
loop itself when that shuts down, so that a program without `async with` ends without warnings.
"""

import asyncio
import contextlib
import ssl
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, BinaryIO, TypeVar

import aiohttp
from yarl import URL

from .calls import Call, Follow
from .errors import PRSMError, UnexpectedAnswerError
from .exchange import (
    CONNECT_TIMEOUT,
    EVENT_STREAM,
    STREAM_IDLE_TIMEOUT,
    cut,
    encode,
    follow_headers,
    path_of,
    read_answer,
    read_event,
    refusal,
    timed_out,
    unreachable,
)
from .retry import Resumption, delay_before_retry
from .sse import EventParser, ServerEvent
from .target import Target

T = TypeVar("T")
_PIECE = 1 << 20  # bytes of an upload that are read at once
_CALL = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)


class AsyncTransport:
    """Speaks to one daemon. `timeout` is seconds for a whole call, its repetitions included."""

    def __init__(self, target: Target, timeout: float) -> None:
        self.target = target
        self._timeout = timeout
        self._keeper: AsyncGenerator[aiohttp.ClientSession, None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, call: Call[T]) -> T:
        """Carry out a call.

        Raises:
            PRSMError: Whatever went wrong, each in its own class.
        """
        seconds = call.timeout or self._timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._send_until_it_stands(call)
        except TimeoutError as error:
            if isinstance(error, PRSMError):
                raise
            raise timed_out(self.target, seconds) from None

    async def follow(self, follow: Follow[T]) -> AsyncIterator[T]:
        """Yield a stream's values as they come, over cuts of the connection where it can resume."""
        resumption = Resumption(resumable=follow.resumable)
        parser = EventParser(follow.last_event_id)
        while True:
            try:
                async with contextlib.aclosing(self._events(follow, parser)) as events:
                    async for event in events:
                        if event.event == follow.event:
                            resumption.saw_event()
                            yield read_event(follow, event.data)
                delay = resumption.delay_after_end()
            except PRSMError as failure:
                if resumption.is_end(failure):
                    return
                delay = resumption.delay_after(failure)
                if delay is None:
                    raise
            if delay is None:
                return
            await asyncio.sleep(delay if parser.retry is None else parser.retry)
            parser = EventParser(parser.last_event_id)

    async def download(self, call: Call[Any]) -> AsyncIterator[bytes]:
        """Yield the pieces of an answer as they come; of one that is not read at once.

        Raises:
            PRSMError: It was refused, or broke off: what came is not all.
        """
        headers, _ = encode(call, self.target)
        session = await self._open_session()
        try:
            async with session.get(
                self._url(call), headers=headers, allow_redirects=False, timeout=_CALL
            ) as answer:
                if answer.status != 200:
                    raise refusal(answer.status, answer.headers, await answer.read())
                while chunk := await answer.content.readany():
                    yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise self._translated(error, call) from error

    async def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        keeper, self._keeper, self._session = self._keeper, None, None
        if keeper is not None:
            await keeper.aclose()

    async def _send_until_it_stands(self, call: Call[T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(call)
            except PRSMError as failure:
                delay = delay_before_retry(call, failure, attempt)
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    async def _attempt(self, call: Call[T]) -> T:
        headers, body = encode(call, self.target)
        session = await self._open_session()
        try:
            with _content(call, headers, body) as data:
                async with session.request(
                    call.method,
                    self._url(call),
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    timeout=_CALL,
                ) as answer:
                    raw = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise self._translated(error, call) from error
        return read_answer(call, answer.status, answer.headers, raw)

    async def _events(
        self, follow: Follow[Any], parser: EventParser
    ) -> AsyncGenerator[ServerEvent, None]:
        """Yield the events of one connection."""
        session = await self._open_session()
        try:
            async with session.get(
                self._url(follow),
                headers=follow_headers(self.target, parser.last_event_id),
                allow_redirects=False,
                timeout=_CALL,
            ) as answer:
                if answer.status != 200:
                    raise refusal(answer.status, answer.headers, await answer.read())
                if answer.content_type != EVENT_STREAM:
                    raise UnexpectedAnswerError("the server sent no event stream")
                idle = STREAM_IDLE_TIMEOUT if follow.resumable else None
                while chunk := await _chunk(answer.content, idle):
                    for event in parser.feed(chunk):
                        yield event
        except (aiohttp.ClientError, OSError) as error:
            raise self._translated(error, follow) from error

    def _url(self, request: Call[Any] | Follow[Any]) -> URL:
        """Return a request's URL, quoted once and then left as it is."""
        return URL(self.target.url + path_of(request, self.target), encoded=True)

    def _translated(
        self, error: aiohttp.ClientError | OSError, request: Call[Any] | Follow[Any]
    ) -> PRSMError:
        """Return our error for one of aiohttp's or the system's."""
        if isinstance(error, PRSMError):
            return error
        if isinstance(error, aiohttp.ClientSSLError):
            return unreachable(self.target, error)
        if isinstance(error, aiohttp.ClientConnectorError):
            return unreachable(self.target, error.os_error)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return unreachable(self.target, TimeoutError("connecting took too long"))
        if isinstance(error, aiohttp.ClientResponseError):
            return UnexpectedAnswerError(f"{self.target} does not speak this API: {error.message}")
        return cut(self.target, request)

    async def _open_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._loop = loop
            self._keeper = _keep_session(self.target)
            self._session = await anext(self._keeper)
            weakref.finalize(self, _close_left_behind, self._session, loop)
        return self._session


@contextlib.contextmanager
def _content(
    call: Call[Any], headers: dict[str, str], body: bytes | None
) -> Iterator[bytes | AsyncIterator[bytes] | None]:
    """Give what is sent; an upload is read while it is, and its length is noted in the headers."""
    if call.upload is None:
        yield body
        return
    with call.upload.opened() as (file, size):
        if size is not None:
            headers["Content-Length"] = str(size)
        yield _pieces(file)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece


async def _chunk(content: aiohttp.StreamReader, idle: float | None) -> bytes:
    """Return what came next of a stream; nothing at its end, or when it is silent for too long."""
    try:
        async with asyncio.timeout(idle):
            return await content.readany()
    except TimeoutError:
        return b""


async def _keep_session(target: Target) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Yield a session once and hold it open until this generator is closed.

    An event loop closes the asynchronous generators that it saw when it shuts down: that is what
    closes the session of a client that nobody closed.
    """
    async with aiohttp.ClientSession(connector=_connector(target)) as session:
        yield session


def _connector(target: Target) -> aiohttp.BaseConnector:
    if target.socket_path is not None:
        return aiohttp.UnixConnector(path=target.socket_path)
    if target.scheme == "https":
        return aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=target.ca_file))
    return aiohttp.TCPConnector()


def _close_left_behind(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close the session of a loop that ended without closing its generators, as in a REPL."""
    if session.closed or loop.is_running():
        return
    closing = session.close()
    if loop.is_closed():
        try:
            closing.send(None)  # nothing is waited for once the loop is closed
        except StopIteration:
            return
        closing.close()
    else:
        loop.run_until_complete(closing)
