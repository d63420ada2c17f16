"""Roles: the built-in ones and an organization's own."""

from typing import Any

from aiohttp import web

from prsmd.api.identity_schemas import RoleBody, RoleChangeBody
from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import rfc3339
from prsmd.api.windows import WINDOW_QUERY, page_response, window_of
from prsmd.domain.access import ROLES, Permission, Role
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.roles import RoleWish

REMOVE_QUERY = {"organization": "whose role, for administrators; by default your own"}


async def create(services: Services, request: web.Request, caller: Caller) -> Role:
    """Make a role: a set of permissions, none of which an owner has not."""
    refuse_unknown(request)
    body = await body_as(request, RoleBody)
    wish = RoleWish(
        name=body.name,
        organization=body.organization,
        permissions=frozenset(body.permissions),
        description=body.description,
    )
    return await services.roles.create(caller, wish)


def created(_services: Services, role: Role) -> Answer:
    """Return the answer to making one."""
    return Answer(body=_body(role), status=201)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List the built-in roles and the organization's own."""
    wanted = window_of(request)
    built_in = _built_in()
    shown = built_in[wanted.offset : wanted.offset + wanted.limit]
    own, total = await services.roles.page(
        caller, wanted.limit - len(shown), max(0, wanted.offset - len(built_in))
    )
    shown += [_body(role) for role in own]
    return await page_response("roles", shown, dict, wanted, len(built_in) + total)


async def change(services: Services, request: web.Request, caller: Caller) -> Role:
    """Change what a role allows. It counts at once for everybody who has it."""
    refuse_unknown(request)
    given = (await body_as(request, RoleChangeBody)).given()
    wish = RoleWish(
        name=request.match_info["name"],
        organization=given.get("organization"),
        permissions=frozenset(given["permissions"]) if "permissions" in given else None,
        description=given.get("description"),
    )
    return await services.roles.change(caller, wish)


async def remove(services: Services, request: web.Request, caller: Caller) -> Role:
    """Forget a role that nobody has."""
    refuse_unknown(request, *REMOVE_QUERY)
    name, organization = request.match_info["name"], request.query.get("organization")
    return await services.roles.remove(caller, name, organization)


def changed(_services: Services, role: Role) -> Answer:
    """Return the answer to changing or removing one."""
    return Answer(body=_body(role))


def _built_in() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "organization": None,
            "built_in": True,
            "description": "",
            "permissions": sorted(granted),
            "created_at": None,
            "updated_at": None,
        }
        for name, granted in ROLES.items()
    ]


def _body(role: Role) -> dict[str, Any]:
    return {
        "name": role.name,
        "organization": role.organization,
        "built_in": False,
        "description": role.description,
        "permissions": sorted(role.permissions),
        "created_at": rfc3339(role.created_at),
        "updated_at": rfc3339(role.updated_at),
    }


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/roles",
        handler=create,
        summary="Make a role of the organization's own",
        permission=Permission.MEMBERS_MANAGE,
        body=RoleBody,
        answer=created,
    ),
    Operation(
        method="GET",
        path="/v1/roles",
        handler=page,
        summary="List roles",
        permission=Permission.MEMBERS_MANAGE,
        query=WINDOW_QUERY,
    ),
    Operation(
        method="PATCH",
        path="/v1/roles/{name}",
        handler=change,
        summary="Change a role of the organization's own",
        permission=Permission.MEMBERS_MANAGE,
        body=RoleChangeBody,
        answer=changed,
    ),
    Operation(
        method="DELETE",
        path="/v1/roles/{name}",
        handler=remove,
        summary="Remove a role of the organization's own",
        permission=Permission.MEMBERS_MANAGE,
        query=REMOVE_QUERY,
        answer=changed,
    ),
)
