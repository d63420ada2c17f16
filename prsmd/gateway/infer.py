"""The data path's front room: the published table, and every inference that is on its way.

Owns pools, ledger and the client towards containers. All of it is in memory; nothing here waits for
the control loop, which only publishes whole tables.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence

from prsmd.core.routes import Route, RoutingTable
from prsmd.core.stalls import DeadlineJudge
from prsmd.core.trial import TrialReading
from prsmd.domain.errors import PrsmdError

from .endings import outcome_of, refused, unavailable
from .exchange import Inference
from .ledger import Ledger, Outcome, Performance, Totals
from .meters import Held
from .passage import InferenceResult, InferenceStream, Passage
from .pool import Load, Pool
from .shadow import Shadow
from .tape import InferenceNote, NoteTaker
from .turns import Turns
from .upstream import Upstream, UpstreamSettings

__all__ = [
    "Gateway",
    "GatewaySettings",
    "Inference",
    "InferenceResult",
    "InferenceStream",
    "Load",
    "Outcome",
    "Performance",
    "Totals",
]

STOPPING = "the daemon is stopping"
GONE = "the deployment is gone"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(UpstreamSettings):
    """The gateway's own section of the settings, with the bounds of exchanges with containers.

    `shadow_copies` is how many copies of requests may be under way at once, of all deployments.
    """

    performance_window_seconds: float = 60.0
    shadow_copies: int = 16


class Gateway:
    """Pools, queues, ledger and upstream of all deployments.

    `clock` gives seconds since the epoch; `notes` hears how each inference ended; `judge` is asked
    whether what was late is held against a model.
    """

    def __init__(
        self,
        settings: GatewaySettings | None = None,
        clock: Callable[[], float] = time.time,
        notes: NoteTaker | None = None,
        judge: DeadlineJudge | None = None,
    ) -> None:
        settings = settings or GatewaySettings()
        self._clock = clock
        self._notes = notes
        self._ledger = Ledger(settings.performance_window_seconds)
        self._upstream = Upstream(settings, judge)
        self._shadow = Shadow(self._upstream, settings.shadow_copies, clock)
        self._pools: dict[str, Pool] = {}
        self._leaving: list[Pool] = []
        self._names: dict[tuple[str | None, str], Route] = {}
        self._passages: set[Passage] = set()
        self._nothing_underway = asyncio.Event()
        self._nothing_underway.set()
        self._stopping = False

    def __repr__(self) -> str:
        pools = ", ".join(map(repr, self._all_pools())) or "no deployment"
        return f"<Gateway{' stopping' if self._stopping else ''}: {pools}>"

    def apply(self, max_answer_bytes: int) -> None:
        """Let the answers that come from now on be this large."""
        self._upstream.apply(max_answer_bytes)

    @property
    def turns(self) -> Turns:
        """In which long work on the event loop is done."""
        return self._upstream.turns

    async def start(self) -> None:
        """Open the client towards containers."""
        await self._upstream.start()

    async def drain(self, timeout_seconds: float) -> int:
        """Accept nothing new and wait for what was accepted, the queue included.

        Copies for comparison are given up. Returns how many inferences were still unanswered when
        the time was over (0: none lost).
        """
        self._stopping = True
        self._shadow.give_up()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._nothing_underway.wait()
        except TimeoutError:
            return len(self._passages)
        return 0

    async def close(self) -> None:
        """Refuse who waits and cut what is still in flight. `drain` first to lose nothing."""
        self._stopping = True
        for pool in self._all_pools():
            pool.close(STOPPING, self._clock())
        for passage in tuple(self._passages):
            passage.cut(unavailable(STOPPING, STOPPING))
        await self._shadow.close()
        await self._upstream.close()

    def cut_off(self, replica_id: str, why: str) -> None:
        """End what a replica works on before it is stopped: no cut answer is taken for whole.

        What was not sent to it yet goes to another replica, as does what comes from now on.
        """
        for pool in self._all_pools():
            pool.avoid(replica_id)
        for passage in tuple(self._passages):
            if passage.replica_id == replica_id:
                passage.cut_off(unavailable(why, why))

    def publish(self, table: RoutingTable) -> None:
        """Swap the routing table. Replicas that left it finish what they have."""
        now = self._clock()
        for deployment_id in self._pools.keys() - table.routes.keys():
            self._part_with(self._pools.pop(deployment_id), now)
        for deployment_id, route in table.routes.items():
            pool = self._pools.get(deployment_id)
            if pool is None:
                self._pools[deployment_id] = Pool(route, now)
            else:
                pool.update(route, now)
        self._names = _names(table)
        self._shadow.give_up_leaving()
        self._forget_gone()

    def find(self, organization: str | None, model: str) -> Route | None:
        """Return the route of a model by its deployment's id, its id or name; None: there is none.

        They go before each other in this order. `organization` None looks in all of them, and finds
        only what has the name to itself.
        """
        return self._names.get((organization, model))

    def route(self, deployment_id: str) -> Route | None:
        """Return the route of a deployment, or None."""
        pool = self._pools.get(deployment_id)
        return None if pool is None else pool.route

    def refuse_at_once(self, route: Route, inference: Inference) -> None:
        """Raise what `infer` would raise now, and record it; `inference` may lack its body yet.

        Returning promises nothing: all may be different once the body is there.
        """
        pool = self._pools.get(route.deployment_id)
        if pool is None or self._stopping:
            raise self._closed(route, inference, pool)
        refusal = pool.refusal(inference.client, inference.headers)
        if refusal is not None:
            error = refused(refusal, self._clock())
            self._turn_away(route, inference, outcome_of(error), known=True)
            raise error

    async def infer(
        self, route: Route, inference: Inference, held: Sequence[Held] = ()
    ) -> InferenceResult:
        """Infer, waiting in the queue if need be, at most for the route's request timeout.

        What is `held` of limits ends with it, and is given back where no container was reached.
        Raises InvalidInputError, QueueFullError, ResourceUnavailableError (no replica, and none to
        wait for), InferenceTimeoutError and ProviderError. How it ended is recorded in every case,
        cancellation included.
        """
        pool = self._pools.get(route.deployment_id)
        if pool is None or self._stopping:
            for each in held:
                each.end(counts=False)
            raise self._closed(route, inference, pool)
        passage = Passage(pool, inference, self._upstream, self._clock, self._end, held)
        self._passages.add(passage)
        self._nothing_underway.clear()
        result = await passage.run()
        if passage.meter is not None:
            self._shadow.offer(passage, result)
        return result

    def note_refused(self, inference: Inference, model: str, outcome: str) -> None:
        """Note an inference that found no route: it was denied, say, or there is no such model."""
        if self._notes is not None:
            now, who = self._clock(), inference
            self._notes.note(
                InferenceNote(
                    now,
                    who.client,
                    who.organization,
                    "",
                    model,
                    "",
                    0,
                    outcome,
                    0.0,
                    0,
                    0,
                    who.request_id,
                    address=who.address,
                )
            )

    def note_limited(self, route: Route, inference: Inference) -> None:
        """Note an inference that was refused because a limit of the caller's is reached."""
        self._turn_away(route, inference, Outcome.LIMITED, known=True)

    def in_flight(self, deployment_id: str | None = None) -> dict[str, int]:
        """Return how many requests each replica works on, those that left the table included.

        With an id, only the replicas of this deployment.
        """
        counts: dict[str, int] = {}
        for pool in self._all_pools():
            if deployment_id in {None, pool.route.deployment_id}:
                for target in pool:
                    counts[target.replica_id] = counts.get(target.replica_id, 0) + target.in_flight
        return counts

    def load(self, deployment_id: str) -> Load:
        """Return how busy a deployment is; zeros for one that is not in the table."""
        pool = self._pools.get(deployment_id)
        return pool.load(self._clock()) if pool is not None else Load()

    def demand(self) -> dict[str, float]:
        """Return how many replicas' worth of work each deployment had lately."""
        now = self._clock()
        return {
            deployment_id: pool.load(now).average / pool.route.serving.max_concurrency
            for deployment_id, pool in self._pools.items()
        }

    def trial_readings(self) -> dict[str, TrialReading]:
        """Return what was measured of each trial since its key began, by deployment id."""
        return {
            deployment_id: pool.meter.reading()
            for deployment_id, pool in self._pools.items()
            if pool.meter is not None
        }

    def idle_since(self, deployment_id: str) -> float | None:
        """Return since when nothing was in flight or queued; None while busy or not in the table.

        Seconds since the epoch. A deployment never used is idle since it was first published.
        """
        pool = self._pools.get(deployment_id)
        if pool is None:
            return None
        pool.look(self._clock())
        return pool.idle_since

    def performance(self, deployment_id: str, now: float) -> Performance:
        """Return requests per second, latencies, error rate and totals of a deployment."""
        return self._ledger.performance(deployment_id, now)

    def totals(self) -> dict[str, Totals]:
        """Return the totals since the start of every deployment that was used."""
        return self._ledger.totals()

    def revision_totals(self) -> dict[str, dict[int, Totals]]:
        """Return the totals since the start of the newest revisions, by deployment id."""
        return self._ledger.revision_totals()

    def _all_pools(self) -> list[Pool]:
        return [*self._pools.values(), *self._leaving]

    def _part_with(self, pool: Pool, now: float) -> None:
        pool.close(GONE, now)
        pool.update(dataclasses.replace(pool.route, targets=()), now)
        self._leaving.append(pool)

    def _forget_gone(self) -> None:
        for pool in [pool for pool in self._leaving if pool.empty]:
            self._leaving.remove(pool)
            if pool.route.deployment_id not in self._pools:
                self._ledger.forget(pool.route.deployment_id)

    def _closed(self, route: Route, inference: Inference, pool: Pool | None) -> PrsmdError:
        self._turn_away(route, inference, Outcome.UNAVAILABLE, known=pool is not None)
        why = GONE if pool is None else STOPPING
        return unavailable(why, why)

    def _turn_away(
        self, route: Route, inference: Inference, outcome: Outcome, *, known: bool
    ) -> None:
        if known:
            now = self._clock()
            self._ledger.record(route.deployment_id, outcome, 0.0, now, route.revision)
        self._note(route, inference, outcome)

    def _end(self, passage: Passage, outcome: Outcome, seconds: float) -> None:
        deployment_id, now = passage.pool.route.deployment_id, self._clock()
        self._ledger.record(deployment_id, outcome, seconds, now, passage.revision)
        self._note(passage.pool.route, passage.inference, outcome, passage, seconds)
        self._passages.discard(passage)
        if not self._passages:
            self._nothing_underway.set()

    def _note(
        self,
        route: Route,
        inference: Inference,
        outcome: Outcome,
        passage: Passage | None = None,
        seconds: float = 0.0,
    ) -> None:
        if self._notes is None:
            return
        answer = None if passage is None else passage.answer
        self._notes.note(
            InferenceNote(
                self._clock(),
                inference.client,
                inference.organization,
                route.organization,
                route.model_id,
                route.deployment_id,
                route.revision if passage is None else passage.revision,
                outcome.value,
                seconds,
                0 if answer is None else answer.bytes_sent,
                0 if answer is None else answer.bytes_read,
                inference.request_id,
                reached=passage is not None and passage.reached,
                address=inference.address,
            )
        )


def _names(table: RoutingTable) -> dict[tuple[str | None, str], Route]:
    """Return the routes by organization and name; under None those whose name is theirs alone."""
    names: dict[tuple[str | None, str], Route] = {}
    for attribute in ("deployment_id", "model_id", "model_name"):
        named: dict[str, list[Route]] = {}
        for route in table.routes.values():
            name = getattr(route, attribute)
            names.setdefault((route.organization, name), route)
            named.setdefault(name, []).append(route)
        for name, routes in named.items():
            if len(routes) == 1:
                names.setdefault((None, name), routes[0])
    return names
