"""One deployment's replicas, how busy each is, and the bounded queue before them.

Choosing a target and counting it is one synchronous step, so there is no lock. Who waits is told by
a callback, after the slot was counted for them. No I/O, no clock, no event loop: whoever claims
also releases, and decides how long to wait.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator

from prsmd.core.admission import (
    RESOURCE_UNAVAILABLE,
    Admit,
    QueueState,
    Refuse,
    Wait,
    admit,
    admit_again,
    no_way_left,
)
from prsmd.core.balance import least_busy
from prsmd.core.routes import Route
from prsmd.core.window import Gauge
from prsmd.domain.replica import Endpoint

LOAD_WINDOW_SECONDS = 30.0
LOAD_BUCKET_SECONDS = 2.0
_MEAN_WEIGHT = 0.1  # of the newest inference in the running mean of durations


@dataclasses.dataclass(slots=True, eq=False)
class Target:
    """A replica and what it is working on. `leaving`: out of the table, finishing its work."""

    replica_id: str
    endpoint: Endpoint
    slots: int
    in_flight: int = 0
    suspect: bool = False
    leaving: bool = False

    def __str__(self) -> str:
        marks = (" suspect" if self.suspect else "") + (" leaving" if self.leaving else "")
        return f"{self.replica_id} {self.in_flight}/{self.slots}{marks}"


@dataclasses.dataclass(slots=True, eq=False)
class Ticket:
    """One inference's way through a pool.

    `notify` is called once if it had to wait: with the target that was counted for it, or with why
    it is refused after all. `tried` are the replicas that could not be connected to; `arrival` is
    its number among all that came, and its place in the queue.
    """

    notify: Callable[[Target | Refuse], None]
    arrival: int = 0
    tried: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a deployment is.

    `queued` wait for a slot. `slots` counts the replicas in the table only, `in_flight` also those
    that are leaving it. `average` is in-flight plus queued, averaged over the last 30 s.
    """

    in_flight: int = 0
    queued: int = 0
    slots: int = 0
    targets: int = 0
    average: float = 0.0


class Pool:
    """In-flight counts and the queue of one deployment. `now` is in seconds since the epoch."""

    def __init__(self, route: Route, now: float) -> None:
        self.route = route
        self._targets: list[Target] = []
        self._leaving: list[Target] = []
        self._queue: deque[Ticket] = deque()
        self._turn = 0
        self._arrivals = 0
        self._mean_seconds: float | None = None
        self._closed: str | None = None
        self._load = Gauge(LOAD_WINDOW_SECONDS, LOAD_BUCKET_SECONDS, now)
        self._in_flight = 0
        self._idle_since: float | None = now
        self.update(route, now)

    def __repr__(self) -> str:
        targets = ", ".join(map(str, self)) or "no replica"
        closed = f"; closed: {self._closed}" if self._closed is not None else ""
        queue = f"queue {len(self._queue)}/{self.route.serving.queue_depth}"
        return f"<Pool {self.route.deployment_id}: {targets}; {queue}{closed}>"

    def __iter__(self) -> Iterator[Target]:
        """Yield the targets in the table, then those that are leaving."""
        yield from self._targets
        yield from self._leaving

    @property
    def idle_since(self) -> float | None:
        """Since when nothing is in flight or queued; None while something is."""
        return self._idle_since

    @property
    def empty(self) -> bool:
        """True when nothing is in flight or queued."""
        return not self._in_flight and not self._queue

    def load(self, now: float) -> Load:
        """Return how busy the deployment is now and was on average."""
        return Load(
            in_flight=self._in_flight,
            queued=len(self._queue),
            slots=sum(target.slots for target in self._targets),
            targets=len(self._targets),
            average=self._load.average(now),
        )

    def update(self, route: Route, now: float) -> None:
        """Take over a newly published route: join, leave, and serve or refuse who waits.

        A published target was just found ready, so it is no longer suspect.
        """
        known = {target.replica_id: target for target in self}
        self.route = route
        self._targets = []
        for wanted in route.targets:
            target = known.pop(wanted.replica_id, None)
            if target is None:
                target = Target(wanted.replica_id, wanted.endpoint, 0)
            target.endpoint = wanted.endpoint
            target.slots = route.serving.max_concurrency
            target.suspect = target.leaving = False
            self._targets.append(target)
        self._leaving = [target for target in known.values() if target.in_flight]
        for target in self._leaving:
            target.leaving = True
        self._serve_queue()
        self._refuse_hopeless()
        self._note(now)

    def claim(self, ticket: Ticket, now: float) -> Admit[Target] | Wait | Refuse:
        """Count a new inference on a target, or put it at the end of the queue, or refuse it."""
        self._arrivals += 1
        ticket.arrival = self._arrivals
        verdict = admit(self._targets, self._queue_state(), self._turn)
        if isinstance(verdict, Admit):
            self._count(verdict.target)
        elif isinstance(verdict, Wait):
            self._queue.append(ticket)
        self._note(now)
        return verdict

    def claim_again(
        self, ticket: Ticket, unreached: Target, now: float
    ) -> Admit[Target] | Wait | Refuse:
        """Give back a target that could not be connected to and find the inference another.

        Nothing was sent. If it has to wait, then where it would stand had it waited all along.
        """
        unreached.suspect = True
        ticket.tried.add(unreached.replica_id)
        verdict = admit_again(self._targets, self._queue_state(), self._turn, ticket.tried)
        if isinstance(verdict, Admit):
            self._count(verdict.target)
        elif isinstance(verdict, Wait):
            self._rejoin(ticket)
        self._uncount(unreached)
        self._note(now)
        return verdict

    def leave(self, ticket: Ticket, now: float) -> bool:
        """Stop waiting. False when the ticket does not wait: its `notify` was or is being heard."""
        try:
            self._queue.remove(ticket)
        except ValueError:
            return False
        self._note(now)
        return True

    def release(self, target: Target, now: float, seconds: float | None = None) -> None:
        """Give a slot back; the longest waiting inference gets it in the same step.

        `seconds` is how long the inference took, when that says something about the model.
        """
        if seconds is not None:
            mean = self._mean_seconds if self._mean_seconds is not None else seconds
            self._mean_seconds = mean + _MEAN_WEIGHT * (seconds - mean)
            target.suspect = False
        self._uncount(target)
        self._note(now)

    def close(self, reason: str, now: float) -> None:
        """Refuse everyone who waits and everyone who comes, saying why. In-flight work goes on."""
        self._closed = reason
        refusal = Refuse(code=RESOURCE_UNAVAILABLE, reason=reason, retry_after_seconds=5)
        while self._queue:
            self._queue.popleft().notify(refusal)
        self._note(now)

    def _queue_state(self) -> QueueState:
        return QueueState(
            queued=len(self._queue),
            depth=self.route.serving.queue_depth,
            mean_seconds=self._mean_seconds,
            waiting_for=self.route.waiting_for,
            hopeless=self.route.hopeless,
            closed=self._closed,
        )

    def _rejoin(self, ticket: Ticket) -> None:
        later = (place for place, other in enumerate(self._queue) if other.arrival > ticket.arrival)
        self._queue.insert(next(later, len(self._queue)), ticket)

    def _count(self, target: Target) -> None:
        target.in_flight += 1
        self._in_flight += 1
        self._turn += 1

    def _uncount(self, target: Target) -> None:
        target.in_flight -= 1
        self._in_flight -= 1
        if target.leaving and not target.in_flight:
            self._leaving.remove(target)
        self._serve_queue()

    def _serve_queue(self) -> None:
        passed_over: list[Ticket] = []
        while self._queue:
            ticket = self._queue[0]
            target = least_busy(self._targets, self._turn, ticket.tried)
            if target is None and not ticket.tried:
                break  # no slot is free for anyone
            self._queue.popleft()
            if target is None:
                passed_over.append(ticket)
            else:
                self._count(target)
                ticket.notify(target)
        self._queue.extendleft(reversed(passed_over))

    def _refuse_hopeless(self) -> None:
        waiting, self._queue = self._queue, deque()
        for ticket in waiting:
            refusal = no_way_left(self._targets, self._queue_state(), ticket.tried)
            if refusal is None:
                self._queue.append(ticket)
            else:
                ticket.notify(refusal)

    def _note(self, now: float) -> None:
        self._load.set(self._in_flight + len(self._queue), now)
        if not self.empty:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
