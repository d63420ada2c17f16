"""Calls about the audit: query, follow, verify, export. As in `calls`, sends nothing itself.

`log` is `changes`, `denials` or `inferences`; None: changes, or denials where they are asked for by
their outcome. A text filter that ends in `*` is how what is meant begins.
"""

from collections.abc import Mapping
from typing import Any

from .audit_models import AuditRecord, AuditVerdict, PublicKeys
from .calls import Call, Follow, window
from .wire import Page, page_of

_PATH = "/v1/audit"
_VERIFY_TIMEOUT = 3600.0  # a log can be millions of records long


def records(
    log: str | None = None,
    filters: Mapping[str, str | float | None] | None = None,
    limit: int = 20,
    offset: int = 0,
) -> Call[Page[AuditRecord]]:
    """List records, newest first, at most 100 at a time.

    `filters`: since, until (epoch seconds or times), principal, action, subject, outcome,
    organization, and before: the sequence of a record, which pages on without counting.
    """
    return Call(
        method="GET",
        path=_PATH,
        decode=page_of(("records",), AuditRecord.decode),
        query={**_given({"log": log, **(filters or {})}), **window(limit, offset)},
    )


def follow_records(
    log: str | None = None,
    filters: Mapping[str, str | float | None] | None = None,
    after: int | None = None,
) -> Follow[AuditRecord]:
    """Follow records as they are written, from after the one of this sequence."""
    return Follow(
        path=_PATH,
        event="audit",
        decode=AuditRecord.decode,
        query=_given({"log": log, **(filters or {})}),
        resumable=True,
        last_event_id="" if after is None else str(after),
    )


def verify(
    log: str | None = None, sequence: int | None = None, hashed: str | None = None
) -> Call[AuditVerdict]:
    """Have the daemon verify its log.

    `sequence` and `hashed` are a record of which a copy is kept elsewhere: the log must have it.
    """
    return Call(
        method="GET",
        path=f"{_PATH}/verify",
        decode=AuditVerdict.decode,
        query=_given({"log": log, "sequence": sequence, "hash": hashed}),
        timeout=_VERIFY_TIMEOUT,
    )


def export(
    log: str | None = None, organization: str | None = None, since: str | float | None = None
) -> Call[Any]:
    """Return the call whose answer is downloaded: JSON lines that prove themselves."""
    query = _given({"log": log, "organization": organization, "since": since})
    return Call(method="GET", path=f"{_PATH}/export", decode=lambda data: data, query=query)


def public_keys() -> Call[PublicKeys]:
    """Return the keys that exports are verified with."""
    return Call(method="GET", path=f"{_PATH}/public-key", decode=PublicKeys.decode)


def _given(values: Mapping[str, str | float | None]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}
