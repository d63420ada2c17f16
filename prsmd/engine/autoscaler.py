"""The autoscaler's loop: gathers what `core.autoscale` needs and stores what it recommends.

Writes nothing but recommendations; `reconcile` clamps them by what the user asked for.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence

from prsmd.core.autoscale import (
    AutoscaleInputs,
    AutoscaleSettings,
    GpuUse,
    Hold,
    Need,
    Scale,
    limited,
    recommend,
    remember,
)
from prsmd.core.plan import DesiredDeployment
from prsmd.core.quota_admission import Excess, most_replicas
from prsmd.core.slots import target_replicas
from prsmd.core.stalls import OWN, SKIPS, lost_on_clock
from prsmd.domain.deployment import Deployment, Recommendation
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import Event, Severity
from prsmd.domain.node import GpuSample
from prsmd.domain.replica import ReplicaState
from prsmd.engine.observer import Observer
from prsmd.engine.quota_ledger import read_book
from prsmd.engine.recorder import Recorder
from prsmd.engine.rows import load_desired
from prsmd.gateway.infer import Gateway
from prsmd.store import deployments, events
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)
_STALLED_PART = 0.5  # of the time since the last look: what was measured then is no load
_GLANCE_SECONDS = 0.25  # how late a model that is scaled to zero learns that it is wanted


@dataclasses.dataclass(frozen=True, slots=True)
class _Memory:
    """What was needed lately, since a person last set the count."""

    asked: tuple[int, float]
    needs: tuple[Need, ...] = ()


class Autoscaler:
    """Looks at every deployment at a fixed interval. `wake` runs after a recommendation."""

    def __init__(
        self,
        *,
        database: Database,
        recorder: Recorder,
        observer: Observer,
        gateway: Gateway,
        settings: AutoscaleSettings,
        wake: Callable[[], None],
    ) -> None:
        self._lag = observer.lag
        self._looked_at = self._lag.now()
        self._stalled: str | None = None
        self._database = database
        self._recorder = recorder
        self._observer = observer
        self._gateway = gateway
        self._settings = settings
        self._wake = wake
        self._memories: dict[str, _Memory] = {}
        self._verdicts: dict[str, Scale | Hold] = {}
        self._at_zero: set[str] = set()
        self._short: dict[str, str] = {}  # which quota is used up, by deployment id

    def apply(self, settings: AutoscaleSettings) -> None:
        """Go by these from the next look on."""
        self._settings = settings

    def verdict(self, deployment_id: str) -> Scale | Hold | None:
        """Return what was last decided for a deployment; None before the first look at it."""
        return self._verdicts.get(deployment_id)

    async def run(self, interval_seconds: float) -> None:
        """Look at every interval until cancelled, and at once when a model at zero is wanted."""
        due = time.monotonic() + interval_seconds
        while True:
            await asyncio.sleep(min(interval_seconds, _GLANCE_SECONDS))
            if time.monotonic() < due and not self._wanted_at_zero():
                continue
            due = time.monotonic() + interval_seconds
            try:
                await self.look(time.time())
            except PrsmdError as error:
                log.warning("autoscaling put off: %s", error.message)
            except Exception:  # what scales is not worth what serves
                log.exception("autoscaling failed unexpectedly")

    async def look(self, now: float) -> None:
        """Decide once for every deployment. A failure with one keeps none of the others waiting."""
        unknown = self._lag.unknown(self._looked_at, OWN, _STALLED_PART)
        self._stalled = None if unknown is None else unknown.reason
        self._looked_at = self._lag.now()
        async with self._database.read() as tx:
            desired = await load_desired(tx)
        self._forget_all_but({item.deployment.id for item in desired})
        for item in desired:
            if item.deployment.deleting:
                continue
            try:
                await self._decide(item, now)
            except PrsmdError as error:
                log.warning("autoscaling of %s put off: %s", item.deployment.id, error.message)
            except Exception:
                log.exception("autoscaling of %s failed unexpectedly", item.deployment.id)

    async def _decide(self, item: DesiredDeployment, now: float) -> None:
        deployment = item.deployment
        memory = self._memory(item)
        inputs = self._inputs(item, memory.needs, now)
        verdict = await self._within_quota(item, recommend(inputs, self._settings, now), now)
        needs = remember(memory.needs, verdict, self._settings, now)
        target = inputs.current
        if isinstance(verdict, Scale):
            target = verdict.recommendation.replicas
            await self._store(deployment, verdict.recommendation, inputs.current)
        self._memories[deployment.id] = dataclasses.replace(memory, needs=needs)
        self._verdicts[deployment.id] = verdict
        (self._at_zero.discard if target else self._at_zero.add)(deployment.id)

    async def _store(
        self, looked_at: Deployment, recommendation: Recommendation, current: int
    ) -> None:
        """Store the recommendation and say so, unless a person has set the count meanwhile."""
        event = Event(
            deployment_id=looked_at.id,
            organization=looked_at.organization,
            reason="Autoscaled",
            message=f"from {current} to {recommendation.replicas} replicas: "
            + "; ".join(recommendation.reasons),
            at=recommendation.at,
        )

        async def write(tx: Tx) -> bool:
            stored = await deployments.get(tx, looked_at.id)
            if stored is None or stored.deleting or _asked(stored) != _asked(looked_at):
                return False
            if (await _most(tx, stored, recommendation.replicas))[0] < recommendation.replicas:
                return False  # others have taken it meanwhile: the next look says so
            await deployments.set_recommendation(tx, looked_at.id, recommendation)
            await events.append(tx, event)
            return True

        if await self._database.write(write):
            self._wake()
            self._recorder.announce(event)

    async def _within_quota(
        self, item: DesiredDeployment, verdict: Scale | Hold, now: float
    ) -> Scale | Hold:
        """Return the verdict as far as the quota of its organization allows; tell where not."""
        deployment = item.deployment
        if not isinstance(verdict, Scale):
            self._short.pop(deployment.id, None)
            return verdict
        async with self._database.read() as tx:
            most, excesses = await _most(tx, deployment, verdict.recommendation.replicas)
        if not excesses:
            self._short.pop(deployment.id, None)
            return verdict
        bounded = limited(verdict, target_replicas(item), most, [one.words for one in excesses])
        why = "; ".join(one.dimension.value for one in excesses)
        if self._short.get(deployment.id) != why and isinstance(bounded, Hold):
            await self._recorder.record(_short_event(deployment, bounded.reason, now))
        self._short[deployment.id] = why
        return bounded

    def _wanted_at_zero(self) -> bool:
        return any(self._gateway.load(id_).queued for id_ in self._at_zero)

    def _forget_all_but(self, present: set[str]) -> None:
        for gone in self._memories.keys() - present:
            del self._memories[gone]
            self._verdicts.pop(gone, None)
            self._short.pop(gone, None)
        self._at_zero &= present

    def _memory(self, item: DesiredDeployment) -> _Memory:
        """Return what is remembered; nothing, when a person has set the count since."""
        asked = _asked(item.deployment)
        known = self._memories.get(item.deployment.id)
        if known is None or known.asked != asked or self._is_cut(known):
            return _Memory(asked)
        return known

    def _is_cut(self, known: _Memory) -> bool:
        """Tell whether time was skipped since it was last added to: its window is none."""
        skips = [stall.at for stall in self._lag.stalls() if stall.kind in SKIPS]
        return bool(known.needs and skips) and max(skips) > known.needs[-1].at

    def _inputs(
        self, item: DesiredDeployment, history: tuple[Need, ...], now: float
    ) -> AutoscaleInputs:
        spec, load = item.revision.spec, self._gateway.load(item.deployment.id)
        observed = self._observer.latest()
        return AutoscaleInputs(
            scaling=spec.scaling,
            current=target_replicas(item),
            ready=load.targets,
            slots_per_replica=spec.serving.max_concurrency,
            in_flight=load.in_flight,
            queued=load.queued,
            average=load.average,
            sampled_at=now,
            gpu=_gpu_use(item, observed.node.gpus) if spec.resources.gpu_millis else None,
            idle_since=self._idle_since(item.deployment.id, now),
            stalled=self._stalled,
            history=history,
        )

    def _idle_since(self, deployment_id: str, now: float) -> float | None:
        """Return since when it is idle; time in which nobody could have reached it is not idle."""
        since = self._gateway.idle_since(deployment_id)
        return None if since is None else since + lost_on_clock(self._lag.stalls(), since, now)


async def _most(tx: Tx, deployment: Deployment, wanted: int) -> tuple[int, tuple[Excess, ...]]:
    """Return how many of the wanted replicas the organization's quota allows, and why not all."""
    book = await read_book(tx, deployment.organization)
    known = book.wanted.get(deployment.id)
    if known is None:
        return wanted, ()
    return most_replicas(book.limits, book.asked, known.needs, known.current, wanted)


def _short_event(deployment: Deployment, reason: str, now: float) -> Event:
    return Event(
        deployment_id=deployment.id,
        organization=deployment.organization,
        reason="QuotaReached",
        message=reason,
        severity=Severity.WARNING,
        at=now,
    )


def _asked(deployment: Deployment) -> tuple[int, float]:
    """Return what changes whenever a person sets the count."""
    return deployment.asked_replicas, deployment.updated_at


def _gpu_use(item: DesiredDeployment, sample: GpuSample) -> GpuUse:
    serving = [r for r in item.replicas if r.state is ReplicaState.RUNNING]
    used = {uuid for replica in serving for uuid in replica.placement.gpu_uuids}
    return GpuUse(utilization=_average(used, sample), stale_since=sample.stale_since)


def _average(uuids: set[str], sample: GpuSample) -> float | None:
    found: Sequence[float] = [
        gpu.utilization_percent / 100
        for gpu in sample.gpus
        if gpu.uuid in uuids and gpu.utilization_percent is not None
    ]
    return sum(found) / len(found) if found else None
