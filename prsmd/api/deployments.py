"""Deployments: deploy, list, status, events, logs."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from prsmd.api.lent import lent_status
from prsmd.api.operations import Operation, Services
from prsmd.api.rehearsals import foretold
from prsmd.api.request_body import HOLDING
from prsmd.api.requests import (
    PAGE_QUERY,
    body_as,
    moment,
    number,
    page_body,
    page_of,
    refuse_unknown,
    whole,
)
from prsmd.api.respond import json_response, json_text, rfc3339, rounded
from prsmd.api.rollouts import rollout_body, traffic_body
from prsmd.api.schemas import DeployBody
from prsmd.api.streams import (
    EncodedEvents,
    encoded_event,
    followed_stream,
    held_poll,
    send_event,
    wants_stream,
)
from prsmd.domain.access import Permission
from prsmd.domain.errors import DaemonStoppingError, InvalidInputError
from prsmd.domain.events import Event
from prsmd.domain.quantity import format_cpu, format_memory
from prsmd.service.caller import Caller
from prsmd.service.deployments import Deployed
from prsmd.service.forecast import duration_text
from prsmd.service.idempotency import Answer
from prsmd.service.logs import LogRequest, ReplicaLine
from prsmd.service.status import ReplicaReport, Report

_LONGEST_WAIT = 300.0
_ENCODED = EncodedEvents()


async def deploy(services: Services, request: web.Request, caller: Caller) -> Deployed:
    """Accept a model; it is pulled, placed and started afterwards."""
    refuse_unknown(request, "dry_run")
    body = await body_as(request, DeployBody)
    return await services.deployments.deploy(caller, body.model_name, body.spec())


async def rehearse_deploy(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer what a deploy would do."""
    refuse_unknown(request, "dry_run")
    body = await body_as(request, DeployBody)
    return foretold(await services.rehearsals.deploy(caller, body.model_name, body.spec()))


def deployed(services: Services, done: Deployed) -> Answer:
    """Return the document's answer to a deploy."""
    deployment, needs = done.deployment, done.spec.resources
    body: dict[str, Any] = {
        "deployment_id": deployment.id,
        "model_id": deployment.model_id,
        "status": "deploying",
        "endpoint_url": endpoint_url(services, deployment.model_id),
        "estimated_deployment_time": duration_text(done.expected_seconds),
        "resource_allocation": {
            "cpu": format_cpu(needs.cpu_millis),
            "memory": format_memory(needs.memory_bytes),
            "gpu": done.gpu,
        },
    }
    if done.refused is not None:
        body["message"] = f"accepted, but not placeable now: {done.refused.summary}"
        body["reasons"] = list(done.refused.reasons)
    return Answer(body=body, status=202)


async def page(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List the caller's deployments."""
    wanted = page_of(request)
    reports, total = await services.status.page(caller, wanted)
    shown = await _shown(services, caller, reports)
    return json_response(page_body("deployments", shown, wanted, total))


async def status(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer a deployment's status; `wait` holds the answer until it settles."""
    refuse_unknown(request, "wait")
    wait = number(request, "wait", 0.0, low=0, high=_LONGEST_WAIT)
    reference = request.match_info["deployment_id"]
    report = None
    if wait:
        with contextlib.suppress(DaemonStoppingError):  # then it is told as it is by now
            async with held_poll(request, caller):
                report = await services.status.get(caller, reference, wait)
    if report is None:
        report = await services.status.get(caller, reference)
    [shown] = await _shown(services, caller, [report])
    return json_response(shown)


async def events(services: Services, request: web.Request, caller: Caller) -> web.StreamResponse:
    """Answer what happened and why; as an event stream it follows."""
    refuse_unknown(request, "limit", "after")
    reference = request.match_info["deployment_id"]
    limit = whole(request, "limit", 100, low=1, high=1000)
    if not wants_stream(request):
        found = await services.events.latest(caller, reference, limit)
        return json_response({"events": [event_body(event) for event in found]})
    after = request.headers.get("Last-Event-ID") or request.query.get("after") or "0"
    if not (after.isascii() and after.isdecimal()) or len(after) > 18:
        raise InvalidInputError.field("after", "must be the id of an event", after[:50])
    known = functools.partial(services.events.latest, caller, reference, 1)
    async with (
        followed_stream(request, caller, known) as response,
        services.shares.while_lent(caller, reference, Permission.MODELS_READ),
        contextlib.aclosing(services.events.follow(caller, reference, int(after))) as stream,
    ):
        async for event in stream:
            await response.write(_ENCODED.of(event, functools.partial(_encoded, event)))
    return response


def _encoded(event: Event) -> bytes:
    return encoded_event("deployment", event_body(event), event.sequence)


async def logs(services: Services, request: web.Request, caller: Caller) -> web.StreamResponse:
    """Answer the containers' last lines; `follow=true` or an event stream follows."""
    refuse_unknown(request, "tail", "since", "replica", "follow")
    reference = request.match_info["deployment_id"]
    wanted = LogRequest(
        replica_id=request.query.get("replica"),
        tail=whole(request, "tail", 100, low=0, high=10000),
        since=moment(request, "since"),
        holding=request[HOLDING],
    )
    follow = request.query.get("follow", "false")
    if follow not in {"true", "false"}:
        raise InvalidInputError.field("follow", "must be true or false", follow[:50])
    if follow == "false" and not wants_stream(request):
        return await services.logs.read(caller, reference, wanted, _lines_answer)
    known = functools.partial(services.logs.check, caller, reference, wanted.replica_id)
    async with (
        followed_stream(request, caller, known) as response,
        services.shares.while_lent(caller, reference, Permission.LOGS_READ),
        contextlib.aclosing(services.logs.follow(caller, reference, wanted)) as stream,
    ):
        async for item in stream:
            await send_event(response, "log", _line_body(item))
    return response


def _lines_answer(lines: Sequence[ReplicaLine]) -> web.Response:
    # Line by line: a text that is made in one call of C keeps the loop waiting until it is made.
    body = b'{"lines":[%s]}' % b",".join(json_text(_line_body(line)) for line in lines)
    return web.Response(body=body, content_type="application/json")


def endpoint_url(services: Services, model: str) -> str:
    """Return where a model is inferred, by its id or its deployment's."""
    return f"{services.public_url}/v1/models/{model}/infer"


async def _shown(
    services: Services, caller: Caller, reports: Sequence[Report]
) -> list[dict[str, Any]]:
    """Return statuses as their owner sees them, or as who borrows the model does."""
    lent = await services.shares.borrowed(caller, [report.deployment for report in reports])
    shown = []
    for report in reports:
        body, deployment = _status_body(services, report), report.deployment
        if caller.borrows(deployment.organization):
            endpoint = endpoint_url(services, deployment.id)
            body = lent_status(body, lent.get(deployment.id), endpoint)
        shown.append(body)
    return shown


def _status_body(services: Services, report: Report) -> dict[str, Any]:
    """Return the document's status with the additions of API.md."""
    view, performance = report.view, report.performance
    return {
        "deployment_id": report.deployment.id,
        "status": view.status.value,
        "health_status": view.health_status,
        "replicas": {
            "desired": view.desired_replicas,
            "ready": view.ready_replicas,
            "available": view.available_replicas,
        },
        "performance_metrics": {
            "requests_per_second": rounded(performance.requests_per_second),
            "avg_latency_ms": rounded(performance.avg_latency_ms) or 0,
            "p95_latency_ms": rounded(performance.p95_latency_ms),
            "error_rate": rounded(performance.error_rate, 4),
            "in_flight": report.load.in_flight,
            "queued": report.load.queued,
        },
        "resource_usage": {
            "cpu_percent": rounded(report.cpu_percent, 1) or 0,
            "memory_percent": rounded(report.memory_percent, 1) or 0,
            "gpu_percent": rounded(report.gpu_percent, 1) or 0,
        },
        "message": view.message,
        "reason": view.reason,
        "model_id": report.deployment.model_id,
        "model_name": report.deployment.model_name,
        "endpoint_url": endpoint_url(services, report.deployment.model_id),
        "organization": report.deployment.organization,
        "revision": report.revision.number,
        "model_version": report.revision.spec.metadata.version,
        "container_image": report.revision.spec.image,
        "image_digest": report.revision.image_digest,
        "traffic": traffic_body(report.traffic),
        "rollout": report.rollout and rollout_body(report.rollout, view.rollout_waits_for),
        "created_at": rfc3339(report.deployment.created_at),
        "updated_at": rfc3339(report.deployment.updated_at),
        "autoscaling": _autoscaling_body(report),
        "conditions": [
            {"type": c.type, "status": c.status, "reason": c.reason, "message": c.message}
            for c in view.conditions
        ],
        "replica_details": [_replica_body(item) for item in report.replicas],
    }


def event_body(event: Event) -> dict[str, Any]:
    """Return one event as clients see it."""
    return {
        "sequence": event.sequence,
        "at": rfc3339(event.at),
        "severity": event.severity.value,
        "reason": event.reason,
        "message": event.message,
        "replica_id": event.replica_id,
    }


def _autoscaling_body(report: Report) -> dict[str, Any]:
    scaling, found = report.revision.spec.scaling, report.deployment.recommendation
    return {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "target_utilization": scaling.target_utilization,
        "recommended_replicas": found.replicas if found else None,
        "utilization": rounded(found.utilization, 3) if found else None,
        "reasons": list(found.reasons) if found else [],
        "decided_at": rfc3339(found.at) if found else None,
        "held": report.held,
    }


def _replica_body(item: ReplicaReport) -> dict[str, Any]:
    replica, usage = item.replica, item.usage
    exit_body = None
    if replica.exit is not None:
        exit_body = {
            "kind": replica.exit.kind.value,
            "message": replica.exit.message,
            "exit_code": replica.exit.exit_code,
            "log_tail": list(replica.exit.log_tail),
        }
    return {
        "replica_id": replica.id,
        "slot": replica.slot,
        "revision": replica.revision,
        "state": replica.state.value,
        "ready": item.ready,
        "node": replica.placement.node,
        "gpu_uuids": list(replica.placement.gpu_uuids),
        "endpoint": str(replica.endpoint) if replica.endpoint else None,
        "in_flight": item.in_flight,
        "cpu_percent": rounded(usage.cpu_percent, 1) if usage else None,
        "memory_percent": rounded(usage.memory_percent, 1) if usage else None,
        "created_at": rfc3339(replica.created_at),
        "started_at": rfc3339(replica.started_at),
        "ready_at": rfc3339(replica.ready_at),
        "finished_at": rfc3339(replica.finished_at),
        "message": item.message,
        "exit": exit_body,
    }


def _line_body(item: ReplicaLine) -> dict[str, Any]:
    return {
        "at": rfc3339(item.line.at),
        "stream": item.line.stream,
        "text": item.line.text,
        "replica_id": item.replica_id,
    }


_ONE = "/v1/custom-models/deployments/{deployment_id}"
OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/custom-models/deploy",
        handler=deploy,
        summary="Deploy a model",
        permission=Permission.MODELS_DEPLOY,
        body=DeployBody,
        answer=deployed,
        rehearsal=rehearse_deploy,
    ),
    Operation(
        method="GET",
        path="/v1/custom-models/deployments",
        handler=page,
        summary="List deployments",
        permission=Permission.MODELS_READ,
        query=PAGE_QUERY,
    ),
    Operation(
        method="GET",
        path=_ONE,
        handler=status,
        summary="Status of a deployment",
        permission=Permission.MODELS_READ,
        query={"wait": "seconds to wait for it to settle"},
        polls=True,
    ),
    Operation(
        method="GET",
        path=_ONE + "/events",
        handler=events,
        summary="What happened and why",
        permission=Permission.MODELS_READ,
        query={"limit": "how many of the last", "after": "follow from this event id"},
        streams=True,
    ),
    Operation(
        method="GET",
        path=_ONE + "/logs",
        handler=logs,
        summary="Container logs",
        permission=Permission.LOGS_READ,
        query={
            "tail": "how many of the last lines",
            "since": "RFC 3339 time, or epoch seconds",
            "replica": "of this replica only",
            "follow": "true: go on as an event stream",
        },
        streams=True,
    ),
)
