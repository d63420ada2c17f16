"""Decides who may use one of a few shared slots next: fair between organizations, then principals.

Organizations take turns, and within each its principals do, however many requests each one has.
Moves and starts nothing: it hands out what waits, and is told when that is done.
"""

import dataclasses
from collections import OrderedDict, deque
from typing import Generic, TypeVar

Ticket = TypeVar("Ticket")


@dataclasses.dataclass(frozen=True, slots=True)
class Asker:
    """For whom something is done: a principal of an organization."""

    organization: str
    principal: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """How many there are, how many one organization may have, and how much may wait for each.

    A principal has one at a time. `waiting` is how many requests of one principal may wait.
    """

    total: int
    per_organization: int
    waiting: int


class FairQueue(Generic[Ticket]):
    """Tickets that wait, by organization and principal, and how many slots each has."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._waiting: OrderedDict[str, OrderedDict[str, deque[Ticket]]] = OrderedDict()
        self._using: dict[str, set[str]] = {}

    def enter(self, asker: Asker, ticket: Ticket) -> bool:
        """Let a ticket wait; False where the principal has as many waiting as it may."""
        line = self._waiting.get(asker.organization, OrderedDict()).get(asker.principal, deque())
        if len(line) >= self._slots.waiting:
            return False
        line.append(ticket)
        principals = self._waiting.setdefault(asker.organization, OrderedDict())
        principals.setdefault(asker.principal, line)
        return True

    def withdraw(self, asker: Asker, ticket: Ticket) -> bool:
        """Let a ticket wait no longer; False where it does not."""
        line = self._waiting.get(asker.organization, OrderedDict()).get(asker.principal, deque())
        if ticket not in line:
            return False
        line.remove(ticket)
        self._close_empty(asker)
        return True

    def take(self) -> tuple[Asker, Ticket] | None:
        """Give a slot to whose turn it is; None where nobody who waits may have one."""
        if sum(map(len, self._using.values())) >= self._slots.total:
            return None
        for organization, principals in self._waiting.items():
            using = self._using.get(organization, set())
            if len(using) >= self._slots.per_organization:
                continue
            free = next((name for name in principals if name not in using), None)
            if free is not None:
                return self._give(Asker(organization, free))
        return None

    def give_back(self, asker: Asker) -> None:
        """Take a slot back."""
        using = self._using[asker.organization]
        using.remove(asker.principal)
        if not using:
            del self._using[asker.organization]

    def _give(self, asker: Asker) -> tuple[Asker, Ticket]:
        """Count a slot; its principal and its organization are the last in turn from now on."""
        principals = self._waiting[asker.organization]
        ticket = principals[asker.principal].popleft()
        principals.move_to_end(asker.principal)
        self._waiting.move_to_end(asker.organization)
        self._using.setdefault(asker.organization, set()).add(asker.principal)
        self._close_empty(asker)
        return asker, ticket

    def _close_empty(self, asker: Asker) -> None:
        principals = self._waiting[asker.organization]
        if not principals[asker.principal]:
            del principals[asker.principal]
        if not principals:
            del self._waiting[asker.organization]
