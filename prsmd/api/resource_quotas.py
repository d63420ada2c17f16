"""Resource quotas: everybody sees their organization's, only administrators set them."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import BeforeValidator, WithJsonSchema, create_model

from prsmd.api.operations import Operation, Services
from prsmd.api.patch import PatchBody, absent
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import json_response
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


def _read(dimension: Dimension) -> Any:
    def read(value: object) -> LimitChange:
        if value == DEFAULT:
            return LimitChange(reset=True)
        return LimitChange(hard=parse_amount(dimension, value))

    return Annotated[LimitChange, BeforeValidator(read), WithJsonSchema(_AMOUNT)]


_AMOUNT = {
    "anyOf": [{"type": "string", "maxLength": 32}, {"type": "integer", "minimum": 0}],
    "description": 'a quantity or count, "unlimited", or "default"',
}
_FIELDS: dict[str, Any] = {one.value: (_read(one), absent()) for one in Dimension}
HardChangeBody: type[PatchBody] = create_model("HardChangeBody", __base__=PatchBody, **_FIELDS)
HardChangeBody.__doc__ = "Limits by dimension; those that are not named stay."


class QuotaChangeBody(PatchBody):
    """PATCH /v1/organizations/{organization_id}/quota."""

    hard: HardChangeBody = absent()

    def changes(self) -> dict[Dimension, LimitChange]:
        """Return the limits that change."""
        return {Dimension(name): change for name, change in self.given().get("hard", {}).items()}


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
    return await services.quotas.change(
        caller, request.match_info["organization_id"], body.changes()
    )


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
