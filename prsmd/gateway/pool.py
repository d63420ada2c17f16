"""One deployment's replicas, how busy each is, and the bounded queue before them.

Choosing a target and counting it is one synchronous step, so there is no lock. Who waits is told by
a callback, after the slot was counted for them. No I/O, no clock, no event loop: whoever claims
also releases, and decides how long to wait.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from prsmd.core.admission import (
    RESOURCE_UNAVAILABLE,
    UNREACHABLE,
    Admit,
    QueueState,
    Refuse,
    Wait,
    admit,
    admit_again,
    no_way_left,
    unreachable,
)
from prsmd.core.balance import choose, least_busy
from prsmd.core.routes import Route
from prsmd.core.trial import places, takes_trial
from prsmd.core.window import Gauge

from .queue import Queue, Ticket
from .target import Target
from .trials import TrialMeter

LOAD_WINDOW_SECONDS = 30.0
LOAD_BUCKET_SECONDS = 2.0
_MEAN_WEIGHT = 0.1  # of the newest inference in the running mean of durations


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a deployment is.

    `queued` wait for a slot. `slots` and `targets` count the replicas in the table that clients are
    answered from, `in_flight` also those that are leaving it; copies for comparison are no load.
    `average` is in-flight plus queued, averaged over the last 30 s.
    """

    in_flight: int = 0
    queued: int = 0
    slots: int = 0
    targets: int = 0
    average: float = 0.0


class Pool:
    """In-flight counts and the queue of one deployment. `now` is in seconds since the epoch.

    While a revision is on trial its targets are one side and all others the other, and `meter`
    measures both; else all targets are on the stable side.
    """

    def __init__(self, route: Route, now: float) -> None:
        self.route = route
        self.meter: TrialMeter | None = None
        self._stable: list[Target] = []
        self._trial: list[Target] = []
        self._spare: list[Target] = []  # where the stable side's requests may go in need
        self._leaving: list[Target] = []
        self._queue = Queue()
        self._turns = [0, 0]  # of each side, so that each rotates by itself
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
        yield from self._stable
        yield from self._trial
        yield from self._leaving

    @property
    def idle_since(self) -> float | None:
        """Since when nothing is in flight or queued; None while something is."""
        return self._idle_since

    def look(self, now: float) -> None:
        """Count from now on where it is idle since a moment to come: the clock was set back."""
        if self._idle_since is not None:
            self._idle_since = min(self._idle_since, now)

    @property
    def empty(self) -> bool:
        """True when nothing is in flight or queued."""
        return not self._in_flight and not self._queue

    def load(self, now: float) -> Load:
        """Return how busy the deployment is now and was on average."""
        return Load(
            in_flight=self._in_flight,
            queued=len(self._queue),
            slots=sum(target.slots for side in (self._stable, self._spare) for target in side),
            targets=len(self._stable) + len(self._spare),
            average=self._load.average(now),
        )

    def update(self, route: Route, now: float) -> None:
        """Take over a newly published route: join, leave, and serve or refuse who waits.

        A published target was just found ready, so it is no longer suspect, and who could not
        connect to it may try it again.
        """
        known = {target.replica_id: target for target in self}
        self.route = route
        self._stable, self._trial = [], []
        for wanted in route.targets:
            target = known.pop(wanted.replica_id, None)
            if target is None:
                target = Target(wanted, route)
            else:
                target.follow(wanted, route)
            (self._trial if target.on_trial else self._stable).append(target)
        compares_only = route.trial is not None and route.trial.compares_only
        self._spare = [] if compares_only else self._trial
        self._leaving = [target for target in known.values() if target.in_flight]
        for target in known.values():
            target.leaving = True
        self._measure()
        self._queue.forgive()
        self._serve_queue()
        if route.hopeless:
            self._refuse_hopeless()
        self._note(now)

    def claim(self, ticket: Ticket, now: float) -> Admit[Target] | Wait | Refuse:
        """Count a new inference on a target, or put it at the end of the queue, or refuse it.

        The trial says which side it belongs to. One that finds the side on trial crowded goes to
        the stable side: a trial must not cost a request.
        """
        verdict = self._decide(ticket)
        self._arrivals += 1
        ticket.arrival = self._arrivals
        self._settle(ticket, verdict)
        self._note(now)
        return verdict

    def refusal(self, client: str, headers: Mapping[str, str]) -> Refuse | None:
        """Return why a new inference of this client would be refused now; None: it would not be."""
        verdict = self._decide(Ticket(_unheard, client, headers))
        return verdict if isinstance(verdict, Refuse) else None

    def claim_again(
        self, ticket: Ticket, unreached: Target, now: float
    ) -> Admit[Target] | Wait | Refuse:
        """Give back a target that could not be connected to and find the inference another.

        Nothing was sent. If it has to wait, then where it would stand had it waited all along.
        """
        unreached.suspect = True
        ticket.tried |= {unreached.replica_id}
        own, spare = self._sides(ticket)
        verdict = admit_again(
            own, self._queue_state(), self._turns[ticket.on_trial], ticket.tried, spare
        )
        self._settle(ticket, verdict)
        self._uncount(unreached)
        self._note(now)
        return verdict

    def claim_copy(self) -> Target | None:
        """Count a copy for comparison on the side on trial; None when it has no slot to spare.

        A copy takes a slot of its replica, and is no load of the deployment: nobody waits for it.
        """
        target = least_busy(self._trial, self._turns[True])
        if target is None or target.suspect:
            return None
        target.in_flight += 1
        self._turns[True] += 1
        return target

    def release_copy(self, target: Target, now: float) -> None:
        """Give the slot of a copy back."""
        self._vacate(target)
        self._note(now)

    def avoid(self, replica_id: str) -> None:
        """Choose a replica only where there is no other: it is about to end."""
        for target in self:
            if target.replica_id == replica_id:
                target.suspect = True

    def shortage(self, ticket: Ticket) -> str | None:
        """Return why no replica could take a waiting inference; None when all were only busy."""
        own, spare = self._sides(ticket)
        if not own and not spare:
            return self.route.waiting_for or "no replica is ready"
        if unreachable(own, ticket.tried) and unreachable(spare, ticket.tried):
            return UNREACHABLE
        return None

    def leave(self, ticket: Ticket, now: float) -> bool:
        """Stop waiting. False when the ticket does not wait: its `notify` was or is being heard."""
        if not self._queue.remove(ticket):
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
        self._dismiss(Refuse(code=RESOURCE_UNAVAILABLE, reason=reason, retry_after_seconds=5))
        self._note(now)

    def _sides(self, ticket: Ticket) -> tuple[Sequence[Target], Sequence[Target]]:
        """Return the targets of the ticket's own side, and those it may have in need."""
        if ticket.on_trial:
            return self._trial, self._stable
        return self._stable, self._spare

    def _decide(self, ticket: Ticket) -> Admit[Target] | Wait | Refuse:
        """Decide about a newcomer, and of which side it is; counts nothing."""
        trial = self.route.trial
        if trial is not None:
            ticket.on_trial = takes_trial(trial, self._arrivals, ticket.client, ticket.headers)
        verdict = self._admit(ticket)
        if ticket.on_trial and not isinstance(verdict, Admit) and self._trial_is_crowded():
            ticket.on_trial = False
            verdict = self._admit(ticket)
        return verdict

    def _admit(self, ticket: Ticket) -> Admit[Target] | Wait | Refuse:
        own, spare = self._sides(ticket)
        return admit(own, self._queue_state(), self._turns[ticket.on_trial], spare)

    def _choose(self, ticket: Ticket) -> Target | None:
        own, spare = self._sides(ticket)
        return choose(own, spare, self._turns[ticket.on_trial], ticket.tried)

    def _trial_is_crowded(self) -> bool:
        trial, depth = self.route.trial, self.route.serving.queue_depth
        if trial is None:
            return False
        return self._queue.on_trial >= places(trial, depth) or len(self._queue) >= depth

    def _measure(self) -> None:
        trial = self.route.trial
        if trial is None:
            self.meter = None
        elif self.meter is None or self.meter.key != trial.key:
            self.meter = TrialMeter(trial.key)

    def _queue_state(self) -> QueueState:
        return QueueState(
            queued=len(self._queue),
            depth=self.route.serving.queue_depth,
            mean_seconds=self._mean_seconds,
            waiting_for=self.route.waiting_for,
            hopeless=self.route.hopeless,
            closed=self._closed,
        )

    def _settle(self, ticket: Ticket, verdict: Admit[Target] | Wait | Refuse) -> None:
        if isinstance(verdict, Admit):
            self._count(ticket, verdict.target)
        elif isinstance(verdict, Wait):
            self._queue.add(ticket)

    def _count(self, ticket: Ticket, target: Target) -> None:
        target.in_flight += 1
        self._in_flight += 1
        self._turns[ticket.on_trial] += 1

    def _uncount(self, target: Target) -> None:
        self._in_flight -= 1
        self._vacate(target)

    def _vacate(self, target: Target) -> None:
        target.in_flight -= 1
        if target.leaving and not target.in_flight:
            self._leaving.remove(target)
        self._serve_queue()

    def _serve_queue(self) -> None:
        if not len(self._queue):
            return
        targets = (*self._stable, *self._trial)
        free = {each.replica_id for each in targets if each.in_flight < each.slots}
        self._queue.serve(free, self._choose, self._give)

    def _give(self, ticket: Ticket, target: Target) -> None:
        self._count(ticket, target)
        ticket.notify(target)

    def _refuse_hopeless(self) -> None:
        state = self._queue_state()
        for ticket in self._queue.clear():
            own, spare = self._sides(ticket)
            refusal = no_way_left(own or spare, state)
            if refusal is None:
                self._queue.add(ticket)
            else:
                ticket.notify(refusal)

    def _dismiss(self, refusal: Refuse) -> None:
        for ticket in self._queue.clear():
            ticket.notify(refusal)

    def _note(self, now: float) -> None:
        self._load.set(self._in_flight + len(self._queue), now)
        if not self.empty:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now


def _unheard(_verdict: Target | Refuse) -> None:
    """What a ticket that never waits is told: nothing."""
