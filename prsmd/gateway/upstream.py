"""One HTTP exchange with a container, which is not trusted: bounded in time and size.

No redirects, cookies, proxies, decompression or headers of the client. Foreign exceptions become
`NotSentError` (safe to try elsewhere), `ProviderError`, or `ExhaustedError` where this process
cannot ask anyone. How long to wait is the caller's.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import aiohttp
from yarl import URL

from prsmd.core.exhaustion import is_exhausted, unknown_by
from prsmd.core.memory_budget import Holding
from prsmd.core.stalls import OWN, AlwaysOnTime, DeadlineJudge
from prsmd.domain.errors import ProviderError, PrsmdError
from prsmd.domain.replica import Endpoint
from prsmd.gateway.endings import hold
from prsmd.gateway.segments import Segments
from prsmd.gateway.turns import Turns
from prsmd.gateway.wary import WaryConnector
from prsmd.protocols.base import ContainerAnswer, ContainerRequest, printable

from .endings import BrokenOffError, UnheardError, exhausted

CHUNK_BYTES = 64 * 1024
_BUFFER_BYTES = 32 * 1024  # of an answer; aiohttp holds a quarter as many chunks, however small
_CONNECTIONS_TRIED = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """Bounds of the exchange with containers.

    Idle connections are kept shorter than the servers in use keep them (gunicorn: 2 s, uvicorn and
    node: 5 s), so that a request never goes out on a connection that is just being closed.
    """

    connect_timeout_seconds: float = 2.0
    keep_alive_seconds: float = 1.5
    max_answer_bytes: int = 32 * 1024**2


class NotSentError(PrsmdError):
    """No connection came about, so the container has seen nothing of the request."""

    code = "RESOURCE_UNAVAILABLE"
    status_hint = 503
    retryable = True


class Sending:
    """A request on its way to a container."""

    __slots__ = ("body",)

    def __init__(self) -> None:
        self.body: Segments | None = None

    @property
    def begun(self) -> bool:
        """Whether a container may have seen something of it."""
        return self.body is not None and self.body.begun


class UpstreamAnswer:
    """An answer whose status is known and whose body is not read yet. `close` it always.

    `bytes_sent` is how large the request's body was, `bytes_read` what was read of the answer's.
    One that is not `framed` has no end but that of its connection, which may be a container's.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        max_bytes: int,
        bytes_sent: int,
        broken: Callable[[Exception, str], ProviderError] | None = None,
    ) -> None:
        self._broken = broken or _broken
        self._response = response
        self._max_bytes = max_bytes
        self.status = response.status
        self.content_type = response.content_type.lower()
        self.bytes_sent = bytes_sent
        self.bytes_read = 0
        self.framed = "Content-Length" in response.headers or _is_chunked(response)

    async def read(
        self, max_bytes: int | None = None, holding: Holding | None = None
    ) -> ContainerAnswer:
        """Return the complete answer, whose bytes are held for whom it is for.

        ProviderError when it breaks off or is too large, ResourceUnavailableError when no more may
        be held.
        """
        limit = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)
        body = bytearray()
        try:
            while chunk := await self.read_chunk():
                self._refuse_beyond(limit, len(body) + len(chunk))
                hold(holding, len(chunk))
                body += chunk
        except BaseException:
            body.clear()  # the error's own frames would keep it
            raise
        return ContainerAnswer(status=self.status, content_type=self.content_type, body=body)

    async def read_chunk(self) -> bytes:
        """Return what came next, at most 64 KiB; empty at the end. ProviderError."""
        try:
            chunk = await self._response.content.read(CHUNK_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(error, "the model's answer broke off") from error
        self.bytes_read += len(chunk)
        return chunk

    def _refuse_beyond(self, limit: int, size: int) -> None:
        if size > limit:
            raise ProviderError(
                f"the model's answer is larger than {limit} bytes", provider_status=self.status
            )

    def close(self) -> None:
        """Give the connection back if the answer was read to its end, else cut it."""
        self._response.close()


class Upstream:
    """The HTTP client towards all containers. `judge` tells whether what broke off counts.

    In `turns`, what they answer is looked through.
    """

    def __init__(self, settings: UpstreamSettings, judge: DeadlineJudge | None = None) -> None:
        self.turns = Turns()
        self.judge = judge or AlwaysOnTime()
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    def apply(self, max_answer_bytes: int) -> None:
        """Let the answers that come from now on be this large."""
        self._settings = dataclasses.replace(self._settings, max_answer_bytes=max_answer_bytes)

    async def start(self) -> None:
        """Open the connection pool."""
        connector = WaryConnector(
            limit=0,  # the pools bound how much is in flight
            keepalive_timeout=self._settings.keep_alive_seconds,
            use_dns_cache=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=_BUFFER_BYTES,
            skip_auto_headers=("User-Agent", "Accept"),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.connect_timeout_seconds
            ),
        )

    async def close(self) -> None:
        """Close every connection; exchanges that still run break off."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self,
        endpoint: Endpoint,
        request: ContainerRequest,
        request_id: str,
        sending: Sending | None = None,
    ) -> UpstreamAnswer:
        """Send and return the answer's head; `sending` tells how far it came.

        NotSentError, ProviderError, ExhaustedError.
        """
        if self._session is None:
            raise NotSentError("the gateway is not started")
        headers = {
            **request.headers,
            "Accept-Encoding": "identity",
            "X-Request-ID": request_id,
        }
        began = self.judge.now()
        response = await self._request(
            self._session, endpoint, request, headers, sending or Sending()
        )
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            response.close()
            raise ProviderError(
                "the model compressed its answer without being asked to",
                provider_status=response.status,
            )
        return UpstreamAnswer(
            response,
            self._settings.max_answer_bytes,
            request.size,
            functools.partial(self._broken, began),
        )

    def _broken(self, began: float, error: Exception, what: str) -> ProviderError:
        """Return the error for an exchange that broke off, as far as it says anything."""
        found = _broken(error, what)
        unknown = unknown_by(error) or self.judge.unknown(began, OWN)
        if unknown is None:
            return found
        return UnheardError(f"{found.message}, but {unknown.reason}")

    async def _request(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        request: ContainerRequest,
        headers: Mapping[str, str],
        sending: Sending,
    ) -> aiohttp.ClientResponse:
        """Send, on another connection where a kept one ended just before; return the head."""
        url = URL.build(
            scheme="http",
            host=endpoint.host,
            port=endpoint.port,
            path=request.path,
            encoded=True,
        )
        for attempt in range(_CONNECTIONS_TRIED):
            began, body = self.judge.now(), Segments(request.body)
            sending.body = body
            try:
                return await session.request(
                    request.method, url, data=body, headers=headers, allow_redirects=False
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                late = isinstance(error, TimeoutError) and self.judge.unknown(began)
                if late and attempt + 1 < _CONNECTIONS_TRIED:
                    continue
                if is_exhausted(error):
                    raise exhausted(_cause(error)) from error
                raise NotSentError(f"cannot connect to {endpoint}: {_cause(error)}") from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if session.closed or body.begun or not _was_not_written(error):
                    raise self._broken(began, error, "the model did not answer in HTTP") from error
        raise NotSentError(f"every connection to {endpoint} ended before it could be used")


def _is_chunked(response: aiohttp.ClientResponse) -> bool:
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()


def _was_not_written(error: BaseException) -> bool:
    """Tell whether the connection had ended before anything of the request was written.

    aiohttp writes head and body at once, and refuses to do so on a closing transport in its words.
    """
    cause = error.__cause__
    reset = isinstance(cause, aiohttp.ClientConnectionResetError)
    return reset and "closing transport" in str(cause)


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or type(error).__name__


def _broken(error: Exception, what: str) -> BrokenOffError:
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        why = "it closed the connection"
    elif isinstance(error, aiohttp.ClientPayloadError):
        why = "the body is incomplete or malformed"
    else:
        why = printable(str(error).encode()) or type(error).__name__
    return BrokenOffError(f"{what}: {why}")
