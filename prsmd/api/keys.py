"""API keys: create, list, revoke; and who the caller is."""

from typing import Any

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import json_response, rfc3339
from prsmd.api.schemas import KeyBody
from prsmd.domain.access import ApiKey, Permission
from prsmd.service.caller import Caller
from prsmd.service.keys import KeyRequest


async def create(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Make a key; its text is in this answer and nowhere else."""
    refuse_unknown(request)
    body = await body_as(request, KeyBody)
    key, text = await services.keys.create(
        caller,
        KeyRequest(
            name=body.name,
            role=body.role,
            organization=body.organization,
            expires_in_seconds=body.expires_in_seconds,
        ),
    )
    return json_response({"key": text, **_key_body(key)}, 201)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List keys, without their secrets."""
    refuse_unknown(request)
    keys = await services.keys.list(caller)
    return json_response({"api_keys": [_key_body(key) for key in keys], "total": len(keys)})


async def revoke(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Refuse a key from now on."""
    refuse_unknown(request)
    key = await services.keys.revoke(caller, request.match_info["key_id"])
    return json_response(_key_body(key))


async def me(_services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer who the caller is and what they may do."""
    refuse_unknown(request)
    principal = caller.principal
    return json_response(
        {
            "principal": principal.id,
            "organization": principal.organization,
            "role": principal.role,
            "permissions": sorted(permission.value for permission in principal.permissions),
        }
    )


def _key_body(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.id,
        "name": key.name,
        "organization": key.organization,
        "role": key.role,
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at),
        "revoked_at": rfc3339(key.revoked_at),
    }


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/api-keys",
        handler=create,
        summary="Create an API key",
        permission=Permission.KEYS_MANAGE,
        body=KeyBody,
    ),
    Operation(
        method="GET",
        path="/v1/api-keys",
        handler=page,
        summary="List API keys",
        permission=Permission.KEYS_MANAGE,
    ),
    Operation(
        method="DELETE",
        path="/v1/api-keys/{key_id}",
        handler=revoke,
        summary="Revoke an API key",
        permission=Permission.KEYS_MANAGE,
    ),
    Operation(method="GET", path="/v1/auth/me", handler=me, summary="Who the caller is"),
)
