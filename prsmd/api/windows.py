"""Lists in one fixed order: the part of one that a request asks for."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiohttp import web

from prsmd.api.requests import page_body, refuse_unknown, whole
from prsmd.api.respond import json_text
from prsmd.service.status import Page

WINDOW_QUERY = {"limit": "how many, at most 100", "offset": "how many to skip"}
_AT_ONCE_BYTES = 16 * 1024
T = TypeVar("T")


def window_of(request: web.Request) -> Page:
    """Return `limit` and `offset` of a list request that knows nothing else."""
    refuse_unknown(request, *WINDOW_QUERY)
    return Page(
        limit=whole(request, "limit", 20, low=1, high=100),
        offset=whole(request, "offset", 0, low=0, high=10**9),
    )


async def page_response(
    name: str, shown: Sequence[T], body_of: Callable[[T], dict[str, Any]], wanted: Page, total: int
) -> web.Response:
    """Return the wanted part of a list of `total` items.

    Items can be large, so that others get their turn between them. Threads that write JSON would
    hold up the loop for longer: each has the interpreter for milliseconds at a time.
    """
    written, size = [], 0
    for item in shown:
        text = json_text(body_of(item))
        written.append(text)
        size += len(text)
        if size > _AT_ONCE_BYTES:
            size = 0
            await asyncio.sleep(0)
    around = page_body(name, [*shown], wanted, total)
    del around[name]
    rest = json_text(around).removeprefix(b"{")
    body = b"".join((b"{", json_text(name), b":[", b",".join(written), b"],", rest))
    return web.Response(body=body, content_type="application/json")
