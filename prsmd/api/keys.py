"""API keys: create, list, revoke; and who the caller is."""

from typing import Any

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import json_response, rfc3339
from prsmd.api.schemas import KeyBody
from prsmd.domain.access import ApiKey, Permission
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.keys import KeyRequest


async def create(services: Services, request: web.Request, caller: Caller) -> tuple[ApiKey, str]:
    """Make a key; its text is in this answer and nowhere else."""
    refuse_unknown(request)
    body = await body_as(request, KeyBody)
    return await services.keys.create(
        caller,
        KeyRequest(
            name=body.name,
            role=body.role,
            organization=body.organization,
            expires_in_seconds=body.expires_in_seconds,
        ),
    )


def created(_services: Services, made: tuple[ApiKey, str]) -> Answer:
    """Return the answer that has the key's text, and the one of a repetition, which has not."""
    key, text = made
    return Answer(
        body=_key_body(key),
        status=201,
        first={"key": text},
        repeated={
            "message": "This key was made by an earlier request, whose answer had its text; it is"
            " kept nowhere. If that answer is lost, revoke the key and make another."
        },
    )


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List keys, without their secrets."""
    refuse_unknown(request)
    keys = await services.keys.list(caller)
    return json_response({"api_keys": [_key_body(key) for key in keys], "total": len(keys)})


async def revoke(services: Services, request: web.Request, caller: Caller) -> ApiKey:
    """Refuse a key from now on."""
    refuse_unknown(request)
    return await services.keys.revoke(caller, request.match_info["key_id"])


def revoked(_services: Services, key: ApiKey) -> Answer:
    """Return the answer to a revocation."""
    return Answer(body=_key_body(key))


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
        answer=created,
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
        answer=revoked,
    ),
    Operation(method="GET", path="/v1/auth/me", handler=me, summary="Who the caller is"),
)
