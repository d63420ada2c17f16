"""The audit as frozen values. Times are RFC 3339 text as sent."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .wire import Wire, one

_value = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)


@_value
class AuditRecord(Wire):
    """What was done, or tried. `subject` is what it was done to; `hash` chains it to the last.

    `address` is where the request came from: an IP address, `unix:uid=UID,pid=PID`, or empty.
    """

    sequence: int
    at: str = ""
    principal: str = ""
    organization: str = ""
    action: str = ""
    subject: str = ""
    outcome: str = ""
    request_id: str = ""
    address: str = ""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hash: str = ""


@_value
class AuditProblem(Wire):
    """The first thing wrong with a log. `kind`: altered, missing, reordered, truncated, forged."""

    kind: str
    sequence: int = 0
    message: str = ""


@_value
class AuditVerdict(Wire):
    """Whether a log is as it was written. `signed_through` is the last record that is signed."""

    whole: bool
    log: str = ""
    records: int = 0
    first: int = 0
    last: int = 0
    hash: str = ""
    checkpoints: int = 0
    signed_through: int = 0
    problem: AuditProblem | None = one(AuditProblem)


@_value
class PublicKeys(Wire):
    """The keys that signed, newest first, as PEM."""

    public_keys: str
