"""Sharing: lend a model, list to whom, change it, take it back."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, refuse_unknown
from prsmd.api.respond import rfc3339
from prsmd.api.share_schemas import ShareBody, ShareChangeBody
from prsmd.api.windows import WINDOW_QUERY, page_response, window_of
from prsmd.core.meter import Standing
from prsmd.domain.access import Permission
from prsmd.domain.quota import Share
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.shares import SHAREABLE, Lent


async def create(services: Services, request: web.Request, caller: Caller) -> Lent:
    """Lend a model to organizations or keys."""
    refuse_unknown(request)
    body = await body_as(request, ShareBody)
    return await services.shares.create(caller, request.match_info["model_id"], body.request())


def created(_services: Services, made: Lent) -> Answer:
    """Return the answer with the new share."""
    return Answer(body=_body(made), status=201)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List the shares of a model, oldest first, with what is left of each."""
    wanted = window_of(request)
    shown, total = await services.shares.page(caller, request.match_info["model_id"], wanted)
    return await page_response("shares", shown, _body, wanted, total)


async def change(services: Services, request: web.Request, caller: Caller) -> Lent:
    """Change limits, permissions, borrowers or the end of a share."""
    refuse_unknown(request)
    body = await body_as(request, ShareChangeBody)
    model, share_id = request.match_info["model_id"], request.match_info["share_id"]
    return await services.shares.change(caller, model, share_id, body.changes())


async def revoke(services: Services, request: web.Request, caller: Caller) -> Lent:
    """Take a model back."""
    refuse_unknown(request)
    model, share_id = request.match_info["model_id"], request.match_info["share_id"]
    return await services.shares.revoke(caller, model, share_id)


def changed(_services: Services, lent: Lent) -> Answer:
    """Return the answer to a change."""
    return Answer(body=_body(lent))


def revoked(_services: Services, lent: Lent) -> Answer:
    """Return the answer to a revocation."""
    return Answer(body={**_body(lent), "status": "revoked"})


def borrowed_body(lent: Lent) -> dict[str, Any]:
    """Return what a borrower sees of its share: what it may, and what is left."""
    share = lent.share
    return {
        "share_id": share.id,
        "permissions": _permissions(share),
        "usage_limits": dataclasses.asdict(share.limits),
        "left": [_standing(one) for left in lent.left.values() for one in left],
        "expires_at": rfc3339(share.expires_at),
    }


def _body(lent: Lent) -> dict[str, Any]:
    share = lent.share
    return {
        "share_id": share.id,
        "model_id": lent.model_id,
        "deployment_id": share.deployment_id,
        "share_type": "key" if share.keys else "organization",
        "permissions": _permissions(share),
        "allowed_organizations": sorted(share.organizations),
        "allowed_keys": sorted(share.keys),
        "usage_limits": dataclasses.asdict(share.limits),
        "expires_at": rfc3339(share.expires_at),
        "status": "active" if share.in_force(time.time()) else "expired",
        "created_at": rfc3339(share.created_at),
        "created_by": share.created_by,
        "updated_at": rfc3339(share.updated_at),
        "borrowers": [_borrower(name, left) for name, left in lent.left.items()],
    }


def _borrower(name: str, left: Sequence[Standing]) -> dict[str, Any]:
    return {"borrower": name, "left": [_standing(one) for one in left]}


def _permissions(share: Share) -> list[str]:
    return [name for name, permission in SHAREABLE.items() if permission in share.permissions]


def _standing(left: Standing) -> dict[str, Any]:
    return {
        "limit_type": left.limit_type,
        "limit": left.limit,
        "remaining": left.remaining,
        "reset_time": left.reset_time,
    }


_ONE = "/v1/custom-models/{model_id}/shares/{share_id}"
OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/custom-models/{model_id}/share",
        handler=create,
        summary="Share a model with organizations or keys",
        permission=Permission.MODELS_SHARE,
        body=ShareBody,
        answer=created,
    ),
    Operation(
        method="GET",
        path="/v1/custom-models/{model_id}/shares",
        handler=page,
        summary="List the shares of a model, and what is left of each",
        permission=Permission.MODELS_SHARE,
        query=WINDOW_QUERY,
    ),
    Operation(
        method="PATCH",
        path=_ONE,
        handler=change,
        summary="Change a share",
        permission=Permission.MODELS_SHARE,
        body=ShareChangeBody,
        answer=changed,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        handler=revoke,
        summary="Revoke a share",
        permission=Permission.MODELS_SHARE,
        answer=revoked,
    ),
)
