"""Versions: the revisions that a model has had, and how two of them differ."""

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import page_body, refuse_unknown, whole
from prsmd.api.respond import json_response, rfc3339
from prsmd.domain.access import Permission
from prsmd.domain.deployment import FieldChange
from prsmd.service.caller import Caller
from prsmd.service.status import Page
from prsmd.service.versions import RevisionReport

_MOST = 10**15


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List a model's revisions, newest first: who made each, when, why, and what became of it."""
    refuse_unknown(request, "limit", "offset")
    wanted = Page(
        limit=whole(request, "limit", 20, low=1, high=100),
        offset=whole(request, "offset", 0, low=0, high=10**9),
    )
    model = request.match_info["model_id"]
    found, total = await services.versions.page(caller, model, wanted.limit, wanted.offset)
    return json_response(page_body("versions", [_body(one) for one in found], wanted, total))


async def compare(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer how two revisions differ: by default the wanted one from the one before it."""
    refuse_unknown(request, "from", "to")
    model = request.match_info["model_id"]
    before, after = _revision(request, "from"), _revision(request, "to")
    found = await services.versions.compare(caller, model, before, after)
    return json_response(
        {
            "model_id": found.deployment.model_id,
            "from_revision": found.before.number,
            "from_version": found.before.spec.metadata.version,
            "to_revision": found.after.number,
            "to_version": found.after.spec.metadata.version,
            "changes": changes_body(found.changes),
        }
    )


def changes_body(changes: Iterable[FieldChange]) -> list[dict[str, Any]]:
    """Return changed fields as clients see them; null: it was not there, or is not there now."""
    return [{"field": one.field, "before": one.before, "after": one.after} for one in changes]


def _body(item: RevisionReport) -> dict[str, Any]:
    revision = item.revision
    return {
        "revision": revision.number,
        "version": revision.spec.metadata.version,
        "state": item.state,
        "reason": item.reason,
        "why": item.why,
        "container_image": revision.spec.image,
        "image_digest": revision.image_digest,
        "created_at": rfc3339(revision.created_at),
        "created_by": revision.created_by,
        "good_at": rfc3339(revision.good_at),
        "changes": changes_body(revision.diff),
    }


def _revision(request: web.Request, name: str) -> int | None:
    return whole(request, name, 0, low=1, high=_MOST) if name in request.query else None


_ONE = "/v1/custom-models/{model_id}"
OPERATIONS = (
    Operation(
        method="GET",
        path=_ONE + "/versions",
        handler=page,
        summary="List a model's revisions",
        permission=Permission.MODELS_READ,
        lent=False,
        query={"limit": "how many, at most 100", "offset": "how many to skip"},
    ),
    Operation(
        method="GET",
        path=_ONE + "/diff",
        handler=compare,
        summary="Compare two revisions",
        permission=Permission.MODELS_READ,
        lent=False,
        query={
            "from": "number of the earlier revision; by default the one before `to`",
            "to": "number of the later revision; by default the wanted one",
        },
    ),
)
