"""Logins to image registries: keep, list, forget. A password goes in and never comes out."""

from typing import Any

from aiohttp import web

from prsmd.api.image_schemas import LoginBody, RegistryBody
from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import json_response, rfc3339
from prsmd.domain.access import Permission
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.registries import LoginRequest, SavedLogin
from prsmd.store.registries import StoredLogin

REMOVE_QUERY = {"organization": "whose login, for administrators; by default your own"}


async def add(services: Services, request: web.Request, caller: Caller) -> SavedLogin:
    """Keep the organization's login for a registry, in place of an earlier one."""
    refuse_unknown(request)
    body = await body_as(request, RegistryBody)
    return await services.registries.save(caller, _login(body, body.server))


async def save(services: Services, request: web.Request, caller: Caller) -> SavedLogin:
    """Keep the organization's login for the registry in the path."""
    refuse_unknown(request)
    body = await body_as(request, LoginBody)
    return await services.registries.save(caller, _login(body, request.match_info["server"]))


def saved(_services: Services, result: SavedLogin) -> Answer:
    """Return the answer to keeping a login."""
    return Answer(body=_login_body(result.login), status=201 if result.created else 200)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List the logins, without their passwords."""
    refuse_unknown(request)
    found = await services.registries.list(caller)
    return json_response({"registries": [_login_body(one) for one in found], "total": len(found)})


async def remove(services: Services, request: web.Request, caller: Caller) -> StoredLogin:
    """Forget a login. What it pulled stays."""
    refuse_unknown(request, *REMOVE_QUERY)
    server, organization = request.match_info["server"], request.query.get("organization")
    return await services.registries.remove(caller, server, organization)


def removed(_services: Services, login: StoredLogin) -> Answer:
    """Return the answer to forgetting a login."""
    return Answer(body=_login_body(login))


def _login(body: LoginBody, server: str) -> LoginRequest:
    return LoginRequest(
        server=server,
        username=body.username,
        password=body.password,
        organization=body.organization,
    )


def _login_body(login: StoredLogin) -> dict[str, Any]:
    return {
        "server": login.server,
        "username": login.username,
        "organization": login.organization,
        "created_at": rfc3339(login.created_at),
        "updated_at": rfc3339(login.updated_at),
        "updated_by": login.updated_by,
    }


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/registries",
        handler=add,
        summary="Keep a login for an image registry",
        permission=Permission.SECRETS_MANAGE,
        body=RegistryBody,
        answer=saved,
    ),
    Operation(
        method="PUT",
        path="/v1/registries/{server}",
        handler=save,
        summary="Keep a login for an image registry",
        permission=Permission.SECRETS_MANAGE,
        body=LoginBody,
        answer=saved,
    ),
    Operation(
        method="GET",
        path="/v1/registries",
        handler=page,
        summary="List logins for image registries",
        permission=Permission.SECRETS_MANAGE,
    ),
    Operation(
        method="DELETE",
        path="/v1/registries/{server}",
        handler=remove,
        summary="Forget a login for an image registry",
        permission=Permission.SECRETS_MANAGE,
        query=REMOVE_QUERY,
        answer=removed,
    ),
)
