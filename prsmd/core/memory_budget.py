"""How many bytes may be held for callers at once: of each, of their organization and of all.

Decides and counts; what holds the bytes asks before it takes them in, and gives back when they are
gone. A holding that is refused keeps what it has.
"""

import dataclasses
import enum


class Share(enum.Enum):
    """Whose part of the budget is used up."""

    PRINCIPAL = "what one caller may have under way"
    ORGANIZATION = "what one organization may have under way"
    APPLIANCE = "what all callers together may have under way"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """Bytes that may be held at once; no part is larger than what it is a part of."""

    total: int
    per_organization: int
    per_principal: int


@dataclasses.dataclass(frozen=True, slots=True)
class Shortage:
    """Why a holding may not grow: of `limit` bytes, `held` are held, and `wanted` more were asked.

    `hopeless`: nothing that others give back would make room for it.
    """

    share: Share
    limit: int
    held: int
    wanted: int
    hopeless: bool

    @property
    def reason(self) -> str:
        """Return it in words."""
        if self.hopeless:
            return f"{self.wanted} bytes are more than the {self.limit} that are {self.share.value}"
        return (
            f"{self.held} of the {self.limit} bytes are held that are {self.share.value},"
            f" and {self.wanted} more are needed"
        )


class MemoryBudget:
    """What is held, by whom. `refused` counts the times that a holding could not grow."""

    def __init__(self, limits: MemoryLimits) -> None:
        self.limits = limits
        self.held = 0
        self.refused = 0
        self._principals: dict[str, int] = {}
        self._organizations: dict[str, int] = {}

    def holding(self, principal: str, organization: str) -> "Holding":
        """Return a holding of a principal of an organization, with nothing in it yet."""
        return Holding(self, principal, organization)

    def held_by(self, principal: str) -> int:
        """Return how many bytes are held for a principal."""
        return self._principals.get(principal, 0)

    def shortage(self, holding: "Holding", size: int) -> Shortage | None:
        """Return why a holding may not grow by `size` bytes; None: it may."""
        limits = self.limits
        for share, limit, held in (
            (Share.PRINCIPAL, limits.per_principal, self._principals.get(holding.principal, 0)),
            (
                Share.ORGANIZATION,
                limits.per_organization,
                self._organizations.get(holding.organization, 0),
            ),
            (Share.APPLIANCE, limits.total, self.held),
        ):
            if held + size > limit:
                return Shortage(share, limit, held, size, hopeless=holding.size + size > limit)
        return None

    def add(self, holding: "Holding", size: int) -> None:
        """Count bytes of a holding; a negative size gives them back."""
        self.held += size
        for sums, name in (
            (self._principals, holding.principal),
            (self._organizations, holding.organization),
        ):
            left = sums.get(name, 0) + size
            if left:
                sums[name] = left
            else:
                sums.pop(name, None)


class Holding:
    """The bytes that are held for one request. Grows in parts, and is released once and whole."""

    __slots__ = ("_budget", "organization", "principal", "released", "size")

    def __init__(self, budget: MemoryBudget, principal: str, organization: str) -> None:
        self._budget = budget
        self.principal = principal
        self.organization = organization
        self.size = 0
        self.released = False

    def grow(self, size: int) -> Shortage | None:
        """Count `size` more bytes, before they are taken in; return why not where they may not."""
        if size <= 0 or self.released:
            return None
        shortage = self._budget.shortage(self, size)
        if shortage is not None:
            self._budget.refused += 1
            return shortage
        self.size += size
        self._budget.add(self, size)
        return None

    def release(self) -> None:
        """Give everything back. Further calls do nothing, and nothing is counted any more."""
        self.released = True
        size, self.size = self.size, 0
        if size:
            self._budget.add(self, -size)
