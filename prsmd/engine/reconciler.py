"""The loop: observe, load what is desired, decide, publish the routes, carry the plan out.

Level-triggered: a wake-up carries no truth, it only makes the next tick come sooner.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from prsmd.core.future_times import any_in_future
from prsmd.core.outlook import holds_by_deployment
from prsmd.core.plan import DesiredDeployment, Hold, Observed, Plan
from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.rehearse import Rehearsal, rehearse
from prsmd.core.routes import routes
from prsmd.core.sight import Sight
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import Event, Severity
from prsmd.domain.replica import Replica, ReplicaState
from prsmd.domain.spec import Serving
from prsmd.engine.executor import Executor
from prsmd.engine.launcher import Launcher
from prsmd.engine.observer import Observer
from prsmd.engine.prober import Prober, ProbeTarget
from prsmd.engine.recorder import Recorder
from prsmd.engine.rows import load_desired
from prsmd.engine.usage import UsageMeter
from prsmd.gateway.infer import Gateway
from prsmd.protocols.registry import PROTOCOLS
from prsmd.store import future_times
from prsmd.store.db import Database
from prsmd.store.logs import LogArchive

log = logging.getLogger(__name__)
_BUSY_SECONDS = 1.0
_LEAST_SECONDS = 0.05


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop connects."""

    database: Database
    observer: Observer
    executor: Executor
    prober: Prober
    gateway: Gateway
    recorder: Recorder
    usage: UsageMeter
    launcher: Launcher
    archive: LogArchive


class Reconciler:
    """Runs the loop. `holds` is what the last tick held back; `last_tick` is monotonic seconds.

    `clock` gives seconds since the epoch.
    """

    def __init__(
        self, policy: Policy, tick_seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.holds: tuple[Hold, ...] = ()
        self.last_tick = time.monotonic()
        self._holds_of: Mapping[str, Sequence[Hold]] = {}
        self._policy = policy
        self._tick_seconds = tick_seconds
        self._clock = clock
        self._woken = asyncio.Event()
        self._until: float | None = None
        self._held: dict[tuple[str, int, int], str] = {}

    def apply(self, policy: Policy, tick_seconds: float) -> None:
        """Go by this from the next tick on."""
        self._policy, self._tick_seconds = policy, tick_seconds
        self.wake()

    def holds_of(self, deployment_id: str) -> Sequence[Hold]:
        """Return what the last tick held back of one deployment."""
        return self._holds_of.get(deployment_id, ())

    def wake(self) -> None:
        """Make the next tick come now."""
        self._woken.set()

    def rehearse(
        self, desired: Sequence[DesiredDeployment], observed: Observed, deployment_id: str
    ) -> Rehearsal:
        """Return what the ticks from now on would do to a deployment. Takes time, does nothing."""
        return rehearse(desired, observed, self._clock(), self._policy, deployment_id)

    async def run(self, parts: Parts) -> None:
        """Tick until cancelled. A tick that fails is logged and the next one tries again."""
        while True:
            self._woken.clear()
            busy = True
            try:
                busy = await self.tick(parts)
                self.last_tick = time.monotonic()
            except PrsmdError as error:
                log.warning("tick not finished: %s", error.message)
            except Exception:
                log.exception("tick failed unexpectedly")
            try:
                pause = self._pause(busy=busy)
                async with asyncio.timeout(pause):  # wait_for may swallow the end of the daemon
                    await self._woken.wait()
            except TimeoutError:
                continue

    def _pause(self, *, busy: bool) -> float:
        """Return the seconds until the next tick: sooner where time alone lets more happen."""
        moments = [hold.until for hold in self.holds if hold.until is not None]
        moments += [self._until] if self._until is not None else []
        ends = [moment - self._clock() for moment in moments]
        longest = min(_BUSY_SECONDS, self._tick_seconds) if busy else self._tick_seconds
        return max(_LEAST_SECONDS, min([longest, *ends]))

    async def tick(self, parts: Parts) -> bool:
        """Run once; return whether something is in progress, so that it is looked at again soon."""
        snapshot = await parts.observer.snapshot()
        desired, now = await self._desired(parts)  # after the snapshot: rows are never older
        observed = dataclasses.replace(snapshot, at=now)
        plan = reconcile(desired, observed, now, self._policy)
        self.holds = plan.holds
        self._holds_of = holds_by_deployment(plan.holds)
        self._until = plan.until
        parts.gateway.publish(routes(desired, observed, plan))
        parts.prober.watch(_probe_targets(desired, Sight.of(observed)))
        parts.usage.sample(desired, parts.observer.containers)
        await parts.executor.apply(plan)
        await self._tell_holds(parts.recorder, desired, plan, now)
        return bool(plan.actions or observed.working or _in_progress(desired))

    async def _desired(self, parts: Parts) -> tuple[list[DesiredDeployment], float]:
        """Return what is wanted and stored, and when it was read.

        Times in it that lie in the future become the present first. Where the store cannot be
        written, they stay: what runs is served and watched all the same.
        """
        desired, now = await self._stored(parts)
        if not any_in_future(desired, now):
            return desired, now
        log.warning(
            "the clock was set back: stored times that lie in the future become the present"
        )
        try:
            await parts.database.write(lambda tx: future_times.clamp(tx, now))
        except PrsmdError as error:
            log.warning("stored times not set: %s", error.message)
        return await self._stored(parts)

    async def _stored(self, parts: Parts) -> tuple[list[DesiredDeployment], float]:
        async with parts.database.read() as tx:
            return await load_desired(tx), self._clock()

    async def _tell_holds(
        self, recorder: Recorder, desired: Sequence[DesiredDeployment], plan: Plan, now: float
    ) -> None:
        """Record each new reason for a slot to stay empty, once; later where the disk is full."""
        held = {_place(hold): hold.reason for hold in plan.holds}
        organizations = {d.deployment.id: d.deployment.organization for d in desired}
        news = [
            _hold_event(hold, organizations[hold.deployment_id], now)
            for hold in plan.holds
            if self._held.get(_place(hold)) != hold.reason and hold.deployment_id in organizations
        ]
        if news:
            try:
                await recorder.record(*news)
            except PrsmdError as error:
                log.warning("what is held back is not recorded yet: %s", error.message)
                return
        self._held = held


def _place(hold: Hold) -> tuple[str, int, int]:
    return hold.deployment_id, hold.revision, hold.slot


def _probe_targets(desired: Sequence[DesiredDeployment], sight: Sight) -> list[ProbeTarget]:
    """Return whom to probe, where the routes would send traffic: as the engine says, else the row.

    A replica that was adopted before it had its address is found that way too.
    """
    probed = {ReplicaState.STARTING: True, ReplicaState.RUNNING: False}
    return [
        ProbeTarget(
            replica.id,
            endpoint,
            _health_path(serving := _serving(item, replica)),
            probed[replica.state],
            serving.request_timeout_seconds,
        )
        for item in desired
        for replica in item.replicas
        if replica.state in probed and (endpoint := sight.endpoint(replica)) is not None
    ]


def _serving(item: DesiredDeployment, replica: Replica) -> Serving:
    """Return how a replica is spoken to: as the current revision says where it runs the same."""
    current = replica.revision in item.current_numbers
    return (item.revision if current else item.revision_of(replica)).spec.serving


def _health_path(serving: Serving) -> str:
    return PROTOCOLS[serving.protocol].health_path(serving)


def _in_progress(desired: Sequence[DesiredDeployment]) -> bool:
    moving = {ReplicaState.PENDING, ReplicaState.STARTING, ReplicaState.DRAINING}
    return any(replica.state in moving for item in desired for replica in item.replicas) or any(
        item.rollout is not None and item.rollout.active for item in desired
    )


def _hold_event(hold: Hold, organization: str, now: float) -> Event:
    message = f"slot {hold.slot}: {hold.reason}"
    if hold.details:
        message += " (" + "; ".join(hold.details) + ")"
    return Event(
        deployment_id=hold.deployment_id,
        organization=organization,
        reason={"unplaceable": "Unplaceable", "backoff": "BackOff"}.get(hold.kind, "Held"),
        message=message,
        severity=Severity.WARNING if hold.kind in {"unplaceable", "engine"} else Severity.NORMAL,
        at=now,
    )
