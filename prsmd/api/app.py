"""The aiohttp application: every route guarded alike, every error in the documented envelope."""

import asyncio
import functools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from prsmd.api import (
    audit,
    deployments,
    images,
    inference,
    keys,
    members,
    models,
    monitoring,
    node,
    openapi,
    organizations,
    registries,
    resource_quotas,
    revisions,
    roles,
    rollouts,
    secrets,
    shares,
    usage,
    versions,
)
from prsmd.api.connection_claims import CONNECTION_LIMITS, identify_connection
from prsmd.api.idempotency import carry_out
from prsmd.api.identity import DOOR, LEFT, Door, count, identify
from prsmd.api.operations import (
    OPERATION,
    REQUEST_ID,
    UNDERWAY,
    OpenHandler,
    Operation,
    Services,
)
from prsmd.api.origin import origin_of
from prsmd.api.permission import require_reading
from prsmd.api.request_body import (
    BODY_BYTES,
    CONTINUE,
    HOLDING,
    SMALL_BYTES,
    leaves_much_unread,
    let_go,
    send_whole,
)
from prsmd.api.request_heads import (
    AmbiguousHeadError,
    asks_to_upgrade,
    close_after,
    host_name,
    refuse_ambiguous_head,
)
from prsmd.api.respond import error_response, mark, new_request_id
from prsmd.api.streams import OPEN_STREAMS, STREAM, OpenStreams, StreamedAnswer
from prsmd.core.fair_queue import Asker
from prsmd.core.meter import Standing
from prsmd.domain.errors import (
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    PrsmdError,
    QuotaExceededError,
    RateLimitedError,
    RequestTooLargeError,
    TooManyOpenError,
)
from prsmd.service.access import Identified
from prsmd.service.belonging import ForeignOrganizationError
from prsmd.service.caller import Caller
from prsmd.service.underway import still_as_held
from prsmd.store.asking import asking_for

log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

OPERATIONS: Sequence[Operation] = (
    *deployments.OPERATIONS,
    *models.OPERATIONS,
    *revisions.OPERATIONS,
    *versions.OPERATIONS,
    *rollouts.OPERATIONS,
    *inference.OPERATIONS,
    *keys.OPERATIONS,
    *organizations.OPERATIONS,
    *resource_quotas.OPERATIONS,
    *roles.OPERATIONS,
    *members.OPERATIONS,
    *images.OPERATIONS,
    *registries.OPERATIONS,
    *secrets.OPERATIONS,
    *shares.OPERATIONS,
    *usage.OPERATIONS,
    *audit.OPERATIONS,
    *node.OPERATIONS,
    *monitoring.OPERATIONS,
    *openapi.OPERATIONS,
)


class MethodNotAllowedError(PrsmdError):
    """The path exists, but not with this method."""

    code = "METHOD_NOT_ALLOWED"
    status_hint = 405


def build(services: Services, door: Door) -> web.Application:
    """Return the application with every route of the table."""
    app = web.Application(middlewares=[_envelope(door)])
    for operation in OPERATIONS:
        handler = _guarded(operation, services, door)
        app.router.add_route(operation.method, operation.path, handler, expect_handler=_expected)
    for opened in monitoring.OPEN_OPERATIONS:
        handler = _opened(opened.handler, services)
        app.router.add_get(opened.path, handler, expect_handler=_expected)
    app.router.add_route("*", "/{nowhere:.*}", _nowhere, expect_handler=_expected)
    described = functools.partial(openapi.describe, OPERATIONS, monitoring.OPEN_OPERATIONS)
    app[openapi.DOCUMENT] = openapi.Document(described)
    app[DOOR] = door
    app[CONNECTION_LIMITS] = door.connection_limits
    app[OPEN_STREAMS] = OpenStreams(door.connection_limits)
    app[UNDERWAY] = door.underway
    app.on_response_prepare.append(_mark)
    app.on_cleanup.append(_finish_lines)
    return app


async def _finish_lines(app: web.Application) -> None:
    app[DOOR].lines.finish()


def _guarded(
    operation: Operation, services: Services, door: Door
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        request[OPERATION] = operation
        identified = await _identified(operation, request, door)
        principal = identified.principal
        identify_connection(request, principal)
        request[BODY_BYTES] = min(door.body_bytes, operation.most_body_bytes or door.body_bytes)
        request[HOLDING] = holding = services.memory.holding(principal.id, principal.organization)
        try:
            with asking_for(Asker(principal.organization, principal.id)):
                response = await _handled(operation, services, request, door, identified)
            if holding.size > SMALL_BYTES:
                await send_whole(request, response)
            return response
        finally:
            let_go(request)

    return handle


async def _identified(operation: Operation, request: web.Request, door: Door) -> Identified:
    """Return who calls. A key that names an organization of others is known, so that it counts."""
    try:
        return await identify(request, door, operation.needs)
    except ForeignOrganizationError as error:
        await count(request, door, error.principal)
        raise


async def _handled(
    operation: Operation,
    services: Services,
    request: web.Request,
    door: Door,
    identified: Identified,
) -> web.StreamResponse:
    """Return the operation's response; nothing of the body is looked at before it may be asked."""
    if not operation.counts_itself:
        await count(request, door, identified.principal)
    address = origin_of(request, door.proxies).address
    caller = Caller(
        identified.principal,
        request[REQUEST_ID],
        address=address,
        denials=door.denials,
        require_still=functools.partial(still_as_held, identified),
    )
    if operation.answer is not None and not operation.uploads:
        return await carry_out(operation, services, request, caller)
    async with door.underway.watch(identified):
        if operation.answer is not None:
            return await carry_out(operation, services, request, caller)
        if not operation.counts_itself:
            await require_reading(operation, services, request, caller)
        response: web.StreamResponse = await operation.handler(services, request, caller)
        return response


def _opened(
    handler: OpenHandler, services: Services
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(services, request)

    return handle


def _envelope(door: Door) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def envelope(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        began = time.perf_counter()
        request[REQUEST_ID] = _request_id(request)
        try:
            _check_head(request, door)
            response = await handler(request)
        except PrsmdError as error:
            response = await _refused(request, error, door)
            if isinstance(error, AmbiguousHeadError | TooManyOpenError):
                response.force_close()
        except web.HTTPException as error:
            response = await _refused(request, _translated(request, error), door)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("request failed", extra={"request_id": request[REQUEST_ID]})
            hidden = PrsmdError("Something failed here; see the log.")
            response = await _refused(request, hidden, door)
        if leaves_much_unread(request):
            close_after(response)
        door.lines.note(request, response.status, time.perf_counter() - began)
        return response

    return envelope


async def _refused(request: web.Request, error: PrsmdError, door: Door) -> web.StreamResponse:
    """Answer an error; a stream has its head sent already and can only be broken off."""
    begun: StreamedAnswer | None = request.get(STREAM)
    if isinstance(error, QuotaExceededError | RateLimitedError):
        of = error.details
        request[LEFT] = Standing(of["limit_type"], of["limit"], 0, of["reset_time"])
    _forget_frames(error)
    if begun is None:
        return error_response(request, error)
    door.lines.broke_off(request, error.message)
    await begun.break_off(request, error)
    return begun


def _forget_frames(error: BaseException) -> None:
    """Drop what an answered error was raised through: frames that hold it are a cycle with it."""
    told: BaseException | None = error
    while told is not None and told.__traceback__ is not None:
        told.__traceback__ = None
        told = told.__cause__ or told.__context__


def _translated(request: web.Request, error: web.HTTPException) -> PrsmdError:
    if error.status == 405:
        allowed = ", ".join(sorted(getattr(error, "allowed_methods", ())))
        return MethodNotAllowedError(f"{request.method} is not possible here; use {allowed}.")
    if error.status == 404:
        return NotFoundError("There is nothing at this path; see /openapi.json.")
    return InvalidInputError(error.reason)


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Answer a wrong `Expect`; aiohttp asks this before the middleware.

    Who waits for leave to send a body gets it when the body is read, and not before.
    """
    if request.headers["Expect"].lower() == CONTINUE:
        return None
    request[REQUEST_ID] = _request_id(request)
    response = error_response(request, InvalidInputError.field("Expect", "must be 100-continue"))
    close_after(response)  # nobody has looked at the rest of the head
    return response


async def _nowhere(request: web.Request) -> web.StreamResponse:
    """Refuse a path or method that is no route's: aiohttp's own way asks for a body first."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            allowed |= (await resource.resolve(request))[1]
    if allowed:
        raise web.HTTPMethodNotAllowed(request.method, allowed)
    raise web.HTTPNotFound


def _check_head(request: web.Request, door: Door) -> None:
    """Refuse what is too large or too old, proxy requests and, on TCP, names that are not ours."""
    if sum(len(name) + len(value) for name, value in request.raw_headers) > door.header_bytes:
        raise RequestTooLargeError(
            f"The headers are larger than the {door.header_bytes} bytes that this server accepts.",
            limit_bytes=door.header_bytes,
        )
    refuse_ambiguous_head(request)
    if not request.raw_path.startswith("/"):
        raise AmbiguousHeadError.field("request", "must name a path of this server, not a URL")
    if "#" in request.raw_path:
        raise AmbiguousHeadError.field("request", "must have no fragment: write %23 for a '#'")
    _check_host(request, door)


def _check_host(request: web.Request, door: Door) -> None:
    """Refuse foreign names, so that a browser cannot be rebound to this server, and our models.

    A container reaches its bridge's gateway, and so a daemon that listens on every address.
    """
    origin = origin_of(request, door.proxies)
    if origin.peer is not None:
        return
    if any(door.is_replica(address) for address in {origin.hop or "", origin.ip or ""}):
        raise PermissionDeniedError("A model's container may not call this API.")
    name = host_name(request)
    if name not in door.hosts:
        raise InvalidInputError.field(
            "Host", "is not a name of this server; add it to tcp.allowed_hosts", name[:100]
        )


def _request_id(request: web.Request) -> str:
    given = request.headers.get("X-Request-ID", "")
    return given if _REQUEST_ID.fullmatch(given) else new_request_id()


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    mark(response, request.get(REQUEST_ID, ""))
    if asks_to_upgrade(request):
        close_after(response)
    left = request.get(LEFT)
    if left is not None:
        response.headers["X-RateLimit-Limit"] = str(left.limit)
        response.headers["X-RateLimit-Remaining"] = str(left.remaining)
        if left.reset_time is not None:
            response.headers["X-RateLimit-Reset"] = str(left.reset_time)
