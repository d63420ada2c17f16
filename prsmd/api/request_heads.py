"""What a request's head may be, beyond what the parser refuses: it has one meaning for all readers.

A head that this server and a proxy before it could understand differently is refused, and nothing
that follows it on its connection is answered.
"""

import collections
import re
from collections.abc import Iterator, Mapping

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11

from prsmd.domain.errors import InvalidInputError

# What is read here and has one value: given twice, two readers would take different ones.
SINGLETON_HEADERS = frozenset(
    {
        "authorization",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "last-event-id",
        "transfer-encoding",
        "upgrade",
        "x-api-key",
        "x-request-id",
    }
)
_VERSIONS = frozenset({HttpVersion10, HttpVersion11})
_HOST = re.compile(
    r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::(?P<port>[0-9]*))?"
)
_HIGHEST_PORT = 65535
_PORT_DIGITS = 5
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\";\s]*)", re.IGNORECASE)
_UTF_8 = frozenset({"utf-8", "utf8"})


class AmbiguousHeadError(InvalidInputError):
    """A head that can be understood in more than one way; its connection is closed."""


class SingleHeaders(Mapping[str, str]):
    """A request's headers, of which each that is asked for has to be given once."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._headers = request.headers

    def __getitem__(self, name: str) -> str:
        values = self._headers.getall(name)
        if len(values) > 1:
            raise AmbiguousHeadError.field(name[:100], "must be given once")
        return values[0]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._headers))

    def __len__(self) -> int:
        return len(set(self._headers))


def refuse_ambiguous_head(request: web.BaseRequest) -> None:
    """Refuse a head that has no single meaning. Raise AmbiguousHeadError naming the header."""
    if request.version not in _VERSIONS:
        raise AmbiguousHeadError.field("request", "must be HTTP/1.0 or HTTP/1.1")
    _refuse_repeated(request)
    _refuse_two_credentials(request)
    _refuse_codings(request)
    _refuse_charset(request)
    if "Host" in request.headers:
        host_name(request)


def host_name(request: web.BaseRequest) -> str:
    """Return the name in `Host` in lower case, without the port; empty where there is no `Host`."""
    host = request.headers.get("Host")
    if host is None:
        return ""
    found = _HOST.fullmatch(host)
    port = "" if found is None else found["port"] or ""
    if found is None or len(port) > _PORT_DIGITS or int(port or 0) > _HIGHEST_PORT:
        raise AmbiguousHeadError.field("Host", "must be a name, or a name and a port", host[:100])
    return found["name"].lower()


def asks_to_upgrade(request: web.BaseRequest) -> bool:
    """Tell whether the client offers another protocol: it gets its answer, and then the end.

    None is offered here, so the offer is ignored. But the parser throws away what follows such a
    request, which may have been another request.
    """
    return "Upgrade" in request.headers or request.method == "CONNECT"


def close_after(response: web.StreamResponse) -> None:
    """Have a connection end with an answer that is being prepared."""
    response.force_close()
    response.headers["Connection"] = "close"


def _refuse_repeated(request: web.BaseRequest) -> None:
    counted = collections.Counter(name.lower().decode("latin-1") for name, _ in request.raw_headers)
    for name in sorted(SINGLETON_HEADERS & counted.keys()):
        if counted[name] > 1:
            raise AmbiguousHeadError.field(name, "must be given once")


def _refuse_two_credentials(request: web.BaseRequest) -> None:
    authorization, key = request.headers.get("Authorization"), request.headers.get("X-API-Key")
    if authorization is None or key is None:
        return
    if authorization.partition(" ")[2].strip() != key.strip():
        raise AmbiguousHeadError.field("X-API-Key", "is not the key that Authorization has")


def _refuse_codings(request: web.BaseRequest) -> None:
    coding = request.headers.get("Transfer-Encoding")
    if coding is None:
        return
    if coding.strip().lower() != "chunked":
        raise AmbiguousHeadError.field("Transfer-Encoding", "must be chunked", coding[:100])
    if request.version != HttpVersion11:
        raise AmbiguousHeadError.field("Transfer-Encoding", "needs HTTP/1.1")
    if "Content-Length" in request.headers:
        raise AmbiguousHeadError.field("Content-Length", "must not stand beside Transfer-Encoding")


def _refuse_charset(request: web.BaseRequest) -> None:
    given = request.headers.get("Content-Type", "")
    if not given.lower().startswith("application/json"):
        return
    for charset in _CHARSET.findall(given):
        if charset.lower() not in _UTF_8:
            raise AmbiguousHeadError.field("Content-Type", "must be in UTF-8", given[:100])
