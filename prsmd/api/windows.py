"""Lists in one fixed order: the part of one that a request asks for."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiohttp import web

from prsmd.api.requests import page_body, refuse_unknown, whole
from prsmd.api.respond import json_list_response
from prsmd.service.status import Page

WINDOW_QUERY = {"limit": "how many, at most 100", "offset": "how many to skip"}
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
    """Return the wanted part of a list of `total` items, written in a thread."""
    body = page_body(name, [*shown], wanted, total)
    return await asyncio.to_thread(json_list_response, body, name, body_of)
