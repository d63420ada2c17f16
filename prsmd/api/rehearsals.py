"""How dry runs are answered: what would change, and the plan that would be carried out."""

from typing import Any

from aiohttp import web

from prsmd.api.respond import etag, json_response
from prsmd.api.versions import changes_body
from prsmd.core.plan import Hold
from prsmd.core.rehearse import Rehearsal, Step
from prsmd.service.rehearsals import Foretold


def foretold(found: Foretold) -> web.Response:
    """Return the answer to a dry run. Its `ETag` is what the model is at now, if it is there."""
    previous, image = found.previous, found.image
    body = {
        "dry_run": True,
        "action": found.action,
        "deployment_id": None if previous is None else found.deployment.id,
        "model_id": found.deployment.model_id,
        "revision": found.revision.number,
        "previous_revision": previous and previous.number,
        "version": found.revision.spec.metadata.version,
        "unchanged": found.unchanged,
        "in_place": found.in_place,
        "changes": changes_body(found.changes),
        "message": "; ".join(found.notes),
        "image": {"reference": image.reference, "digest": image.digest, "here": image.here},
        "plan": _plan_body(found.rehearsal, found.strategy),
    }
    response = json_response(body)
    if previous is not None:
        response.headers.update(etag(previous.number))
    return response


def _plan_body(rehearsal: Rehearsal, strategy: str) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "steps": [_step_body(step) for step in rehearsal.steps],
        "holds": [_hold_body(hold) for hold in rehearsal.holds],
        "waits_for": rehearsal.waits_for,
        "lowest_ready": rehearsal.lowest_ready,
        "reaches_goal": rehearsal.reaches_goal,
        "complete": rehearsal.settled,
    }


def _step_body(step: Step) -> dict[str, Any]:
    place = step.placement
    return {
        "kind": step.kind,
        "reason": step.reason,
        "revision": step.revision or None,
        "slot": step.slot,
        "replica_id": step.replica_id,
        "node": place and place.node,
        "gpu_uuids": [] if place is None else list(place.gpu_uuids),
    }


def _hold_body(hold: Hold) -> dict[str, Any]:
    return {
        "revision": hold.revision,
        "slot": hold.slot,
        "kind": hold.kind,
        "reason": hold.reason,
        "details": list(hold.details),
    }
