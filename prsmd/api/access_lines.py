"""The access log: a line a request, of those that failed at least, but never a flood of them.

Of the failures of one caller the first few of a kind in a minute have a line each, the rest have a
count. Whoever did not say who they are count as one in each network.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from aiohttp import web

from prsmd.api.operations import REQUEST_ID
from prsmd.api.origin import ORIGIN
from prsmd.core.attempts import network_of
from prsmd.core.coalesce import Coalescer, Shares, Sum
from prsmd.domain.origin import Origin

log = logging.getLogger("prsmd.access")
Which = Literal["all", "failures", "off"]
WHO = web.RequestKey("who", str)
_LONGEST_PATH = 200
_COUNTS_AT_ONCE = 20  # by one request, which waits for them, as do all others
_LOOK_SECONDS = 1.0


class _Line(NamedTuple):
    method: str
    path: str
    status: int
    address: str
    who: str


class AccessLines:
    """Writes the lines. `which` are wanted at the level info or above; debug has all of them."""

    def __init__(
        self,
        which: Which = "failures",
        shares: Shares | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._which = which
        self._monotonic = monotonic
        self._failed: Coalescer[_Line] = Coalescer(shares or Shares(caller=20, everybody=600))
        self._next_look = monotonic() + _LOOK_SECONDS

    def apply(self, which: Which) -> None:
        """Write these lines from now on."""
        self._which = which

    def note(self, request: web.Request, status: int, seconds: float) -> None:
        """Write the line of a request that was answered so, or count it."""
        self._tell_some_counts()
        line = _line_of(request, status)
        failed = status >= 400
        if self._which == "all" or log.isEnabledFor(logging.DEBUG):
            level = _level(status) if failed or self._which == "all" else logging.DEBUG
        elif failed and self._which == "failures" and self._whole(request, line):
            level = _level(status)
        else:
            return
        words = "%s %s %d %.1f ms from %s%s"
        who = f" by {line.who}" if line.who else ""
        fields = {"request_id": request[REQUEST_ID], "address": line.address}
        log.log(
            level,
            words,
            *(line.method, line.path, status, seconds * 1000, line.address or "?", who),
            extra=fields,
        )

    def broke_off(self, request: web.Request, why: str) -> None:
        """Write that an answer ended before it was whole, or count it."""
        line = _line_of(request, 0)
        if self._whole(request, line):
            fields = {"request_id": request[REQUEST_ID], "address": line.address}
            words = "%s %s broke off: %s, from %s"
            log.warning(words, line.method, line.path, why, line.address or "?", extra=fields)

    def finish(self) -> None:
        """Write all counts: nothing more comes."""
        _tell(self._failed.due(self._monotonic(), everything=True))

    def _whole(self, request: web.Request, line: _Line) -> bool:
        caller = line.who or network_of(request.get(ORIGIN, Origin()).whose)
        return self._failed.take(caller, line.status, line, time.time(), self._monotonic())

    def _tell_some_counts(self) -> None:
        """Write counts that are due. While there are more, each request writes some."""
        now = self._monotonic()
        if now < self._next_look:
            return
        counts = self._failed.due(now, most=_COUNTS_AT_ONCE)
        if len(counts) < _COUNTS_AT_ONCE:
            self._next_look = now + _LOOK_SECONDS
        _tell(counts)


def _tell(counts: Iterable[Sum[_Line]]) -> None:
    for each in counts:
        log.log(_level(each.item.status), "%s", _words_of(each))


def _line_of(request: web.Request, status: int) -> _Line:
    return _Line(
        request.method[:20],
        request.rel_url.raw_path[:_LONGEST_PATH],
        status,
        request.get(ORIGIN, Origin()).address,
        request.get(WHO, ""),
    )


def _words_of(failed: Sum[_Line]) -> str:
    line, seconds = failed.item, failed.last_at - failed.first_at
    ended = "broke off" if line.status == 0 else f"were answered {line.status}"
    if failed.kind is None:
        ended = "failed"
    who = "several callers" if failed.caller is None else line.who or "anonymous"
    return (
        f"{failed.count} more requests within {seconds:.0f} s {ended}, the last one"
        f" {line.method} {line.path} from {line.address or '?'} (of {who})"
    )


def _level(status: int) -> int:
    return logging.WARNING if status >= 500 or status == 0 else logging.INFO
