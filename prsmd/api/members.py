"""Members: who belongs to an organization and which roles they have, in all of it or on a model."""

import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from prsmd.api.identity_schemas import BindingBody, MemberBody, MemberChangeBody
from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, optional_body_as, refuse_unknown
from prsmd.api.respond import rfc3339
from prsmd.api.update_schemas import EmptyBody
from prsmd.api.windows import WINDOW_QUERY, page_response, window_of
from prsmd.domain.access import Member, Permission
from prsmd.service.belonging import Needs
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.members import BindingWish, MemberReport, MemberWish


async def add(services: Services, request: web.Request, caller: Caller) -> MemberReport:
    """Make a local user or group, the bearer of tokens, or a key, a member with these roles.

    A user or bearer of tokens is only invited, unless an administrator of the appliance asks: it
    has no effect until they accept. Groups are for administrators.
    """
    refuse_unknown(request)
    body = await body_as(request, MemberBody)
    wish = MemberWish(
        kind=body.kind,
        subject=body.subject,
        bindings=_wishes(body.bindings),
        organization=body.organization,
        name=body.name,
        expires_at=_end(body.expires_in_seconds),
    )
    return await services.members.add(caller, wish)


def added(_services: Services, report: MemberReport) -> Answer:
    """Return the answer to adding one."""
    return Answer(body=membership_body(report), status=201)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List members with their roles."""
    wanted = window_of(request)
    found, total = await services.members.page(caller, wanted.limit, wanted.offset)
    return await page_response("members", found, membership_body, wanted, total)


async def change(services: Services, request: web.Request, caller: Caller) -> MemberReport:
    """Rename a member, or give it these roles in place of those it has."""
    refuse_unknown(request)
    changes = (await body_as(request, MemberChangeBody)).given()
    if "bindings" in changes:
        changes["bindings"] = _wishes(changes["bindings"])
    if "expires_in_seconds" in changes:
        changes["expires_at"] = _end(changes.pop("expires_in_seconds"))
    return await services.members.change(caller, request.match_info["member_id"], changes)


async def remove(services: Services, request: web.Request, caller: Caller) -> MemberReport:
    """Take all roles of a member away. What it began is ended."""
    refuse_unknown(request)
    return await services.members.remove(caller, request.match_info["member_id"])


async def accept(services: Services, request: web.Request, caller: Caller) -> MemberReport:
    """Accept an invitation: the roles count from now on. Only who was invited can."""
    refuse_unknown(request)
    await optional_body_as(request, EmptyBody)
    return await services.members.accept(caller, request.match_info["member_id"])


async def leave(services: Services, request: web.Request, caller: Caller) -> MemberReport:
    """End one's own membership, or refuse an invitation."""
    refuse_unknown(request)
    await optional_body_as(request, EmptyBody)
    return await services.members.leave(caller, request.match_info["member_id"])


def changed(_services: Services, report: MemberReport) -> Answer:
    """Return the answer to changing or removing one."""
    return Answer(body=membership_body(report))


def _wishes(bindings: Sequence[BindingBody]) -> list[BindingWish]:
    return [BindingWish(binding.role, binding.model) for binding in bindings]


def _end(lifetime: float | None) -> float | None:
    return None if lifetime is None else time.time() + lifetime


def membership_body(report: MemberReport) -> dict[str, Any]:
    """Return what is shown of a member: with which roles, and whether that counts."""
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
        "status": _status(member),
        "accepted_at": rfc3339(member.accepted_at),
        "expires_at": rfc3339(member.expires_at),
        "created_at": rfc3339(member.created_at),
        "created_by": member.created_by,
    }


def _status(member: Member) -> str:
    if member.expires_at is not None and member.expires_at <= time.time():
        return "expired"
    return "invited" if member.accepted_at is None else "active"


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
    *(
        Operation(
            method="POST",
            path=f"/v1/members/{{member_id}}/{handler.__name__}",
            handler=handler,
            summary=summary,
            body=EmptyBody,
            body_optional=True,
            answer=changed,
            needs=Needs.IDENTITY,
        )
        for handler, summary in (
            (accept, "Accept an invitation"),
            (leave, "End one's own membership, or refuse an invitation"),
        )
    ),
)
