"""The audit logs: query, follow, verify, export, and the keys that vouch for them."""

import contextlib
import functools
import logging
import re
from typing import Any

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.requests import moment, refuse_unknown, whole
from prsmd.api.respond import json_response, rfc3339
from prsmd.api.streams import (
    EncodedEvents,
    encoded_event,
    followed_stream,
    held_stream,
    streamed_file,
    wants_stream,
)
from prsmd.core.chain import Head, Verdict
from prsmd.domain.access import Permission
from prsmd.domain.errors import InvalidInputError
from prsmd.domain.events import AuditFilter, AuditRecord
from prsmd.service.audit import COUNTED
from prsmd.service.caller import Caller

log = logging.getLogger("prsmd.access")
_MOST_SEQUENCE_DIGITS = 18
_ENCODED = EncodedEvents()
_LONGEST_TEXT = 200
_HASH = re.compile("[0-9a-f]{64}")
_TEXTS = {
    "principal": "who did it; a * at the end stands for anything, here and below",
    "action": "what was done, such as models.deploy or models.*",
    "subject": "what it was done to",
    "outcome": "allowed or denied; of inferences, how they ended",
    "organization": "whose records, for administrators",
}
_LOG = {"log": "changes, denials or inferences; by default changes, or denials for outcome=denied"}
_SINCE = {"since": "from this moment on"}
_PAGE = {"limit": "how many, 1 to 100 (20)", "offset": "how many to leave out (0)"}
PAGE_QUERY = {
    **_LOG,
    **_SINCE,
    "until": "before this moment",
    **_TEXTS,
    **_PAGE,
    "before": "only records before the one of this sequence: pages on without counting",
    "after": "when following: after the record of this sequence",
}
VERIFY_QUERY = {
    **_LOG,
    "sequence": "with hash: a record of which a copy is kept elsewhere; the log must have it",
    "hash": "its hash, as an export, a checkpoint or an earlier answer has it",
}
EXPORT_QUERY = {
    **_LOG,
    "organization": "only this one's records, those of others as digests",
    "since": "from the last checkpoint before this moment on",
}


async def page(services: Services, request: web.Request, caller: Caller) -> web.StreamResponse:
    """List records, newest first; as an event stream it follows."""
    refuse_unknown(request, *PAGE_QUERY)
    wanted = _filter(request)
    if wants_stream(request):
        return await _follow(services, request, caller, wanted)
    limit = whole(request, "limit", 20, low=1, high=100)
    offset = whole(request, "offset", 0, low=0, high=10**9)
    found, total = await services.audit.page(caller, _log(request), wanted, limit, offset)
    return json_response(
        {
            "records": [record_body(record) for record in found],
            "total": total,
            "total_exact": total < offset + COUNTED,
            "limit": limit,
            "offset": offset,
            "has_more": offset + len(found) < total,
        }
    )


async def verify(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer whether the log is whole, and the first record that is not as it was written."""
    refuse_unknown(request, *VERIFY_QUERY)
    verdict = await services.audit.verify(caller, _log(request), _kept(request))
    return json_response(verdict_body(verdict))


async def export(services: Services, request: web.Request, caller: Caller) -> web.StreamResponse:
    """Send the log as JSON lines that prove themselves with nothing but the public key."""
    refuse_unknown(request, *EXPORT_QUERY)
    name, since = _log(request), moment(request, "since")
    async with (
        held_stream(request, caller),
        contextlib.aclosing(
            services.audit.export(caller, name, _text(request, "organization"), since)
        ) as lines,
    ):
        first = await anext(lines)  # errors come before the stream begins
        response = await streamed_file(
            request,
            {
                "Content-Type": "application/x-ndjson",
                "Content-Disposition": f'attachment; filename="audit-{name}.jsonl"',
                "Cache-Control": "no-store",
            },
        )
        await response.write(first)
        async for chunk in lines:
            await response.write(chunk)
    await response.write_eof()
    return response


async def public_key(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer the keys that signed, newest first, as PEM."""
    refuse_unknown(request)
    return json_response({"public_keys": services.audit.public_keys(caller).decode("ascii")})


def record_body(record: AuditRecord) -> dict[str, Any]:
    """Return a record as the API shows it."""
    return {
        "sequence": record.sequence,
        "at": rfc3339(record.at),
        "principal": record.principal,
        "organization": record.organization,
        "action": record.action,
        "subject": record.subject,
        "outcome": record.outcome,
        "request_id": record.request_id,
        "address": record.address,
        "details": record.details,
        "hash": record.hash,
    }


def verdict_body(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as the API shows it."""
    problem = verdict.problem
    return {
        "whole": problem is None,
        "log": verdict.log,
        "records": verdict.records,
        "first": verdict.first,
        "last": verdict.last,
        "hash": verdict.head,
        "checkpoints": verdict.checkpoints,
        "signed_through": verdict.proven,
        "problem": problem
        and {
            "kind": problem.kind.value,
            "sequence": problem.sequence,
            "message": problem.message,
        },
    }


async def _follow(
    services: Services, request: web.Request, caller: Caller, wanted: AuditFilter
) -> web.StreamResponse:
    name, after = _log(request), _after(request)
    services.audit.require(caller, name)  # errors come before the stream begins
    async with (
        followed_stream(request, caller) as response,
        contextlib.aclosing(services.audit.follow(caller, name, wanted, after)) as stream,
    ):
        async for record in stream:
            key = (name, record.sequence, record.hash)
            await response.write(_ENCODED.of(key, functools.partial(_encoded, record)))
    return response


def _encoded(record: AuditRecord) -> bytes:
    return encoded_event("audit", record_body(record), record.sequence)


def _after(request: web.Request) -> int | None:
    return _sequence("after", request.headers.get("Last-Event-ID") or request.query.get("after"))


def _sequence(name: str, given: str | None) -> int | None:
    if given is None:
        return None
    digits = given.isascii() and given.isdecimal()
    if not digits or len(given) > _MOST_SEQUENCE_DIGITS:
        raise InvalidInputError.field(name, "must be the sequence of a record", given[:50])
    return int(given)


def _filter(request: web.Request) -> AuditFilter:
    return AuditFilter(
        since=moment(request, "since"),
        until=moment(request, "until"),
        before=_sequence("before", request.query.get("before")),
        **{name: _text(request, name) for name in _TEXTS},
    )


def _kept(request: web.Request) -> Head | None:
    """Return the place that the log must have."""
    sequence, hashed = request.query.get("sequence"), request.query.get("hash")
    if sequence is None and hashed is None:
        return None
    if sequence is None or hashed is None:
        missing = "sequence" if sequence is None else "hash"
        raise InvalidInputError.field(missing, "sequence and hash belong together")
    if not (sequence.isascii() and sequence.isdecimal()) or len(sequence) > _MOST_SEQUENCE_DIGITS:
        raise InvalidInputError.field("sequence", "must be that of a record", sequence[:50])
    if not _HASH.fullmatch(hashed):
        raise InvalidInputError.field("hash", "must be 64 hexadecimal digits", hashed[:80])
    return Head(int(sequence), hashed)


def _log(request: web.Request) -> str:
    default = "denials" if request.query.get("outcome") == "denied" else "changes"
    return request.query.get("log", default)


def _text(request: web.Request, name: str) -> str | None:
    found = request.query.get(name)
    if found is not None and not 0 < len(found) <= _LONGEST_TEXT:
        problem = f"must be 1 to {_LONGEST_TEXT} characters"
        raise InvalidInputError.field(name, problem, found[:50])
    return found


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/audit",
        handler=page,
        summary="List what was done, by whom, allowed or denied",
        permission=Permission.AUDIT_READ,
        query=PAGE_QUERY,
        streams=True,
    ),
    Operation(
        method="GET",
        path="/v1/audit/verify",
        handler=verify,
        summary="Verify that no audit record was changed or removed",
        permission=Permission.AUDIT_READ,
        query=VERIFY_QUERY,
    ),
    Operation(
        method="GET",
        path="/v1/audit/export",
        handler=export,
        summary="Export the audit, provable elsewhere",
        permission=Permission.AUDIT_READ,
        query=EXPORT_QUERY,
        answers="application/x-ndjson",
        streams=True,
    ),
    Operation(
        method="GET",
        path="/v1/audit/public-key",
        handler=public_key,
        summary="The public keys that audit exports are verified with",
        permission=Permission.AUDIT_READ,
    ),
)
