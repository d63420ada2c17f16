"""How operations that change something are answered: once by the change, then from what was stored.

Reads `Idempotency-Key` and compares requests; what is stored, and when, the use cases decide.
"""

import dataclasses
import functools
import re

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.permission import require_permission
from prsmd.api.request_body import content, refuse_coded
from prsmd.api.requests import dry_run
from prsmd.api.respond import json_response
from prsmd.domain.errors import InvalidInputError, PrsmdError
from prsmd.service.authorization import may_ask
from prsmd.service.belonging import HEADER as ORGANIZATION
from prsmd.service.caller import Caller
from prsmd.service.idempotency import Answer, Once

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


async def carry_out(
    operation: Operation, services: Services, request: web.Request, caller: Caller
) -> web.StreamResponse:
    """Answer a request to an operation with an `answer`. A dry run has no use for a key.

    The body is looked at only once the caller may have the operation, or the answer it had before.
    """
    try:
        rehearsal = operation.rehearsal if operation.rehearsal and dry_run(request) else None
        key = None if rehearsal else _key(request)
    except InvalidInputError:
        if not may_ask(caller, operation.permission):  # who may not is told that, and no more
            await require_permission(operation, services, request, caller)
        raise
    if rehearsal is not None:
        await require_permission(operation, services, request, caller)
        refuse_coded(request)
        told: web.StreamResponse = await rehearsal(services, request, caller)
        return told
    await _require_permission(operation, services, request, caller, key)
    refuse_coded(request)
    once = await _once(operation, services, request, key)
    subject = f"{request.method} {request.path}"[:200]
    stored = await services.answers.first(caller, once, subject)
    if stored is not None:
        return _replay(stored)
    try:
        await operation.handler(services, request, dataclasses.replace(caller, once=once))
    except PrsmdError:
        # A twin of this request may have been done meanwhile, and be why this one was refused.
        stored = await services.answers.first(caller, once, subject)
        if stored is None:
            raise
        return _replay(stored)
    if once.answer is not None:
        return _response(once.answer)
    raise RuntimeError(f"{operation.method} {operation.path} did not remember its answer")


async def _require_permission(
    operation: Operation, services: Services, request: web.Request, caller: Caller, key: str | None
) -> None:
    """Return if the caller may, or has had an answer with this key: what it tells of may be gone.

    Whether the answer is given again is decided with the body at hand.
    """
    if key is not None and await services.answers.has(caller, key):
        return
    try:
        await require_permission(operation, services, request, caller)
    except PrsmdError:
        # A twin of this request may have been done meanwhile, and be why this one was refused.
        if key is None or not await services.answers.has(caller, key):
            raise


async def _once(
    operation: Operation, services: Services, request: web.Request, key: str | None
) -> Once:
    assert operation.answer is not None  # noqa: S101 - only such operations come here
    render = functools.partial(operation.answer, services)
    if key is None:
        return Once(render)
    return Once(render, key, services.answers.fingerprint(await _essence(operation, request)))


def _key(request: web.Request) -> str | None:
    given = request.headers.getall(HEADER, [])
    if not given:
        return None
    if len(given) > 1:
        raise InvalidInputError.field(HEADER, "must be given once")
    if not _KEY.fullmatch(given[0]):
        raise InvalidInputError.field(HEADER, "must be 1 to 255 printable ASCII characters")
    return given[0]


async def _essence(operation: Operation, request: web.Request) -> bytes:
    """Return what is equal for equal requests: of an upload, only the length is looked at."""
    body = await content(request) if not operation.uploads else b"%d" % _length(request)
    named = request.headers.getall(ORGANIZATION, [])  # for another one it is another request
    where = "\n".join([request.raw_path, *named])
    head = f"{request.method} {where}\n".encode(errors="surrogateescape")
    return head + body


def _length(request: web.Request) -> int:
    return -1 if request.content_length is None else request.content_length


def _replay(stored: Answer) -> web.Response:
    response = _response(stored)
    response.headers[REPLAYED] = "true"
    return response


def _response(answer: Answer) -> web.Response:
    response = json_response({**answer.first, **answer.body}, answer.status)
    response.headers.update(answer.headers)
    return response
