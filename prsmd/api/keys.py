"""API keys: create, list, change, rotate, revoke; and who the caller is."""

import time
from typing import Any

from aiohttp import web

from prsmd.api.identity_schemas import KeyBody, KeyChangeBody, RotateBody
from prsmd.api.members import membership_body
from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, optional_body_as, refuse_unknown
from prsmd.api.resource_quotas import quota_body
from prsmd.api.respond import json_response, rfc3339
from prsmd.api.windows import WINDOW_QUERY, page_response, window_of
from prsmd.domain.access import ApiKey, Permission
from prsmd.domain.errors import InvalidInputError
from prsmd.service.belonging import Needs
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.keys import KeyRequest, Who

_LOST = (
    "This key was made by an earlier request, whose answer had its text; it is kept nowhere. If"
    " that answer is lost, revoke the key and make another."
)
_ROTATION_LOST = (
    "This key was rotated by an earlier request, whose answer had its text; it is kept nowhere. If"
    " that answer is lost, rotate the key again."
)


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
            models=_tuple(body.models),
            networks=_tuple(body.networks),
            requests_per_minute=body.requests_per_minute,
            requests_per_day=body.requests_per_day,
        ),
    )


def created(_services: Services, made: tuple[ApiKey, str]) -> Answer:
    """Return the answer that has the key's text, and the one of a repetition, which has not."""
    key, text = made
    return Answer(body=_key_body(key), status=201, first={"key": text}, repeated={"message": _LOST})


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List keys, without their secrets."""
    wanted = window_of(request)
    found, total = await services.keys.page(caller, wanted.limit, wanted.offset)
    return await page_response("api_keys", found, _key_body, wanted, total)


async def get(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer one key, without its secret."""
    refuse_unknown(request)
    return json_response(_key_body(await services.keys.get(caller, request.match_info["key_id"])))


async def change(services: Services, request: web.Request, caller: Caller) -> ApiKey:
    """Change a key: its name, its role, how long it lives and what it is held to."""
    refuse_unknown(request)
    body = await body_as(request, KeyChangeBody)
    changes = body.given()
    if not changes:
        raise InvalidInputError.field("body", "names nothing to change")
    for name in ("models", "networks"):
        if name in changes:
            changes[name] = _tuple(changes[name])
    if "expires_in_seconds" in changes:
        lifetime = changes.pop("expires_in_seconds")
        changes["expires_at"] = None if lifetime is None else time.time() + lifetime
    return await services.keys.change(caller, request.match_info["key_id"], changes)


async def rotate(services: Services, request: web.Request, caller: Caller) -> tuple[ApiKey, str]:
    """Give a key a new secret; its text is in this answer and nowhere else.

    The old secret is good for `overlap_seconds` more (3600; 0 ends it at once).
    """
    refuse_unknown(request)
    body = await optional_body_as(request, RotateBody)
    return await services.keys.rotate(caller, request.match_info["key_id"], body.overlap_seconds)


def rotated(_services: Services, made: tuple[ApiKey, str]) -> Answer:
    """Return the answer that has the key's new text, and that of a repetition, which has not."""
    key, text = made
    return Answer(body=_key_body(key), first={"key": text}, repeated={"message": _ROTATION_LOST})


async def revoke(services: Services, request: web.Request, caller: Caller) -> ApiKey:
    """Refuse a key from now on, and end what it has under way."""
    refuse_unknown(request)
    return await services.keys.revoke(caller, request.match_info["key_id"])


def changed(_services: Services, key: ApiKey) -> Answer:
    """Return the answer to a change or a revocation."""
    return Answer(body=_key_body(key))


async def me(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer who the caller is and what they may do: everywhere at home, and on single models.

    Who belongs to several organizations and names none is told of all, as who is only invited.
    """
    refuse_unknown(request)
    who = await services.keys.who(caller)
    memberships = [membership_body(report) for report in await services.members.own(caller)]
    told = {**_me_body(who), "memberships": memberships}
    if caller.principal.organization:
        told["quota"] = quota_body(await services.quotas.own(caller))
    return json_response(told)


def _me_body(who: Who) -> dict[str, Any]:
    principal, models, key = who.principal, who.models, who.key
    only = principal.only_models
    return {
        "principal": principal.id,
        "organization": principal.organization or None,
        "role": principal.role,
        "appliance_wide": principal.appliance_wide,
        "permissions": sorted(permission.value for permission in principal.permissions),
        "on_models": [
            {
                "model_id": models[deployment_id],
                "deployment_id": deployment_id,
                "permissions": sorted(granted),
            }
            for deployment_id, granted in sorted(principal.on_models.items())
            if deployment_id in models
        ],
        "only_models": None if only is None else sorted(only),
        "key": None if key is None else _key_body(key),
    }


def _key_body(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.id,
        "name": key.name,
        "organization": key.organization,
        "role": key.role,
        "created_at": rfc3339(key.created_at),
        "created_by": key.created_by or None,
        "expires_at": rfc3339(key.expires_at),
        "revoked_at": rfc3339(key.revoked_at),
        "rotated_at": rfc3339(key.rotated_at),
        "previous_secret_until": rfc3339(key.previous_until),
        "last_used_at": rfc3339(key.last_used_at),
        "models": None if key.models is None else list(key.models),
        "networks": None if key.networks is None else list(key.networks),
        "requests_per_minute": key.requests_per_minute,
        "requests_per_day": key.requests_per_day,
    }


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(dict.fromkeys(values))


_ONE = "/v1/api-keys/{key_id}"
_MANAGE = Permission.KEYS_MANAGE
OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/api-keys",
        handler=create,
        summary="Create an API key",
        permission=_MANAGE,
        body=KeyBody,
        answer=created,
    ),
    Operation(
        method="GET",
        path="/v1/api-keys",
        handler=page,
        summary="List API keys",
        permission=_MANAGE,
        query=WINDOW_QUERY,
    ),
    Operation(method="GET", path=_ONE, handler=get, summary="Show an API key", permission=_MANAGE),
    Operation(
        method="PATCH",
        path=_ONE,
        handler=change,
        summary="Change an API key",
        permission=_MANAGE,
        body=KeyChangeBody,
        answer=changed,
    ),
    Operation(
        method="POST",
        path=f"{_ONE}/rotate",
        handler=rotate,
        summary="Give an API key a new secret",
        permission=_MANAGE,
        body=RotateBody,
        body_optional=True,
        answer=rotated,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        handler=revoke,
        summary="Revoke an API key",
        permission=_MANAGE,
        answer=changed,
    ),
    Operation(
        method="GET",
        path="/v1/auth/me",
        handler=me,
        summary="Who the caller is",
        needs=Needs.ORGANIZATION_IF_CLEAR,
    ),
)
