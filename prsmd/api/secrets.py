"""Secrets: set, list, remove, and the change of the key that seals them. No answer has a value."""

from typing import Any

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, flag, optional_body_as, refuse_unknown
from prsmd.api.respond import json_response, rfc3339
from prsmd.api.secret_schemas import SecretBody, SecretValueBody
from prsmd.api.update_schemas import EmptyBody
from prsmd.domain.access import Permission
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.secrets import KeyRotation, SecretReport, SecretRequest

REMOVE_QUERY = {
    "organization": "whose secret, for administrators; by default your own",
    "force": "true: remove it even while models use it; their next replicas cannot start",
}


async def add(services: Services, request: web.Request, caller: Caller) -> SecretReport:
    """Keep a value under a name, as its next version if there is one."""
    refuse_unknown(request)
    body = await body_as(request, SecretBody)
    return await services.secrets.save(caller, _asked(body, body.name))


async def save(services: Services, request: web.Request, caller: Caller) -> SecretReport:
    """Keep a value under the name in the path."""
    refuse_unknown(request)
    body = await body_as(request, SecretValueBody)
    return await services.secrets.save(caller, _asked(body, request.match_info["name"]))


def saved(_services: Services, report: SecretReport) -> Answer:
    """Return the answer to keeping a value."""
    return Answer(body=_body(report), status=201 if report.created else 200)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List secrets: their names and versions, never their values."""
    refuse_unknown(request)
    found = await services.secrets.list(caller)
    return json_response({"secrets": [_body(one) for one in found], "total": len(found)})


async def remove(services: Services, request: web.Request, caller: Caller) -> SecretReport:
    """Forget a secret that no model needs."""
    refuse_unknown(request, *REMOVE_QUERY)
    name, organization = request.match_info["name"], request.query.get("organization")
    force = flag(request, "force")
    return await services.secrets.remove(caller, name, organization, force=force)


def removed(_services: Services, report: SecretReport) -> Answer:
    """Return the answer to forgetting a secret."""
    return Answer(body=_body(report))


async def rotate(services: Services, request: web.Request, caller: Caller) -> KeyRotation:
    """Seal every secret and every registry password anew, with the next envelope key."""
    refuse_unknown(request)
    await optional_body_as(request, EmptyBody)
    return await services.secrets.rotate_key(caller)


def rotated(_services: Services, done: KeyRotation) -> Answer:
    """Return the answer to a change of the envelope key."""
    return Answer(
        body={
            "key_id": done.key_id,
            "resealed_secrets": done.secrets,
            "resealed_registries": done.registries,
            "key_made_here": done.made_here,
        }
    )


def _asked(body: SecretValueBody, name: str) -> SecretRequest:
    return SecretRequest(name=name, value=body.content(), organization=body.organization)


def _body(report: SecretReport) -> dict[str, Any]:
    secret = report.secret
    return {
        "name": secret.name,
        "organization": secret.organization,
        "version": secret.version,
        "size_bytes": secret.size_bytes,
        "key_id": secret.key_id,
        "used_by": [*report.used_by],
        "created_at": rfc3339(secret.created_at),
        "updated_at": rfc3339(secret.updated_at),
        "updated_by": secret.updated_by,
    }


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/secrets",
        handler=add,
        summary="Set a secret",
        permission=Permission.SECRETS_MANAGE,
        body=SecretBody,
        answer=saved,
    ),
    Operation(
        method="PUT",
        path="/v1/secrets/{name}",
        handler=save,
        summary="Set a secret",
        permission=Permission.SECRETS_MANAGE,
        body=SecretValueBody,
        answer=saved,
    ),
    Operation(
        method="GET",
        path="/v1/secrets",
        handler=page,
        summary="List secrets, without their values",
        permission=Permission.SECRETS_MANAGE,
    ),
    Operation(
        method="DELETE",
        path="/v1/secrets/{name}",
        handler=remove,
        summary="Forget a secret",
        permission=Permission.SECRETS_MANAGE,
        query=REMOVE_QUERY,
        answer=removed,
    ),
    Operation(
        method="POST",
        path="/v1/secrets/rotate-key",
        handler=rotate,
        summary="Seal everything anew with the next envelope key",
        permission=Permission.NODE_MANAGE,
        body=EmptyBody,
        body_optional=True,
        answer=rotated,
    ),
)
