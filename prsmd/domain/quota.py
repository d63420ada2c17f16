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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What `organization` gives of a deployment to organizations, or to single keys (their ids)."""

    id: str
    deployment_id: str
    organization: str
    organizations: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    permissions: frozenset[Permission]
    limits: UsageLimits = UsageLimits()
    expires_at: float | None = None

    def reaches(self, principal: Principal) -> bool:
        """Tell whether it was given to this principal, or to the organization it acts for."""
        return principal.organization in self.organizations or principal.key_id in self.keys
