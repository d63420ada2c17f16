"""Bodies of the requests about shares."""

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from prsmd.api.patch import PatchBody, absent
from prsmd.api.schemas import Body
from prsmd.domain.quota import UsageLimits
from prsmd.service.shares import SHAREABLE, ShareRequest

_MOST_BORROWERS = 100


def _moment(value: object) -> float | None:
    if value is None:
        return None
    try:
        at = dt.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not 1970 <= at.year < 3000:
        raise ValueError("must be a time such as 2026-01-01T00:00:00Z")
    return at.timestamp()


Amount = Annotated[int, Field(ge=1, le=10**12)]
Pace = Annotated[int, Field(ge=1, le=10**6)]
Moment = Annotated[
    float | None,
    BeforeValidator(_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
Borrower = Annotated[str, Field(min_length=1, max_length=63)]
Borrowers = Annotated[list[Borrower], Field(max_length=_MOST_BORROWERS)]
Permissions = Annotated[
    list[Literal["read", "infer", "logs", "usage"]], Field(min_length=1, max_length=4)
]


class UsageLimitsBody(Body):
    """How much each borrower may use; null: no bound."""

    requests_per_day: Amount | None = None
    total_requests: Amount | None = None
    requests_per_minute: Pace | None = None
    concurrent_requests: Pace | None = None


class UsageLimitsChangeBody(PatchBody):
    """Which limits change; null lifts one."""

    requests_per_day: Amount | None = absent()
    total_requests: Amount | None = absent()
    requests_per_minute: Pace | None = absent()
    concurrent_requests: Pace | None = absent()


class ShareBody(Body):
    """POST /v1/custom-models/{model_id}/share."""

    share_type: Literal["organization", "key"] = "organization"
    permissions: Permissions
    allowed_organizations: Borrowers = Field(default=[])
    allowed_keys: Borrowers = Field(default=[])
    usage_limits: UsageLimitsBody = UsageLimitsBody()
    expires_at: Moment = None

    @model_validator(mode="after")
    def _borrowers_of_its_type(self) -> "ShareBody":
        wanted, other = ("allowed_organizations", "allowed_keys")
        if self.share_type == "key":
            wanted, other = other, wanted
        if not getattr(self, wanted):
            raise ValueError(f"a share of type {self.share_type} needs {wanted}")
        if getattr(self, other):
            raise ValueError(f"a share of type {self.share_type} has no {other}")
        return self

    def request(self) -> ShareRequest:
        """Return what is asked for."""
        return ShareRequest(
            organizations=frozenset(self.allowed_organizations),
            keys=frozenset(self.allowed_keys),
            permissions=frozenset(SHAREABLE[name] for name in self.permissions),
            limits=UsageLimits(**self.usage_limits.model_dump()),
            expires_at=self.expires_at,
        )


class ShareChangeBody(PatchBody):
    """PATCH /v1/custom-models/{model_id}/shares/{share_id}: what is given changes, null: no bound.

    Limits change one by one.
    """

    permissions: Permissions = absent()
    allowed_organizations: Annotated[Borrowers, Field(min_length=1)] = absent()
    allowed_keys: Annotated[Borrowers, Field(min_length=1)] = absent()
    usage_limits: UsageLimitsChangeBody = absent()
    expires_at: Moment = absent()

    def changes(self) -> dict[str, Any]:
        """Return the fields of a share that change, and to what."""
        given = self.given()
        names = {"allowed_organizations": "organizations", "allowed_keys": "keys"}
        changes = {names[field]: frozenset(given[field]) for field in names.keys() & given.keys()}
        if "permissions" in given:
            changes["permissions"] = frozenset(SHAREABLE[name] for name in given["permissions"])
        if "expires_at" in given:
            changes["expires_at"] = given["expires_at"]
        return {**changes, "limits": given.get("usage_limits", {})}
