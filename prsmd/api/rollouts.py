"""Rollouts: how an update goes; pause, resume, promote, abort; traffic by hand."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import body_as, expected_revisions, optional_body_as, refuse_unknown
from prsmd.api.respond import etag, json_response, rfc3339, rounded
from prsmd.api.update_schemas import EmptyBody, TrafficBody
from prsmd.core.rollout import traffic
from prsmd.core.trial import Reading, TrialReading
from prsmd.domain.access import Permission
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase, RolloutStrategy
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer
from prsmd.service.rollouts import Divided, RolloutReport, Steered, TrafficShare


async def get(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Show a model's latest rollout, under way or ended, and what it waits for."""
    refuse_unknown(request)
    model = request.match_info["model_id"]
    deployment, report = await services.rollouts.get(caller, model)
    seen = await services.status.model(caller, model)
    answer = {
        "deployment_id": deployment.id,
        "model_id": deployment.model_id,
        "revision": deployment.revision,
        "status": seen.view.status.value,
        "message": seen.view.message,
        "rollout": rollout_body(seen.rollout or report, seen.view.rollout_waits_for),
        "traffic": traffic_body(seen.traffic),
    }
    response = json_response(answer)
    response.headers.update(etag(deployment.revision))
    return response


async def pause(services: Services, request: web.Request, caller: Caller) -> Steered:
    """Take no further step until resumed; what runs goes on, and a broken gate rolls back."""
    await _says_nothing(request)
    model = request.match_info["model_id"]
    return await services.rollouts.pause(caller, model, expected_revisions(request))


async def resume(services: Services, request: web.Request, caller: Caller) -> Steered:
    """Go on with a paused rollout."""
    await _says_nothing(request)
    model = request.match_info["model_id"]
    return await services.rollouts.resume(caller, model, expected_revisions(request))


async def promote(services: Services, request: web.Request, caller: Caller) -> Steered:
    """End a trial well: the new revision takes over."""
    await _says_nothing(request)
    model = request.match_info["model_id"]
    return await services.rollouts.promote(caller, model, expected_revisions(request))


async def abort(services: Services, request: web.Request, caller: Caller) -> Steered:
    """End a rollout: what it was to replace is wanted again."""
    await _says_nothing(request)
    model = request.match_info["model_id"]
    return await services.rollouts.abort(caller, model, expected_revisions(request))


def steered(_services: Services, done: Steered) -> Answer:
    """Return the answer to whatever steers a rollout."""
    body = {
        "deployment_id": done.deployment.id,
        "model_id": done.deployment.model_id,
        "revision": done.deployment.revision,
        "changed": done.changed,
        "rollout": rollout_body(done.report),
    }
    return Answer(body=body, headers=etag(done.deployment.revision))


async def divide(services: Services, request: web.Request, caller: Caller) -> Divided:
    """Divide the traffic of a trial by hand."""
    refuse_unknown(request)
    body = await body_as(request, TrafficBody)
    return await services.rollouts.set_traffic(
        caller, request.match_info["model_id"], body.weights, expected_revisions(request)
    )


def divided(_services: Services, done: Divided) -> Answer:
    """Return how the traffic divides now."""
    body = {
        "deployment_id": done.deployment.id,
        "model_id": done.deployment.model_id,
        "revision": done.deployment.revision,
        "traffic": traffic_body(done.shares),
        "rollout": None if done.report is None else rollout_body(done.report),
    }
    return Answer(body=body, headers=etag(done.deployment.revision))


def rollout_body(report: RolloutReport, waiting_for: str = "") -> dict[str, Any]:
    """Return a rollout as clients see it. `step` counts a canary's from 1; 0: none yet."""
    rollout, options = report.rollout, report.rollout.options
    trial = traffic(rollout)
    return {
        "number": rollout.number,
        "strategy": options.strategy.value,
        "phase": rollout.phase.value,
        "active": rollout.active,
        "paused": rollout.paused,
        "step": _step(rollout),
        "steps": list(options.steps) if options.strategy is RolloutStrategy.CANARY else [],
        "weight": None if trial is None else trial.weight,
        "from_revision": rollout.from_revision,
        "from_version": report.stable.spec.metadata.version,
        "to_revision": rollout.to_revision,
        "to_version": report.coming.spec.metadata.version,
        "started_at": rfc3339(rollout.started_at),
        "started_by": rollout.started_by,
        "finished_at": rfc3339(rollout.finished_at),
        "waiting_for": (waiting_for or rollout.trouble or "") if rollout.active else "",
        "outcome": rollout.outcome,
        "evidence": list(rollout.evidence),
        "measured": report.measured and _measured_body(report.measured),
        "options": _options_body(options),
    }


def _measured_body(measured: TrialReading) -> dict[str, Any]:
    """Return what a trial's step has measured so far, each side by itself."""
    return {
        "trial": _reading_body(measured.trial),
        "stable": _reading_body(measured.stable),
        "copies": {
            "compared": measured.compared,
            "differing": measured.differing,
            "dropped": measured.dropped,
        },
    }


def _reading_body(reading: Reading) -> dict[str, Any]:
    return {
        "requests": reading.requests,
        "errors": reading.errors,
        "error_rate": rounded(reading.error_rate, 4),
        "mean_latency_ms": rounded(reading.mean_ms),
    }


def traffic_body(shares: Sequence[TrafficShare]) -> list[dict[str, Any]]:
    """Return how traffic divides. `weight` is a percent; null: as the replicas' load allows."""
    return [
        {
            "revision": share.revision.number,
            "version": share.revision.spec.metadata.version,
            "weight": share.weight,
        }
        for share in shares
    ]


async def _says_nothing(request: web.Request) -> None:
    refuse_unknown(request)
    await optional_body_as(request, EmptyBody)


def _step(rollout: Rollout) -> int:
    tried = rollout.phase is not RolloutPhase.PREPARING
    return rollout.step + 1 if rollout.options.strategy is RolloutStrategy.CANARY and tried else 0


def _options_body(options: RolloutOptions) -> dict[str, Any]:
    """Return the options in the form in which they are asked for."""
    body: dict[str, Any] = {
        "strategy": options.strategy.value,
        "max_surge": options.max_surge,
        "min_ready_seconds": options.min_ready_seconds,
    }
    if not options.strategy.on_trial:
        return body
    gate, header = options.gate, options.header
    body |= {
        "bake_seconds": options.bake_seconds,
        "gate": {
            "max_error_rate": gate.max_error_rate,
            "max_latency_ratio": gate.max_latency_ratio,
            "min_requests": gate.min_requests,
        },
        "promotion": "manual" if options.promote_by_hand else "auto",
    }
    if options.strategy is RolloutStrategy.SHADOW:
        body["shadow"] = {"percent": options.shadow_percent}
    if options.strategy is RolloutStrategy.CANARY:
        body["canary"] = {
            "steps": list(options.steps),
            "header": header and {"name": header.name, "value": header.value},
            "sticky": options.sticky,
        }
    return body


_ONE = "/v1/custom-models/{model_id}"
OPERATIONS = (
    Operation(
        method="GET",
        path=_ONE + "/rollout",
        handler=get,
        summary="How the latest update goes, or went",
        permission=Permission.MODELS_READ,
        lent=False,
    ),
    *(
        Operation(
            method="POST",
            path=f"{_ONE}/rollout/{handler.__name__}",
            handler=handler,
            summary=summary,
            permission=Permission.MODELS_UPDATE,
            body=EmptyBody,
            body_optional=True,
            answer=steered,
            conditional=True,
        )
        for handler, summary in (
            (pause, "Pause a rollout"),
            (resume, "Resume a rollout"),
            (promote, "Promote a revision on trial"),
            (abort, "Abort a rollout"),
        )
    ),
    Operation(
        method="PUT",
        path=_ONE + "/traffic",
        handler=divide,
        summary="Divide the traffic of a trial by hand",
        permission=Permission.MODELS_UPDATE,
        body=TrafficBody,
        answer=divided,
        conditional=True,
    ),
)
