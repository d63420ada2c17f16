"""How requests are read: JSON bodies and query parameters, each error naming its field."""

import contextlib
import datetime as dt
import math
import re
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from prsmd.api.json_text import parse_json
from prsmd.api.request_body import content
from prsmd.api.validation import parse
from prsmd.domain.errors import InvalidInputError
from prsmd.service.precondition import Expected
from prsmd.service.status import Page

PAGE_QUERY = {
    "limit": "how many, at most 100",
    "offset": "how many to skip",
    "sort_by": "created_at, updated_at, model_name or model_id",
    "sort_order": "asc or desc",
}
_ETAG = re.compile(r'"([1-9]\d{0,14})"', re.ASCII)
_MOST_TAGS = 20
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_SORT_FIELDS = ("created_at", "updated_at", "model_name", "model_id")

Parsed = TypeVar("Parsed", bound=BaseModel)


async def body_as(request: web.Request, schema: type[Parsed]) -> Parsed:
    """Return the JSON body as `schema`. Raise InvalidInputError naming every wrong field."""
    return parse(schema, await json_body(request))


async def optional_body_as(request: web.Request, schema: type[Parsed]) -> Parsed:
    """Return the JSON body as `schema`, or what an empty object comes to where there is none."""
    return parse(schema, await json_body(request) if await content(request) else {})


async def json_body(request: web.Request) -> Any:
    """Return what the JSON body holds. Raise InvalidInputError where it is none."""
    require_json(request)
    return parse_json(await content(request))


def require_json(request: web.Request) -> None:
    """Raise InvalidInputError where the body does not claim to be JSON."""
    if request.content_type != "application/json":
        raise InvalidInputError.field(
            "Content-Type", "must be application/json", request.content_type[:100]
        )


def expected_revisions(request: web.Request) -> Expected:
    """Return the revisions that `If-Match` names; None where it is absent or `*`."""
    given = request.headers.getall("If-Match", [])
    tags = [tag.strip() for value in given for tag in value.split(",")]
    if not tags or tags == ["*"]:
        return None
    found = [_ETAG.fullmatch(tag) for tag in tags]
    if len(tags) > _MOST_TAGS or not all(found):
        problem = 'must be the ETag of a model, such as "3", or *'
        raise InvalidInputError.field("If-Match", problem, ", ".join(tags)[:100])
    return frozenset(int(match[1]) for match in found if match)


def dry_run(request: web.Request) -> bool:
    """Tell whether `dry_run` asks what would be done, instead of having it done."""
    return flag(request, "dry_run")


def flag(request: web.Request, name: str) -> bool:
    """Return a query parameter that is `true` or `false`; absent, it is false."""
    given = request.query.get(name, "false")
    if given not in {"true", "false"}:
        raise InvalidInputError.field(name, "must be true or false", given[:50])
    return given == "true"


def number(request: web.Request, name: str, default: float, *, low: float, high: float) -> float:
    """Return a numeric query parameter within bounds."""
    text = request.query.get(name)
    if text is None:
        return default
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not low <= value <= high:
        raise InvalidInputError.field(name, f"must be a number from {low:g} to {high:g}", text[:50])
    return value


def whole(request: web.Request, name: str, default: int, *, low: int, high: int) -> int:
    """Return a whole-number query parameter within bounds."""
    value = number(request, name, default, low=low, high=high)
    if value != int(value):
        raise InvalidInputError.field(name, "must be a whole number", request.query[name][:50])
    return int(value)


def moment(request: web.Request, name: str) -> float | None:
    """Return a query parameter that names a moment, as epoch seconds; None where it is absent."""
    text = request.query.get(name)
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        at = dt.datetime.fromisoformat(text)
        if at.tzinfo is not None and at.year >= 1970:
            return at.timestamp()
    try:
        return number(request, name, 0.0, low=0, high=1e12)
    except InvalidInputError:
        problem = "must be a time such as 2026-01-01T00:00:00Z, or epoch seconds"
        raise InvalidInputError.field(name, problem, text[:50]) from None


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
        if len(request.query.getall(name)) > 1:
            raise InvalidInputError.field(name, "must be given once")
