"""The OpenAPI document, made from the same table that routes requests."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from prsmd import __version__
from prsmd.api import patterns
from prsmd.api.operations import OpenOperation, Operation, Services
from prsmd.api.requests import refuse_unknown
from prsmd.domain.access import ROLES, Permission
from prsmd.service.belonging import HEADER
from prsmd.service.caller import Caller, require_own

_PARAMETER = re.compile(r"{(\w+)}")


async def document(_services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer the description of every route."""
    refuse_unknown(request)
    require_own(caller, Permission.NODE_READ)
    body = await request.app[DOCUMENT].body()
    return web.Response(body=body, content_type="application/json")


class Document:
    """The document as it is sent. Making it takes a quarter of a second: once, in a thread."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make
        self._making: asyncio.Task[bytes] | None = None

    async def body(self) -> bytes:
        """Return it, made by whoever asks first. That one may stop waiting: the others get it."""
        if self._making is None or _failed(self._making):
            self._making = asyncio.create_task(asyncio.to_thread(self._text), name="openapi")
        return await asyncio.shield(self._making)

    def _text(self) -> bytes:
        return json.dumps(self._make(), ensure_ascii=False, separators=(",", ":")).encode()


DOCUMENT = web.AppKey("openapi_document", Document)


def _failed(task: asyncio.Task[bytes]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def describe(table: Sequence[Operation], opened: Sequence[OpenOperation]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a route table."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for operation in table:
        entry = _operation(operation, schemas)
        paths.setdefault(operation.path, {})[operation.method.lower()] = entry
    for probe in opened:
        paths[probe.path] = {"get": _open_operation(probe)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "prsmd Custom Model Deployment API",
            "version": __version__,
            "description": "A role is a set of permissions; `x-permission` is what a call needs.",
        },
        "x-roles": {role: sorted(granted) for role, granted in ROLES.items()},
        "x-permissions": [permission.value for permission in Permission],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{"bearer": []}, {"key": []}, {}],
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in operation.query.items()
    ]
    parameters.append(_ORGANIZATION)
    if operation.answer is not None:
        parameters.append(_IDEMPOTENCY_KEY)
    if operation.conditional:
        parameters.append(_IF_MATCH)
    if operation.rehearsal is not None:
        parameters.append(_DRY_RUN)
    entry: dict[str, Any] = {
        "operationId": f"{operation.handler.__module__.rsplit('.', 1)[-1]}_"
        f"{operation.handler.__name__}",
        "summary": operation.summary,
        "description": (operation.handler.__doc__ or "").strip(),
        "parameters": parameters,
        "responses": _responses(operation),
    }
    if operation.permission is not None:
        entry["x-permission"] = operation.permission.value
    if operation.uploads:
        archive = {"schema": {"type": "string", "format": "binary"}}
        entry["requestBody"] = {"required": True, "content": {"application/x-tar": archive}}
    if operation.body is not None:
        schema = operation.body.model_json_schema(ref_template="#/components/schemas/{model}")
        _drop_null_defaults(schema)
        schemas.update(schema.pop("$defs", {}))
        schemas[operation.body.__name__] = schema
        reference = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
        content = {"application/json": {"schema": reference}}
        entry["requestBody"] = {"required": not operation.body_optional, "content": content}
    return entry


def _drop_null_defaults(schema: Any) -> None:
    """Drop `default: null`: what is left out is left out, and no client has to send it."""
    inner = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict) and schema.get("default", ...) is None:
        del schema["default"]
    for each in [value for value in inner if isinstance(value, dict | list)]:
        _drop_null_defaults(each)


def _open_operation(probe: OpenOperation) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": f"monitoring_{probe.handler.__name__}",
        "summary": probe.summary,
        "description": (probe.handler.__doc__ or "").strip(),
        "security": [],
        "parameters": [],
        "responses": {
            "200": {"description": "Yes", "content": content},
            "503": {"description": "No", "content": content},
        },
    }


def _responses(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {operation.answers: {"schema": _ANSWERS[operation.answers]}}
    if operation.streams and operation.answers == "application/json":
        content[operation.streams_as] = {"schema": {"type": "string"}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "2XX": {"description": operation.summary, "content": content},
        "4XX": {"description": "Refused; the error says why", "content": error},
        "5XX": {"description": "Failed; the error says why", "content": error},
    }


_ORGANIZATION = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "For which organization this is, of those that the caller belongs to",
    "schema": {"type": "string", "pattern": patterns.ORGANIZATION},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeating the request with the same key gets the first answer for 24 hours",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "required": False,
    "description": "true: do nothing, and answer 200 with what would be done",
    "schema": {"type": "boolean", "default": False},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of the model as last seen: 412 if it is at another revision by now",
    "schema": {"type": "string"},
}
_ANSWERS = {
    "application/json": {"type": "object"},
    "application/x-ndjson": {"type": "string"},
    "text/plain": {"type": "string"},
}
_ERROR = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "message": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["code", "message", "details", "request_id", "timestamp"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object"},
                "request_id": {"type": "string"},
                "timestamp": {"type": "string", "format": "date-time"},
            },
        },
    },
}
OPERATIONS = (
    Operation(
        method="GET",
        path="/openapi.json",
        handler=document,
        summary="This API, described",
        permission=Permission.NODE_READ,
    ),
)
