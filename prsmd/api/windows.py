"""Lists that are short enough to be read whole: a part of them, as every list is answered."""

from typing import Any

from aiohttp import web

from prsmd.api.requests import page_body, refuse_unknown, whole
from prsmd.api.respond import json_response
from prsmd.service.status import Page

WINDOW_QUERY = {"limit": "how many, at most 100", "offset": "how many to skip"}


def window_of(request: web.Request) -> Page:
    """Return `limit` and `offset` of a list request that knows nothing else."""
    refuse_unknown(request, *WINDOW_QUERY)
    return Page(
        limit=whole(request, "limit", 20, low=1, high=100),
        offset=whole(request, "offset", 0, low=0, high=10**9),
    )


def window(name: str, items: list[dict[str, Any]], wanted: Page) -> web.Response:
    """Return the wanted part of a list."""
    shown = items[wanted.offset : wanted.offset + wanted.limit]
    return json_response(page_body(name, shown, wanted, len(items)))
