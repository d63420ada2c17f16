"""Resource quotas: everybody sees their organization's, only administrators set them."""

from collections.abc import Mapping
from typing import Annotated, Any

from aiohttp import web
from pydantic import BeforeValidator, Field, WithJsonSchema

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import json_response
from prsmd.api.schemas import Body
from prsmd.api.validation import nearest_words
from prsmd.domain.access import Permission
from prsmd.domain.resource_quota import (
    COMPUTE,
    DEFAULT,
    PER_MODEL,
    SUMMED,
    Dimension,
    format_amount,
    parse_amount,
)
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.resource_quotas import LimitChange, QuotaReport


def _changes(value: object) -> dict[Dimension, LimitChange]:
    if not isinstance(value, dict) or not value:
        raise ValueError('must be an object such as {"cpu": "8", "keys": 50}')
    found = {}
    for name, wanted in value.items():
        if name not in _NAMES:
            raise ValueError(
                f"{str(name)[:50]!r} is no dimension{nearest_words(str(name), _NAMES)}"
            )
        dimension = Dimension(name)
        try:
            found[dimension] = _change(dimension, wanted)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _change(dimension: Dimension, wanted: object) -> LimitChange:
    if wanted == DEFAULT:
        return LimitChange(reset=True)
    return LimitChange(hard=parse_amount(dimension, wanted))


_NAMES = [one.value for one in Dimension]
_AMOUNT = {
    "anyOf": [{"type": "string", "maxLength": 32}, {"type": "integer", "minimum": 0}],
    "description": 'a quantity or count, "unlimited", or "default"',
}
_HARD = {
    "description": "limits by dimension; those that are not named stay",
    "type": "object",
    "properties": dict.fromkeys(_NAMES, _AMOUNT),
    "additionalProperties": False,
    "minProperties": 1,
}


class QuotaChangeBody(Body):
    """PATCH /v1/organizations/{organization_id}/quota."""

    hard: Annotated[
        Mapping[Dimension, LimitChange], BeforeValidator(_changes), WithJsonSchema(_HARD)
    ] = Field()


async def get(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer an organization's quota: what it uses of each limit. One's own needs no permission."""
    refuse_unknown(request)
    report = await services.quotas.get(caller, request.match_info["organization_id"])
    return json_response(_body(report))


async def change(services: Services, request: web.Request, caller: Caller) -> QuotaReport:
    """Set limits of an organization. Lowering one below what is used stops nothing.

    Nothing that counts in it can grow until less is used.
    """
    refuse_unknown(request)
    body = await body_as(request, QuotaChangeBody)
    return await services.quotas.change(caller, request.match_info["organization_id"], body.hard)


def changed(_services: Services, report: QuotaReport) -> Answer:
    """Return the answer to setting limits."""
    return Answer(body=_body(report))


def quota_body(report: QuotaReport) -> dict[str, Any]:
    """Return the dimensions as answers have them; `hard` null is unlimited.

    `reserved` is what replicas hold now, which can differ from what is asked for while it changes.
    """
    found: dict[str, Any] = {}
    for one in SUMMED:
        found[one.value] = {"used": format_amount(one, report.used[one]), **_limit(report, one)}
        if one in COMPUTE:
            found[one.value]["reserved"] = format_amount(one, report.reserved.get(one, 0))
    for one in Dimension:
        if one in PER_MODEL:
            found[one.value] = _limit(report, one)
    return found


def _limit(report: QuotaReport, dimension: Dimension) -> dict[str, Any]:
    limit = report.limit(dimension)
    hard = None if limit.hard is None else format_amount(dimension, limit.hard)
    return {"hard": hard, "default": limit.is_default}


def _body(report: QuotaReport) -> dict[str, Any]:
    return {"organization_id": report.organization, "quota": quota_body(report)}


_ONE = "/v1/organizations/{organization_id}/quota"
OPERATIONS = (
    Operation(method="GET", path=_ONE, handler=get, summary="Show an organization's quota"),
    Operation(
        method="PATCH",
        path=_ONE,
        handler=change,
        summary="Set limits of an organization's quota",
        permission=Permission.NODE_MANAGE,
        body=QuotaChangeBody,
        answer=changed,
    ),
)
