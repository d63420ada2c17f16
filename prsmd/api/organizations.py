"""Organizations: make, list, change, remove. Changes are for the appliance's administrators."""

from typing import Any

from aiohttp import web

from prsmd.api.identity_schemas import OrganizationBody, OrganizationChangeBody
from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import json_response, rfc3339
from prsmd.api.windows import WINDOW_QUERY, page_response, window_of
from prsmd.domain.access import Organization, Permission
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.organizations import OrganizationChange

_DISABLED = (
    "Its callers are refused. Its models run on, and those they are lent to use them: scale, delete"
    " or unshare them to stop that."
)


async def create(services: Services, request: web.Request, caller: Caller) -> Organization:
    """Make an organization. A name is never given twice."""
    refuse_unknown(request)
    body = await body_as(request, OrganizationBody)
    return await services.organizations.create(
        caller, body.organization_id, body.display_name or body.organization_id
    )


def created(_services: Services, made: Organization) -> Answer:
    """Return the answer to making one."""
    return Answer(body=_body(made), status=201)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List organizations: one's own; administrators of the appliance see all."""
    wanted = window_of(request)
    found, total = await services.organizations.page(caller, wanted.limit, wanted.offset)
    return await page_response("organizations", found, _body, wanted, total)


async def get(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer one organization."""
    refuse_unknown(request)
    found = await services.organizations.get(caller, request.match_info["organization_id"])
    return json_response(_body(found))


async def change(services: Services, request: web.Request, caller: Caller) -> Organization:
    """Change what people call it, or disable it: its callers are refused until it is enabled.

    Nothing is stopped: its models run on, and those they are lent to use them.
    """
    refuse_unknown(request)
    wanted = OrganizationChange(**(await body_as(request, OrganizationChangeBody)).given())
    return await services.organizations.change(
        caller, request.match_info["organization_id"], wanted
    )


async def remove(services: Services, request: web.Request, caller: Caller) -> Organization:
    """Remove an organization without models, and with it all that it has and that is lent to it."""
    refuse_unknown(request)
    return await services.organizations.remove(caller, request.match_info["organization_id"])


def changed(_services: Services, organization: Organization) -> Answer:
    """Return the answer to changing or removing one."""
    body = _body(organization)
    if organization.disabled_at is not None and organization.removed_at is None:
        body["message"] = _DISABLED
    return Answer(body=body)


def _body(organization: Organization) -> dict[str, Any]:
    body = {
        "organization_id": organization.id,
        "display_name": organization.display_name,
        "disabled": organization.disabled_at is not None,
        "disabled_at": rfc3339(organization.disabled_at),
        "created_at": rfc3339(organization.created_at),
        "created_by": organization.created_by,
    }
    if organization.removed_at is not None:
        body["removed_at"] = rfc3339(organization.removed_at)
    return body


_ONE = "/v1/organizations/{organization_id}"
OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/organizations",
        handler=create,
        summary="Make an organization",
        permission=Permission.NODE_MANAGE,
        body=OrganizationBody,
        answer=created,
    ),
    Operation(
        method="GET",
        path="/v1/organizations",
        handler=page,
        summary="List organizations",
        permission=Permission.MEMBERS_MANAGE,
        query=WINDOW_QUERY,
    ),
    Operation(
        method="GET",
        path=_ONE,
        handler=get,
        summary="Show an organization",
        permission=Permission.MEMBERS_MANAGE,
    ),
    Operation(
        method="PATCH",
        path=_ONE,
        handler=change,
        summary="Rename, disable or enable an organization",
        permission=Permission.NODE_MANAGE,
        body=OrganizationChangeBody,
        answer=changed,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        handler=remove,
        summary="Remove an organization",
        permission=Permission.NODE_MANAGE,
        answer=changed,
    ),
)
