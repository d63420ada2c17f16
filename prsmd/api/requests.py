"""How requests are read: JSON bodies and query parameters, each error naming its field."""

import asyncio
import json
import math
from typing import Any, NoReturn, TypeVar

from aiohttp import web
from pydantic import BaseModel

from prsmd.api.schemas import parse
from prsmd.domain.errors import InvalidInputError
from prsmd.service.status import Page

PAGE_QUERY = {
    "limit": "how many, at most 100",
    "offset": "how many to skip",
    "sort_by": "created_at, updated_at, model_name or model_id",
    "sort_order": "asc or desc",
}
_BODY_SECONDS = 60.0
_SORT_FIELDS = ("created_at", "updated_at", "model_name", "model_id")

Parsed = TypeVar("Parsed", bound=BaseModel)


async def body_as(request: web.Request, schema: type[Parsed]) -> Parsed:
    """Return the JSON body as `schema`. Raise InvalidInputError naming every wrong field."""
    if request.content_type != "application/json":
        raise InvalidInputError.field(
            "Content-Type", "must be application/json", request.content_type[:100]
        )
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            text = await request.read()
    except TimeoutError:
        raise InvalidInputError.field("body", "did not arrive in time") from None
    try:
        body = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        detail = str(error) if isinstance(error, json.JSONDecodeError) else "is not usable JSON"
        raise InvalidInputError.field("body", f"is not valid JSON: {detail}") from None
    return parse(schema, body)


def number(request: web.Request, name: str, default: float, *, low: float, high: float) -> float:
    """Return a numeric query parameter within bounds."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InvalidInputError.field(name, f"must be a number from {low:g} to {high:g}", text[:50])
    return value


def whole(request: web.Request, name: str, default: int, *, low: int, high: int) -> int:
    """Return a whole-number query parameter within bounds."""
    value = number(request, name, default, low=low, high=high)
    if value != int(value):
        raise InvalidInputError.field(name, "must be a whole number", request.query[name][:50])
    return int(value)


def page_of(request: web.Request) -> Page:
    """Return `limit`, `offset`, `sort_by` and `sort_order` of a list request."""
    refuse_unknown(request, *PAGE_QUERY)
    sort_by = request.query.get("sort_by", "created_at")
    if sort_by not in _SORT_FIELDS:
        raise InvalidInputError.field("sort_by", f"must be one of {', '.join(_SORT_FIELDS)}")
    sort_order = request.query.get("sort_order", "desc")
    if sort_order not in {"asc", "desc"}:
        raise InvalidInputError.field("sort_order", "must be asc or desc", sort_order[:50])
    return Page(
        limit=whole(request, "limit", 20, low=1, high=100),
        offset=whole(request, "offset", 0, low=0, high=10**9),
        sort_by=sort_by,
        sort_order=sort_order,
    )


def page_body(name: str, items: list[Any], page: Page, total: int) -> dict[str, Any]:
    """Return one page of a list as every list is answered."""
    return {
        name: items,
        "total": total,
        "limit": page.limit,
        "offset": page.offset,
        "has_more": page.offset + len(items) < total,
    }


def refuse_unknown(request: web.Request, *known: str) -> None:
    """Refuse query parameters that mean nothing here, so that a typo never does nothing."""
    for name in request.query:
        if name not in known:
            raise InvalidInputError.field(
                name[:100], f"is not a parameter here; known are {', '.join(known) or 'none'}"
            )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
