"""What happened and why, in words that API, CLI and log share; and the audit record."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

OWN_PRINCIPAL = "prsmd"


class Severity(enum.StrEnum):
    """How much an event should worry an operator."""

    NORMAL = "normal"
    WARNING = "warning"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to a deployment. `reason` is one CamelCase word, stable for scripts.

    `sequence` is assigned by the store (0 before). `at` is seconds since the epoch.
    """

    deployment_id: str
    organization: str
    reason: str
    message: str
    at: float
    severity: Severity = Severity.NORMAL
    replica_id: str | None = None
    sequence: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One mutation, allowed or denied. `subject` is what it was done to; never holds a secret.

    Of inferences there are such records too, in a log of their own. `sequence`, `salt`, `hash` and
    `size` (bytes of its text) are assigned by the store (core/chain.py); they are empty before.
    `address` is where the request came from: an IP address, or `unix:uid=UID,pid=PID`; empty for
    what nobody asked for, and in records of releases that did not note it.
    """

    at: float
    principal: str
    organization: str
    action: str
    subject: str
    outcome: str
    request_id: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    address: str = ""
    sequence: int = 0
    salt: str = ""
    hash: str = ""
    size: int = 0


def own_record(
    at: float,
    organization: str,
    action: str,
    subject: str,
    details: Mapping[str, Any],
    outcome: str = "allowed",
) -> AuditRecord:
    """Return the record of what prsmd did by itself, with nobody asking just then."""
    return AuditRecord(
        at=at,
        principal=OWN_PRINCIPAL,
        organization=organization,
        action=action,
        subject=subject,
        outcome=outcome,
        request_id="",
        details=details,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which audit records are wanted; None: any.

    `since` (included) and `until` (not) are seconds since the epoch, `before` is a sequence. A text
    that ends in `*` is the beginning of what is wanted.
    """

    since: float | None = None
    until: float | None = None
    principal: str | None = None
    organization: str | None = None
    action: str | None = None
    subject: str | None = None
    outcome: str | None = None
    before: int | None = None
