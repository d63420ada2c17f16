"""Who waits for a slot, in order of arrival. It decides the order only, not who may have what.

Each side of a trial has a line of its own, so that a full side holds up nobody of the other.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from prsmd.core.admission import Refuse

from .target import Target

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_UNTRIED: frozenset[str] = frozenset()
_SIDES = 2


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


class Queue:
    """The lines of waiting tickets: the stable side's, the trial side's, and loners.

    Who could not connect somewhere has a line alone: what the others of its side wait for may be
    full, and what it waits for free.
    """

    __slots__ = ("_length", "_lines")

    def __init__(self) -> None:
        self._lines: list[deque[Ticket]] = [deque(), deque()]
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Ticket]:
        """Yield all who wait, line by line."""
        for line in self._lines:
            yield from line

    @property
    def on_trial(self) -> int:
        """How many wait in the line of the trial side."""
        return len(self._lines[True])

    def add(self, ticket: Ticket) -> None:
        """Let a ticket wait where it would stand had it waited since its arrival."""
        self._length += 1
        if ticket.tried:
            self._lines.append(deque((ticket,)))
        else:
            _join(self._lines[ticket.on_trial], ticket)

    def remove(self, ticket: Ticket) -> bool:
        """Let a ticket go; False when it does not wait."""
        for line in self._lines:
            if ticket in line:
                line.remove(ticket)
                self._length -= 1
                self._close_empty_lines()
                return True
        return False

    def serve(
        self, choose: Callable[[Ticket], Target | None], give: Callable[[Ticket, Target], None]
    ) -> None:
        """Give a target to each who can have one, the earliest first.

        What `choose` has not for the first of a line, it has for nobody in that line.
        """
        if not self._length:
            return
        lines = [line for line in self._lines if line]
        while lines:
            line = min(lines, key=_first_arrival)
            target = choose(line[0])
            if target is not None:
                self._length -= 1
                give(line.popleft(), target)
            if target is None or not line:
                lines = [each for each in lines if each is not line]
        self._close_empty_lines()

    def forgive(self) -> None:
        """Let everyone try every replica again: the table was published anew."""
        loners = self._lines[_SIDES:]
        del self._lines[_SIDES:]
        for line in loners:
            for ticket in line:
                ticket.tried = _UNTRIED
                _join(self._lines[ticket.on_trial], ticket)

    def clear(self) -> list[Ticket]:
        """Return all who wait, in order of arrival, and let nobody wait any more."""
        waiting = sorted(self, key=lambda ticket: ticket.arrival)
        self._lines = [deque(), deque()]
        self._length = 0
        return waiting

    def _close_empty_lines(self) -> None:
        if len(self._lines) > _SIDES:
            self._lines[_SIDES:] = [line for line in self._lines[_SIDES:] if line]


def _join(line: deque[Ticket], ticket: Ticket) -> None:
    if not line or line[-1].arrival < ticket.arrival:
        line.append(ticket)
        return
    later = (place for place, other in enumerate(line) if other.arrival > ticket.arrival)
    line.insert(next(later), ticket)


def _first_arrival(line: deque[Ticket]) -> int:
    return line[0].arrival
