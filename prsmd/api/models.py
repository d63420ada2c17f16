"""Models: list, show, scale, delete."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from prsmd.api.deployments import endpoint_url
from prsmd.api.lent import lent_model
from prsmd.api.operations import Operation, Services
from prsmd.api.rehearsals import foretold
from prsmd.api.requests import (
    PAGE_QUERY,
    body_as,
    expected_revisions,
    page_body,
    page_of,
    refuse_unknown,
)
from prsmd.api.respond import etag, json_response, rfc3339
from prsmd.api.rollouts import rollout_body, traffic_body
from prsmd.api.schemas import ScaleBody
from prsmd.domain.access import Permission
from prsmd.domain.body import body_of
from prsmd.domain.deployment import Deployment, ScalingStrategy
from prsmd.service.caller import Caller
from prsmd.service.deployments import Scaled
from prsmd.service.idempotency import Answer
from prsmd.service.precondition import Expected
from prsmd.service.shares import Lent
from prsmd.service.status import Report

_PRIVATE = {"environment", "command", "args"}  # never shown: they can hold secrets


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List the caller's models."""
    wanted = page_of(request)
    reports, total = await services.status.page(caller, wanted)
    lent = await services.shares.borrowed(caller, [report.deployment for report in reports])
    shown = [_shown(services, caller, report, lent) for report in reports]
    return json_response(page_body("custom_models", shown, wanted, total))


async def get(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Show one model with its spec."""
    refuse_unknown(request)
    report = await services.status.model(caller, request.match_info["model_id"])
    lent = await services.shares.borrowed(caller, [report.deployment])
    response = json_response(_shown(services, caller, report, lent))
    response.headers.update(etag(report.deployment.revision))
    return response


async def scale(services: Services, request: web.Request, caller: Caller) -> Scaled:
    """Set the replica count."""
    return await services.deployments.scale(caller, *await _scale_asked(request))


async def rehearse_scale(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer what a scale would do."""
    return foretold(await services.rehearsals.scale(caller, *await _scale_asked(request)))


async def _scale_asked(request: web.Request) -> tuple[str, int, ScalingStrategy, Expected]:
    refuse_unknown(request, "dry_run")
    body = await body_as(request, ScaleBody)
    strategy = ScalingStrategy(body.scaling_strategy)
    model = request.match_info["model_id"]
    return model, body.target_replicas, strategy, expected_revisions(request)


def scaled(_services: Services, done: Scaled) -> Answer:
    """Return the answer to a scale: from how many to how many, and what does not fit."""
    body: dict[str, Any] = {
        "deployment_id": done.deployment.id,
        "model_id": done.deployment.model_id,
        "status": "scaling",
        "current_replicas": done.active_replicas,
        "target_replicas": done.target_replicas,
        "scaling_strategy": done.strategy.value,
    }
    if done.refused is not None:
        body["message"] = f"what fits is started; not all fits now: {done.refused.summary}"
        body["reasons"] = list(done.refused.reasons)
    return Answer(body=body, status=202, headers=etag(done.deployment.revision))


async def delete(services: Services, request: web.Request, caller: Caller) -> Deployment:
    """Drain, stop and remove a model."""
    refuse_unknown(request)
    model = request.match_info["model_id"]
    return await services.deployments.delete(caller, model, expected_revisions(request))


def deleted(_services: Services, deployment: Deployment) -> Answer:
    """Return the answer to a delete."""
    body = {
        "deployment_id": deployment.id,
        "model_id": deployment.model_id,
        "status": "deleting",
    }
    return Answer(body=body, status=202)


def _shown(
    services: Services, caller: Caller, report: Report, lent: Mapping[str, Lent]
) -> dict[str, Any]:
    """Return a model as its owner sees it, or as who borrows it does."""
    body = _model_body(services, report)
    deployment = report.deployment
    if not caller.borrows(deployment.organization):
        return body
    return lent_model(body, lent.get(deployment.id), endpoint_url(services, deployment.id))


def _model_body(services: Services, report: Report) -> dict[str, Any]:
    deployment, spec = report.deployment, report.revision.spec
    body = body_of(spec)
    config = {k: v for k, v in body["deployment_config"].items() if k not in _PRIVATE}
    return {
        "model_id": deployment.model_id,
        "model_name": deployment.model_name,
        "organization": deployment.organization,
        "deployment_id": deployment.id,
        "model_type": spec.model_type,
        "status": report.view.status.value,
        "endpoint_url": endpoint_url(services, deployment.model_id),
        "revision": report.revision.number,
        "version": spec.metadata.version,
        "created_at": rfc3339(deployment.created_at),
        "created_by": report.revision.created_by,
        "traffic": traffic_body(report.traffic),
        "rollout": report.rollout and rollout_body(report.rollout, report.view.rollout_waits_for),
        "deployment_config": {**config, "image_digest": report.revision.image_digest},
        "model_metadata": body["model_metadata"],
    }


_ONE = "/v1/custom-models/{model_id}"
OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/custom-models",
        handler=page,
        summary="List models",
        permission=Permission.MODELS_READ,
        query=PAGE_QUERY,
    ),
    Operation(
        method="GET",
        path=_ONE,
        handler=get,
        summary="Show a model",
        permission=Permission.MODELS_READ,
    ),
    Operation(
        method="POST",
        path=_ONE + "/scale",
        handler=scale,
        summary="Scale a model",
        permission=Permission.MODELS_SCALE,
        body=ScaleBody,
        answer=scaled,
        rehearsal=rehearse_scale,
        conditional=True,
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        handler=delete,
        summary="Drain, stop and remove a model",
        permission=Permission.MODELS_DELETE,
        answer=deleted,
        conditional=True,
    ),
)
