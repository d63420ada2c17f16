"""Inference: the same admission, pools and protocols as any other door to the data path."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from prsmd.api.identity import note_left
from prsmd.api.inference_body import inference_members
from prsmd.api.operations import REQUEST_ID, Operation, Services
from prsmd.api.request_body import HOLDING, SMALL_BYTES, keep_views, refuse_coded
from prsmd.api.request_heads import SingleHeaders
from prsmd.api.requests import PAGE_QUERY, page_body, page_of, refuse_unknown
from prsmd.api.respond import json_response, json_text, rounded
from prsmd.api.schemas import InferBody
from prsmd.api.shares import borrowed_body
from prsmd.api.streams import event_stream, held_stream, wants_stream
from prsmd.domain.access import Permission
from prsmd.gateway.infer import Inference, InferenceStream
from prsmd.gateway.meters import Held
from prsmd.gateway.segments import Segments
from prsmd.service.caller import Caller
from prsmd.service.shares import Lent
from prsmd.service.status import Report


async def infer(services: Services, request: web.Request, caller: Caller) -> web.StreamResponse:
    """Answer a model's outputs, or its event stream when asked for one."""
    if not wants_stream(request):
        return await _infer(services, request, caller)
    async with held_stream(request, caller):
        return await _infer(services, request, caller)


async def _infer(services: Services, request: web.Request, caller: Caller) -> web.StreamResponse:
    asked = Inference(
        inputs=b"null",
        request_id=request[REQUEST_ID],
        stream=wants_stream(request),
        client=caller.principal.id,
        organization=caller.principal.organization,
        address=caller.address,
        holding=request[HOLDING],
    )
    counted: list[Held] = []

    async def complete(held: Sequence[Held], inference: Inference) -> Inference:
        counted.extend(held)
        refuse_unknown(request)
        refuse_coded(request)
        inputs, parameters = await inference_members(request, services.turns)
        return dataclasses.replace(inference, inputs=inputs, parameters=parameters)

    try:
        route, result = await services.inferences.infer(
            caller, request.match_info["model_id"], asked, SingleHeaders(request), complete
        )
    finally:
        note_left(request, counted)
    if result.stream is not None:
        return await _relay(request, result.stream)
    metadata = {
        "inference_time_ms": rounded(result.inference_time_ms),
        "model_version": result.model_version,
    }
    if not caller.borrows(route.organization):
        metadata["replica_id"] = result.replica_id
    keep_views(request, result.outputs)
    return _answer(route.model_id, result.outputs, metadata)


def _answer(model_id: str, outputs: memoryview, metadata: Mapping[str, Any]) -> web.Response:
    """Return the answer, with the model's outputs in it as the model wrote them."""
    before = b'{"model_id":%s,"outputs":' % json_text(model_id)
    parts = (before, outputs, b',"metadata":%s}' % json_text(metadata))
    body = b"".join(parts) if len(outputs) <= SMALL_BYTES else Segments(parts)
    return web.Response(body=body, content_type="application/json")


async def models(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """List what the caller may infer."""
    wanted = page_of(request)
    reports, total = await services.status.page(caller, wanted, Permission.MODELS_INFER)
    lent = await services.shares.borrowed(caller, [report.deployment for report in reports])
    shown = [_model(report, lent.get(report.deployment.id)) for report in reports]
    return json_response(page_body("models", shown, wanted, total))


def _model(report: Report, lent: Lent | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model_id": report.deployment.model_id,
        "deployment_id": report.deployment.id,
        "model_name": report.deployment.model_name,
        "organization": report.deployment.organization,
        "model_type": report.revision.spec.model_type,
        "version": report.revision.spec.metadata.version,
        "status": report.view.status.value,
        "ready_replicas": report.view.ready_replicas,
    }
    return body if lent is None else {**body, "share": borrowed_body(lent)}


async def _relay(request: web.Request, stream: InferenceStream) -> web.StreamResponse:
    async with stream:
        response = await event_stream(request)
        async for chunk in stream:
            await response.write(chunk)
    await response.write_eof()
    return response


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/models/{model_id}/infer",
        handler=infer,
        summary="Infer with a model",
        permission=Permission.MODELS_INFER,
        body=InferBody,
        body_bytes=None,
        streams=True,
        counts_itself=True,
    ),
    Operation(
        method="GET",
        path="/v1/models",
        handler=models,
        summary="List the models the caller may infer with",
        permission=Permission.MODELS_INFER,
        query=PAGE_QUERY,
    ),
)
