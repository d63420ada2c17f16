"""Owns the threads and connections to one Docker engine, and translates what goes wrong on them.

The SDK is synchronous, so looking (short) and changing (long) each have a lane: a few threads and
one client. A stop that waits for its grace never holds up a look. Each stream has a connection and
a thread of its own. Knows nothing of containers; the client is made by `docker.py`.
"""

import asyncio
import contextlib
import dataclasses
import functools
import http.client
import json
import socket
import threading
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from prsmd.domain.errors import (
    EngineError,
    EngineNotFoundError,
    EngineUnreachableError,
    PrsmdError,
)

from .docker_config import DockerSettings

T = TypeVar("T")
Client = Any  # docker.APIClient: only docker.py knows the SDK
Connect = Callable[[float, int], Client]  # (timeout in seconds, connections) -> client
_LOOKERS, _CHANGERS = 4, 16
_CHUNK = 64 * 1024
_DYING = "marked for removal"  # how the engine says 409 of a container that is as good as gone


class Connections:
    """The ways to talk to one engine. Nothing is opened before its first use."""

    def __init__(self, settings: DockerSettings, connect: Connect) -> None:
        self._settings = settings
        self._streams: set[_Stream] = set()
        knock = functools.partial(_knock, settings)
        self.looking = Lane(connect, knock, _LOOKERS, settings.timeout_seconds)
        self.changing = Lane(connect, knock, _CHANGERS, settings.launch_timeout_seconds)

    @contextlib.asynccontextmanager
    async def watch(
        self, what: str, path: str, options: Mapping[str, Any]
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """GET a streaming answer, which may be silent for as long as it likes once it began.

        Leaving the block frees its thread and connection.
        """
        stream = _Stream(self._settings, what, self._settings.timeout_seconds, None)
        request = _Request("GET", _url(path, options), {})
        async with self._opened(stream, request) as chunks:
            yield chunks

    @contextlib.asynccontextmanager
    async def follow(
        self,
        what: str,
        path: str,
        options: Mapping[str, Any],
        headers: Mapping[str, str | bytes],
        body: Iterator[bytes] | None = None,
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """POST a long work and read its progress; being silent for too long fails it.

        A body is read on the stream's thread; `headers` tell its length.
        """
        silence = self._settings.pull_silence_seconds
        stream = _Stream(self._settings, what, silence, silence)
        request = _Request("POST", _url(path, options), headers, body)
        async with self._opened(stream, request) as chunks:
            yield chunks

    @contextlib.asynccontextmanager
    async def _opened(
        self, stream: "_Stream", request: "_Request"
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        self._streams.add(stream)
        try:
            await stream.open(request)
            async with contextlib.aclosing(stream.chunks()) as chunks:
                yield chunks
        finally:
            self._streams.discard(stream)
            stream.close()

    def close(self) -> None:
        """Close every stream and both lanes."""
        for stream in tuple(self._streams):
            stream.close()
        self.looking.close()
        self.changing.close()


class Lane:
    """A few threads that share one client and one timeout."""

    def __init__(
        self, connect: Connect, knock: Callable[[], None], threads: int, timeout_seconds: float
    ) -> None:
        self._knock = knock
        self._connect: Callable[[], Client] = lambda: connect(timeout_seconds, threads)
        self._timeout_seconds = timeout_seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="docker")
        self._client: Client | None = None
        self._connecting = threading.Lock()

    async def call(
        self, what: str, work: Callable[[Client], T], *, extra_seconds: float = 0.0
    ) -> T:
        """Run `work` in a thread; twice the timeout bounds it, its wait for a thread included."""
        loop = asyncio.get_running_loop()
        with translated(what):
            async with asyncio.timeout(2 * self._timeout_seconds + extra_seconds):
                return await loop.run_in_executor(self._pool, lambda: work(self._connected()))

    def close(self) -> None:
        """Release the threads and the client; a thread in a call ends with its timeout."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Client:
        self._knock()
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client


def _knock(settings: DockerSettings) -> None:
    """Raise OSError where nobody accepts connections.

    The SDK forgets to close a Unix socket that it could not connect, and wraps the reason thrice.
    """
    if settings.base_url.startswith("unix://"):
        _dial(settings).close()


@dataclasses.dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    headers: Mapping[str, str | bytes]
    body: Iterator[bytes] | None = None


class _Stream:
    """One streaming answer: read by one thread, ended from outside by shutting its socket.

    Not the SDK's: it shows the socket only once an answer has begun, and a registry can keep the
    engine from beginning one for as long as it likes.
    """

    def __init__(
        self,
        settings: DockerSettings,
        what: str,
        open_seconds: float,
        silence_seconds: float | None,
    ) -> None:
        self._settings = settings
        self._what = what
        self._open_seconds = open_seconds
        self._silence_seconds = silence_seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="docker-stream")
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._closed = False

    async def open(self, request: "_Request") -> None:
        loop = asyncio.get_running_loop()
        with self._translated():
            await loop.run_in_executor(self._pool, self._open, request)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        while True:
            with self._translated():
                chunk = await loop.run_in_executor(self._pool, self._read)
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._shut()
        self._pool.submit(self._release)
        self._pool.shutdown(wait=False)

    def _open(self, request: "_Request") -> None:
        connection = http.client.HTTPConnection("engine")
        connection.sock = self._socket = _dial(self._settings)
        if self._closed:  # while it was dialled
            self._shut()
        self._socket.settimeout(self._open_seconds)
        headers = {**request.headers, "Connection": "close"}
        # The engine may refuse a body, and say why, before it has read it all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(request.method, request.url, request.body, headers)
        self._response = connection.getresponse()
        if self._response.status >= 400:
            words = json.loads(self._response.read()).get("message", self._response.reason)
            raise _refusal(self._response.status, f"{self._what}: {words}")
        self._socket.settimeout(self._silence_seconds)

    def _read(self) -> bytes:
        return b"" if self._response is None else self._response.read1(_CHUNK)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate; an engine that reports nothing for too long is not one that is gone."""
        with translated(self._what):
            try:
                yield
            except TimeoutError as error:
                if self._silence_seconds is None:
                    raise
                silence = f"nothing was heard for {self._silence_seconds:g} s"
                raise EngineError(f"{self._what}: {silence}") from error

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the engine may have closed it already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        if self._response is not None:
            self._response.close()
        if self._socket is not None:
            self._socket.close()


def _url(path: str, options: Mapping[str, Any]) -> str:
    return f"{path}?{urllib.parse.urlencode(options)}"


def _dial(settings: DockerSettings) -> socket.socket:
    """Return a connection to the engine. OSError where nobody accepts any."""
    scheme, _, address = settings.base_url.partition("://")
    if scheme != "unix":
        host, _, port = address.rstrip("/").rpartition(":")
        return socket.create_connection((host, int(port)), settings.timeout_seconds)
    dialled = socket.socket(socket.AF_UNIX)
    try:
        dialled.settimeout(settings.timeout_seconds)
        dialled.connect(address)
    except BaseException:
        dialled.close()
        raise
    return dialled


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the SDK raises into prsmd's errors. `what` says what was being done."""
    try:
        yield
    except PrsmdError:
        raise
    except TimeoutError as error:
        raise EngineUnreachableError(f"{what}: the engine does not answer") from error
    except OSError as error:  # all of requests' exceptions, the engine's own refusals among them
        status = refusal_status(error)
        if status is not None:
            raise _refusal(status, f"{what}: {refusal_words(error)}") from error
        raise EngineUnreachableError(f"{what}: cannot reach the engine: {error}") from error
    except http.client.HTTPException as error:
        raise EngineUnreachableError(f"{what}: the engine broke off: {error!r}") from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise EngineError(f"{what}: unexpected answer from the engine: {error!r}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"docker", "urllib3"}:
            raise
        raise EngineUnreachableError(f"{what}: {error}") from error


def _refusal(status: int, words: str) -> EngineError:
    if status == 404 or _DYING in words:
        return EngineNotFoundError(words)
    return EngineError(words)


def refusal_status(error: OSError) -> int | None:
    """Return the HTTP status the engine refused with, None when it did not answer at all."""
    return getattr(getattr(error, "response", None), "status_code", None)


def refusal_words(error: OSError) -> str:
    """Return the engine's own words."""
    return str(getattr(error, "explanation", None) or error)


def unless_gone(work: Callable[[], T]) -> T | None:
    """Return what `work` returns, or None where the engine does not know the thing."""
    try:
        return work()
    except OSError as error:
        if refusal_status(error) == 404:
            return None
        raise
