"""Shares: what an organization lets others do with a model of its own, and how much of it."""

import dataclasses

from .access import Permission, Principal


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UsageLimits:
    """How much may be used; None: no bound. All are numbers of requests."""

    requests_per_day: int | None = None
    total_requests: int | None = None
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None

    @property
    def bounded(self) -> bool:
        """Tell whether there is any bound."""
        return not (
            self.requests_per_day is None
            and self.total_requests is None
            and self.requests_per_minute is None
            and self.concurrent_requests is None
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What `organization` gives of a deployment to organizations, or to single keys (their ids).

    The limits hold for each of them by itself. Times are seconds since the epoch.
    """

    id: str
    deployment_id: str
    organization: str
    organizations: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    permissions: frozenset[Permission]
    limits: UsageLimits = UsageLimits()
    expires_at: float | None = None
    created_at: float = 0.0
    created_by: str = ""
    updated_at: float = 0.0

    def reaches(self, principal: Principal) -> bool:
        """Tell whether it was given to this principal, or to the organization it acts for."""
        return principal.organization in self.organizations or principal.key_id in self.keys

    def account(self, principal: Principal) -> str:
        """Return what is counted together: the key's own use, or all of its organization's."""
        if self.keys and principal.key_id in self.keys:
            return self.account_of(principal.id)
        return self.account_of(principal.organization)

    def account_of(self, borrower: str) -> str:
        """Return what counts together for an organization's name, or for a key's principal id."""
        return f"{self.id}/{borrower}"

    def in_force(self, now: float) -> bool:
        """Tell whether it has not expired."""
        return self.expires_at is None or now < self.expires_at


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How much a principal of an organization used a model on a day (days since the epoch, UTC).

    `requests` reached a container, and `errors` of them failed there; `refused` did not reach one.
    """

    day: int
    deployment_id: str
    organization: str
    principal: str
    owner: str
    model_id: str
    requests: int = 0
    errors: int = 0
    refused: int = 0
    seconds: float = 0.0
    request_bytes: int = 0
    answer_bytes: int = 0
