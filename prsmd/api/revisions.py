"""Revisions: a new one by update or by rollback."""

from typing import Any

from aiohttp import web

from prsmd.api.deployments import endpoint_url
from prsmd.api.operations import Operation, Services
from prsmd.api.rehearsals import foretold
from prsmd.api.requests import (
    expected_revisions,
    flag,
    json_body,
    optional_body_as,
    refuse_unknown,
)
from prsmd.api.respond import etag
from prsmd.api.rollouts import rollout_body
from prsmd.api.update_schemas import RollbackBody, UpdateBody, spec_of, update_of
from prsmd.api.versions import changes_body
from prsmd.domain.access import Permission
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.revisions import Updated
from prsmd.service.updates import RollbackRequest, UpdateRequest


async def update(services: Services, request: web.Request, caller: Caller) -> Updated:
    """Make a new revision: a JSON merge patch on the wanted one, rolled out or in place."""
    model, wanted = request.match_info["model_id"], await _update_asked(request)
    return await services.revisions.update(caller, model, wanted)


async def rehearse_update(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer what an update would do."""
    model, wanted = request.match_info["model_id"], await _update_asked(request)
    return foretold(await services.rehearsals.update(caller, model, wanted))


async def rollback(services: Services, request: web.Request, caller: Caller) -> Updated:
    """Want an earlier revision again: the one that is named, or the last good one."""
    model, wanted = request.match_info["model_id"], await _rollback_asked(request)
    return await services.revisions.rollback(caller, model, wanted)


async def rehearse_rollback(
    services: Services, request: web.Request, caller: Caller
) -> web.Response:
    """Answer what a rollback would do."""
    model, wanted = request.match_info["model_id"], await _rollback_asked(request)
    return foretold(await services.rehearsals.rollback(caller, model, wanted))


def updated(services: Services, done: Updated) -> Answer:
    """Return what an update or a rollback came to: 202 where something is under way for it."""
    moves = not (done.in_place or done.unchanged)
    status = "updating" if moves else "unchanged" if done.unchanged else "updated"
    words = list(done.notes)
    if done.refused is not None:
        words.append(f"accepted, but not placeable now: {done.refused.summary}")
    body: dict[str, Any] = {
        "deployment_id": done.deployment.id,
        "model_id": done.deployment.model_id,
        "status": status,
        "endpoint_url": endpoint_url(services, done.deployment.model_id),
        "revision": done.revision.number,
        "previous_revision": done.previous.number,
        "version": done.revision.spec.metadata.version,
        "in_place": done.in_place,
        "changes": [] if done.unchanged or not _is_new(done) else changes_body(done.revision.diff),
        "rollout": None if done.rollout is None else rollout_body(done.rollout),
        "message": "; ".join(words),
        "reasons": list(done.refused.reasons) if done.refused else [],
    }
    return Answer(body=body, status=202 if moves else 200, headers=etag(done.revision.number))


async def _update_asked(request: web.Request) -> UpdateRequest:
    refuse_unknown(request, "dry_run", "replace")
    patch, options = update_of(await json_body(request))
    return UpdateRequest(
        patch=patch,
        read=spec_of,
        whole=flag(request, "replace"),
        options=options,
        expected=expected_revisions(request),
    )


async def _rollback_asked(request: web.Request) -> RollbackRequest:
    refuse_unknown(request, "dry_run")
    body = await optional_body_as(request, RollbackBody)
    return RollbackRequest(
        revision=body.revision,
        version=body.version,
        options=body.rollout.options(),
        expected=expected_revisions(request),
    )


def _is_new(done: Updated) -> bool:
    return done.revision.number > done.previous.number


_ONE = "/v1/custom-models/{model_id}"
OPERATIONS = (
    Operation(
        method="PUT",
        path=_ONE,
        handler=update,
        summary="Update a model",
        permission=Permission.MODELS_UPDATE,
        body=UpdateBody,
        query={"replace": "true: the body is whole; what it leaves out gets its default"},
        answer=updated,
        rehearsal=rehearse_update,
        conditional=True,
    ),
    Operation(
        method="POST",
        path=_ONE + "/rollback",
        handler=rollback,
        summary="Go back to an earlier revision",
        permission=Permission.MODELS_UPDATE,
        body=RollbackBody,
        body_optional=True,
        answer=updated,
        rehearsal=rehearse_rollback,
        conditional=True,
    ),
)
