"""The synchronous transport, for command lines: http.client and nothing that is slow to import.

Carries out the same calls as the asynchronous client, one connection at a time, one for each call.
"""

import contextlib
import http.client
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeVar

from .calls import Call, Follow
from .errors import ClientTimeoutError, PRSMError, UnexpectedAnswerError
from .exchange import (
    CONNECT_TIMEOUT,
    DEFAULT_TIMEOUT,
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
from .retry import PATIENCE, Resumption, delay_before_retry
from .sse import EventParser, ServerEvent
from .target import Target

T = TypeVar("T")
_CHUNK = 65536
_PIECE = 1 << 20  # bytes of an upload that are read at once


class SyncClient:
    """Speaks to one daemon.

    `timeout` is seconds for a whole call, its repetitions included (None: what the call says);
    `patience` the longest wait, in seconds, that a refusal may ask for before it is tried again.
    """

    def __init__(
        self, target: Target, timeout: float | None = None, patience: float = PATIENCE
    ) -> None:
        self.target = target
        self._timeout = timeout
        self._patience = patience

    def send(self, call: Call[T]) -> T:
        """Carry out a call.

        Raises:
            PRSMError: Whatever went wrong, each in its own class.
        """
        seconds = self._timeout or call.timeout or DEFAULT_TIMEOUT
        deadline = time.monotonic() + seconds
        attempt = 0
        while True:
            attempt += 1
            left = deadline - time.monotonic()
            if left <= 0:
                raise timed_out(self.target, seconds)
            try:
                return self._attempt(call, left)
            except ClientTimeoutError:
                raise timed_out(self.target, seconds) from None
            except PRSMError as failure:
                delay = delay_before_retry(call, failure, attempt, self._patience)
                if delay is None or time.monotonic() + delay >= deadline:
                    raise
            time.sleep(delay)

    def follow(self, follow: Follow[T]) -> Iterator[T]:
        """Yield a stream's values as they come, over cuts of the connection where it can resume."""
        resumption = Resumption(resumable=follow.resumable)
        parser = EventParser(follow.last_event_id)
        while True:
            try:
                for event in self._events(follow, parser):
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
            time.sleep(delay if parser.retry is None else parser.retry)
            parser = EventParser(parser.last_event_id)

    def download(self, call: Call[Any]) -> Iterator[bytes]:
        """Yield the pieces of an answer as they come; of one that is not read at once.

        Raises:
            PRSMError: It was refused, or broke off: what came is not all.
        """
        headers, _ = encode(call, self.target)
        connection = self._connect(self._timeout or DEFAULT_TIMEOUT)
        try:
            path = path_of(call, self.target)
            answer = self._request(connection, call.method, path, headers, None)
            if answer.status != 200:
                raise refusal(answer.status, dict(answer.headers), answer.read())
            while chunk := answer.read1(_CHUNK):
                yield chunk
        except (http.client.HTTPException, OSError) as error:
            raise self._translated(error, call) from error
        finally:
            connection.close()

    def _attempt(self, call: Call[T], timeout: float) -> T:
        headers, body = encode(call, self.target)
        connection = self._connect(timeout)
        path = path_of(call, self.target)
        try:
            if call.upload is None:
                answer = self._request(connection, call.method, path, headers, body)
            else:
                with call.upload.opened() as (file, size):
                    if size is not None:
                        headers["Content-Length"] = str(size)
                    pieces = _pieces(file, connection.sock)
                    answer = self._request(connection, call.method, path, headers, pieces)
            raw = answer.read()
            return read_answer(call, answer.status, dict(answer.headers), raw)
        except (http.client.HTTPException, OSError) as error:
            raise self._translated(error, call) from error
        finally:
            connection.close()

    def _events(self, follow: Follow[Any], parser: EventParser) -> Iterator[ServerEvent]:
        """Yield the events of one connection."""
        connection = self._connect(DEFAULT_TIMEOUT)
        headers = follow_headers(self.target, parser.last_event_id)
        try:
            answer = self._request(connection, "GET", path_of(follow, self.target), headers, None)
            if answer.status != 200:
                raise refusal(answer.status, dict(answer.headers), answer.read())
            if answer.headers.get_content_type() != EVENT_STREAM:
                raise UnexpectedAnswerError("the server sent no event stream")
            connection.sock.settimeout(STREAM_IDLE_TIMEOUT if follow.resumable else None)
            while chunk := self._chunk(answer):
                yield from parser.feed(chunk)
        except (http.client.HTTPException, OSError) as error:
            raise self._translated(error, follow) from error
        finally:
            connection.close()

    def _chunk(self, answer: http.client.HTTPResponse) -> bytes:
        """Return what came next of a stream; nothing at its end, or when it is silent too long."""
        try:
            return answer.read1(_CHUNK)
        except TimeoutError:
            return b""

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | Iterator[bytes] | None,
    ) -> http.client.HTTPResponse:
        """Send a request and return the beginning of its answer."""
        # The server may refuse a large body, and say why, before it has read it all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, headers)
        return connection.getresponse()

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        """Return an open connection whose single reads and writes wait at most `timeout` s."""
        connection = _connection(self.target, min(timeout, CONNECT_TIMEOUT))
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise unreachable(self.target, error) from error
        connection.sock.settimeout(timeout)
        return connection

    def _translated(
        self, error: http.client.HTTPException | OSError, request: Call[Any] | Follow[Any]
    ) -> PRSMError:
        """Return our error for one of http.client's or the system's."""
        if isinstance(error, PRSMError):
            return error
        if isinstance(error, TimeoutError):
            return ClientTimeoutError(f"{self.target} did not answer in time")
        if isinstance(error, http.client.BadStatusLine) and not isinstance(
            error, http.client.RemoteDisconnected
        ):
            return UnexpectedAnswerError(f"{self.target} does not speak HTTP")
        if isinstance(error, http.client.IncompleteRead | OSError):
            return cut(self.target, request)
        return UnexpectedAnswerError(f"{self.target} does not speak this API: {error!r}")


def _pieces(file: BinaryIO, answering: socket.socket) -> Iterator[bytes]:
    """Yield a file's content until the server has begun to answer: then nothing more is wanted."""
    while piece := file.read(_PIECE):
        yield piece
        if select.select([answering], [], [], 0)[0]:
            raise BrokenPipeError


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(target: Target, timeout: float) -> http.client.HTTPConnection:
    if target.socket_path is not None:
        return _UnixConnection(target.socket_path, timeout)
    if target.scheme == "https":
        import ssl  # noqa: PLC0415 - only where it is needed: it is slow to import

        context = ssl.create_default_context(cafile=target.ca_file)
        return http.client.HTTPSConnection(
            target.host, target.port, timeout=timeout, context=context
        )
    return http.client.HTTPConnection(target.host, target.port, timeout=timeout)
