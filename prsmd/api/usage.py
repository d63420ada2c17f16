"""Usage of a model by organization, key and day, as JSON or CSV."""

import contextlib
import csv
import datetime as dt
import io
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import page_body, refuse_unknown, whole
from prsmd.api.respond import json_response
from prsmd.api.streams import held_stream, streamed_file
from prsmd.domain.access import Permission
from prsmd.domain.errors import InvalidInputError
from prsmd.domain.quota import Use
from prsmd.service.caller import Caller
from prsmd.service.status import Page

_QUERY = {
    "from": "the first day, such as 2026-01-01 (UTC); 30 days before the last by default",
    "to": "the last day; today by default",
    "format": "json, or csv for all rows in one stream",
    "limit": "how many, at most 100",
    "offset": "how many to skip",
}
_COLUMNS = (
    "day",
    "organization",
    "principal",
    "key_id",
    "model_id",
    "requests",
    "errors",
    "refused",
    "duration_seconds",
    "request_bytes",
    "answer_bytes",
)
_EPOCH = dt.date(1970, 1, 1)
_Days = tuple[int | None, int | None]


async def page(services: Services, request: web.Request, caller: Caller) -> web.StreamResponse:
    """Answer who used a model, and how much, newest day first."""
    refuse_unknown(request, *_QUERY)
    form = request.query.get("format", "json")
    if form not in {"json", "csv"}:
        raise InvalidInputError.field("format", "must be json or csv", form[:50])
    wanted = Page(
        limit=whole(request, "limit", 20, low=1, high=100),
        offset=whole(request, "offset", 0, low=0, high=10**9),
    )
    days = (_day(request, "from"), _day(request, "to"))
    if form == "csv":
        return await _export(services, request, caller, days)
    uses, total = await services.usage.page(caller, request.match_info["model_id"], days, wanted)
    return json_response(page_body("usage", [_row(use) for use in uses], wanted, total))


async def _export(
    services: Services, request: web.Request, caller: Caller, days: _Days
) -> web.StreamResponse:
    """Send every row as CSV, a page at a time: no more of them is built or held at once."""
    model = request.match_info["model_id"]
    async with (
        held_stream(request, caller),
        contextlib.aclosing(services.usage.export(caller, model, days)) as pages,
    ):
        first = await anext(pages)  # errors come before the stream begins
        response = await streamed_file(request, {"Content-Type": "text/csv; charset=utf-8"})
        await response.write(_csv(first, head=True))
        async for uses in pages:
            await response.write(_csv(uses))
    await response.write_eof()
    return response


def _day(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        day = _EPOCH
    if day <= _EPOCH:
        raise InvalidInputError.field(name, "must be a day such as 2026-01-01", text[:50])
    return (day - _EPOCH).days


def _row(use: Use) -> dict[str, Any]:
    kind, _, name = use.principal.partition(":")
    return {
        "day": (_EPOCH + dt.timedelta(days=use.day)).isoformat(),
        "organization": use.organization,
        "principal": use.principal,
        "key_id": name if kind == "key" else None,
        "model_id": use.model_id,
        "requests": use.requests,
        "errors": use.errors,
        "refused": use.refused,
        "duration_seconds": round(use.seconds, 6),
        "request_bytes": use.request_bytes,
        "answer_bytes": use.answer_bytes,
    }


def _csv(uses: Iterable[Use], *, head: bool = False) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(_row(use) for use in uses)
    return out.getvalue().encode()


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/custom-models/{model_id}/usage",
        handler=page,
        summary="Who used a model, and how much",
        permission=Permission.USAGE_READ,
        query=_QUERY,
        streams=True,
        streams_as="text/csv",
    ),
)
