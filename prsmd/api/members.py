"""Members: who belongs to an organization and which roles they have, in all of it or on a model."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from prsmd.api.identity_schemas import BindingBody, MemberBody, MemberChangeBody
from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import rfc3339
from prsmd.api.windows import WINDOW_QUERY, window, window_of
from prsmd.domain.access import Permission
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.members import BindingWish, MemberReport, MemberWish


async def add(services: Services, request: web.Request, caller: Caller) -> MemberReport:
    """Make a local user or group, the bearer of tokens, or a key, a member with these roles."""
    refuse_unknown(request)
    body = await body_as(request, MemberBody)
    wish = MemberWish(
        kind=body.kind,
        subject=body.subject,
        bindings=_wishes(body.bindings),
        organization=body.organization,
        name=body.name,
    )
    return await services.members.add(caller, wish)


def added(_services: Services, report: MemberReport) -> Answer:
    """Return the answer to adding one."""
    return Answer(body=_body(report), status=201)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List members with their roles."""
    wanted = window_of(request)
    found = await services.members.list(caller)
    return window("members", [_body(report) for report in found], wanted)


async def change(services: Services, request: web.Request, caller: Caller) -> MemberReport:
    """Rename a member, or give it these roles in place of those it has."""
    refuse_unknown(request)
    given = (await body_as(request, MemberChangeBody)).given()
    bindings = _wishes(given["bindings"]) if "bindings" in given else None
    member_id = request.match_info["member_id"]
    return await services.members.change(caller, member_id, given.get("name"), bindings)


async def remove(services: Services, request: web.Request, caller: Caller) -> MemberReport:
    """Take all roles of a member away. What it began is ended."""
    refuse_unknown(request)
    return await services.members.remove(caller, request.match_info["member_id"])


def changed(_services: Services, report: MemberReport) -> Answer:
    """Return the answer to changing or removing one."""
    return Answer(body=_body(report))


def _wishes(bindings: Sequence[BindingBody]) -> list[BindingWish]:
    return [BindingWish(binding.role, binding.model) for binding in bindings]


def _body(report: MemberReport) -> dict[str, Any]:
    member = report.member
    bindings = [
        {
            "role": binding.role,
            "model_id": report.models.get(binding.deployment_id or ""),
            "deployment_id": binding.deployment_id,
        }
        for binding in member.bindings
    ]
    return {
        "member_id": member.id,
        "organization": member.organization,
        "kind": member.kind.value,
        "subject": member.subject,
        "name": member.name,
        "bindings": bindings,
        "created_at": rfc3339(member.created_at),
        "created_by": member.created_by,
    }


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/members",
        handler=add,
        summary="Add a member",
        permission=Permission.MEMBERS_MANAGE,
        body=MemberBody,
        answer=added,
    ),
    Operation(
        method="GET",
        path="/v1/members",
        handler=page,
        summary="List members",
        permission=Permission.MEMBERS_MANAGE,
        query=WINDOW_QUERY,
    ),
    Operation(
        method="PATCH",
        path="/v1/members/{member_id}",
        handler=change,
        summary="Change a member's roles",
        permission=Permission.MEMBERS_MANAGE,
        body=MemberChangeBody,
        answer=changed,
    ),
    Operation(
        method="DELETE",
        path="/v1/members/{member_id}",
        handler=remove,
        summary="Remove a member",
        permission=Permission.MEMBERS_MANAGE,
        answer=changed,
    ),
)
