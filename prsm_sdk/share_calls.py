"""Calls about shares and usage, and what they answer. As in `calls`, sends nothing itself."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .calls import Call, fresh_key, segment, window
from .wire import Page, Wire, many, page_of, strings

_value = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)


@_value
class Left(Wire):
    """What is left of one limit. `reset_time` is in epoch seconds; None: it does not come back."""

    limit_type: str = ""
    limit: int = 0
    remaining: int = 0
    reset_time: int | None = None


@_value
class BorrowerLeft(Wire):
    """What is left to one borrower: an organization's name, or a key's id."""

    borrower: str
    left: tuple[Left, ...] = many(Left)


@_value
class Share(Wire):
    """A model that was lent. `usage_limits` hold for each borrower by itself; None: no bound."""

    share_id: str
    model_id: str = ""
    deployment_id: str = ""
    share_type: str = "organization"
    status: str = ""
    permissions: tuple[str, ...] = strings()
    allowed_organizations: tuple[str, ...] = strings()
    allowed_keys: tuple[str, ...] = strings()
    usage_limits: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    expires_at: str | None = None
    created_at: str | None = None
    created_by: str = ""
    updated_at: str | None = None
    borrowers: tuple[BorrowerLeft, ...] = many(BorrowerLeft)


@_value
class DayUsage(Wire):
    """How much a principal used a model on a day (UTC).

    `requests` reached a container and `errors` of them failed there; `refused` reached none.
    """

    day: str
    organization: str = ""
    principal: str = ""
    key_id: str | None = None
    model_id: str = ""
    requests: int = 0
    errors: int = 0
    refused: int = 0
    duration_seconds: float = 0.0
    request_bytes: int = 0
    answer_bytes: int = 0


def share(
    model: str,
    permissions: Sequence[str],
    borrowers: Mapping[str, Sequence[str]],
    usage_limits: Mapping[str, int] | None = None,
    expires_at: str | None = None,
) -> Call[Share]:
    """Lend a model. `borrowers` are `organizations` or `keys`."""
    kind = "key" if borrowers.get("keys") else "organization"
    body: dict[str, Any] = {
        "share_type": kind,
        "permissions": list(permissions),
        f"allowed_{kind}s": list(borrowers.get(f"{kind}s", ())),
        "usage_limits": dict(usage_limits or {}),
    }
    return Call(
        method="POST",
        path=f"/v1/custom-models/{segment(model)}/share",
        decode=Share.decode,
        body=body | ({} if expires_at is None else {"expires_at": expires_at}),
        idempotency_key=fresh_key(),
    )


def list_shares(model: str, limit: int = 20, offset: int = 0) -> Call[Page[Share]]:
    """List the shares of a model, oldest first, with what is left of each."""
    return Call(
        method="GET",
        path=f"/v1/custom-models/{segment(model)}/shares",
        decode=page_of(("shares",), Share.decode),
        query=window(limit, offset),
    )


def change_share(model: str, share_id: str, changes: Mapping[str, Any]) -> Call[Share]:
    """Change what is given; None lifts a limit or an end."""
    return Call(
        method="PATCH",
        path=_path(model, share_id),
        decode=Share.decode,
        body=dict(changes),
        idempotency_key=fresh_key(),
    )


def revoke_share(model: str, share_id: str) -> Call[Share]:
    """Take a model back."""
    return Call(
        method="DELETE",
        path=_path(model, share_id),
        decode=Share.decode,
        idempotency_key=fresh_key(),
    )


def usage(
    model: str,
    first: str | None = None,
    last: str | None = None,
    limit: int = 100,
    offset: int = 0,
) -> Call[Page[DayUsage]]:
    """Return who used a model, newest day first; `first` and `last` are days as 2026-01-01."""
    days = {"from": first, "to": last}
    return Call(
        method="GET",
        path=f"/v1/custom-models/{segment(model)}/usage",
        decode=page_of(("usage",), DayUsage.decode),
        query={
            **{name: day for name, day in days.items() if day is not None},
            **window(limit, offset),
        },
    )


def _path(model: str, share_id: str) -> str:
    return f"/v1/custom-models/{segment(model)}/shares/{segment(share_id)}"
