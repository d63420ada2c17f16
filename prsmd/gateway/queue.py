"""Who waits for a slot, in order of arrival. It decides the order only, not who may have what.

Each side of a trial has a line of its own, so that a full side holds up nobody of the other.
"""

import bisect
import dataclasses
import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from prsmd.core.admission import Refuse

from .target import Target

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_UNTRIED: frozenset[str] = frozenset()
_Kind = tuple[bool, frozenset[str]]


def no_headers() -> Mapping[str, str]:
    """Return the headers of a request that has none that matter."""
    return _NO_HEADERS


@dataclasses.dataclass(slots=True, eq=False)
class Ticket:
    """One inference's way through a pool.

    `notify` is called once if it had to wait: with the target that was counted for it, or with why
    it is refused after all. `client` and `headers` decide its side, `on_trial`. `arrival` is its
    number among all that came, and its place in the queue. `tried` are the replicas that could not
    be connected to since the table was last published.
    """

    notify: Callable[[Target | Refuse], None]
    client: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=no_headers)
    on_trial: bool = False
    arrival: int = 0
    tried: frozenset[str] = _UNTRIED

    def forget(self) -> None:
        """Notify nobody any more: its owner has ended, and is freed without a search for cycles."""
        self.notify = _nobody


def _nobody(_verdict: Target | Refuse) -> None:
    """Hear nothing."""


class Queue:
    """The lines of waiting tickets: one of each side, and one of each side and set of replicas.

    Who could not connect somewhere waits only with those of its side who could not connect to the
    same replicas: what others wait for may be full, and what these wait for free. All in a line can
    have the same targets, so what a look at the queue costs depends on the number of lines only. A
    ticket that comes back may therefore wait beyond the queue's depth: it had a place already.
    """

    __slots__ = ("_length", "_lines")

    def __init__(self) -> None:
        self._lines: dict[_Kind, deque[Ticket]] = {}  # none is empty
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Ticket]:
        """Yield all who wait, line by line."""
        for line in self._lines.values():
            yield from line

    @property
    def on_trial(self) -> int:
        """How many of the trial side wait, without those who could not connect somewhere."""
        return len(self._lines.get((True, _UNTRIED), ()))

    def add(self, ticket: Ticket) -> None:
        """Let a ticket wait where it would stand had it waited since its arrival."""
        self._length += 1
        self._join(ticket)

    def remove(self, ticket: Ticket) -> bool:
        """Let a ticket go; False when it does not wait."""
        line = self._lines.get(_kind(ticket))
        if line is None or ticket not in line:
            return False
        line.remove(ticket)
        self._length -= 1
        self._close_empty_lines()
        return True

    def serve(
        self,
        free: AbstractSet[str],
        choose: Callable[[Ticket], Target | None],
        give: Callable[[Ticket, Target], None],
    ) -> None:
        """Give a target to each who can have one, the earliest first.

        `free` are the replicas with a free slot: who tried them all is passed over. What `choose`
        has not for the first of a line, it has for nobody in that line.
        """
        heads = [
            (line[0].arrival, number, line)
            for number, ((_, tried), line) in enumerate(self._lines.items())
            if not free <= tried
        ]
        heapq.heapify(heads)
        while heads:
            _, number, line = heads[0]
            target = choose(line[0])
            if target is not None:
                self._length -= 1
                give(line.popleft(), target)
            if target is None or not line:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (line[0].arrival, number, line))
        self._close_empty_lines()

    def forgive(self) -> None:
        """Let everyone try every replica again: the table was published anew."""
        for side, tried in [kind for kind in self._lines if kind[1]]:
            for ticket in self._lines.pop((side, tried)):
                ticket.tried = _UNTRIED
                self._join(ticket)

    def clear(self) -> list[Ticket]:
        """Return all who wait, in order of arrival, and let nobody wait any more."""
        waiting = sorted(self, key=_arrival)
        self._lines = {}
        self._length = 0
        return waiting

    def _join(self, ticket: Ticket) -> None:
        line = self._lines.setdefault(_kind(ticket), deque())
        bisect.insort(line, ticket, key=_arrival)

    def _close_empty_lines(self) -> None:
        for kind in [kind for kind, line in self._lines.items() if not line]:
            del self._lines[kind]


def _kind(ticket: Ticket) -> _Kind:
    """Return all that decides which targets a ticket can have."""
    return ticket.on_trial, ticket.tried


def _arrival(ticket: Ticket) -> int:
    return ticket.arrival
