"""What a deployment looks like now: rows, the last observation and measurements put together."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from prsmd.core.autoscale import Hold, Scale
from prsmd.core.plan import DesiredDeployment, Observed
from prsmd.core.status import StatusView, derive
from prsmd.domain.access import Permission
from prsmd.domain.deployment import Deployment, Revision
from prsmd.domain.node import Gpu, Usage
from prsmd.domain.replica import Replica, ReplicaState
from prsmd.domain.rollout import RolloutPhase
from prsmd.engine.launcher import Launcher
from prsmd.engine.observer import Observer
from prsmd.engine.reconciler import Reconciler
from prsmd.engine.recorder import Recorder
from prsmd.engine.rows import current_replicas, desired_of
from prsmd.engine.usage import UsageMeter
from prsmd.gateway.infer import Gateway, Load, Performance
from prsmd.runtime.base import PullProgress
from prsmd.service.caller import Caller, require_own
from prsmd.service.deployments import find_deployment, find_model
from prsmd.service.listing import listed
from prsmd.service.rollouts import RolloutReport, TrafficShare, report_of, shares_of
from prsmd.service.settling import Settling
from prsmd.store import deployments
from prsmd.store.db import Database, Tx

_SETTLED = frozenset({"running", "idle", "failed", "degraded"})
_Rows = Mapping[str, Sequence[Replica]]  # by deployment id, oldest first


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """One replica as a person wants to see it."""

    replica: Replica
    ready: bool
    in_flight: int
    usage: Usage | None
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One deployment with everything that status, list and models show. Percentages are 0..100.

    `rollout` is the latest one, ended or not; `traffic` how requests divide between revisions.
    `held` is why the autoscaler left the replicas as they are at its last look, if it did.
    """

    deployment: Deployment
    revision: Revision
    rollout: RolloutReport | None
    traffic: tuple[TrafficShare, ...]
    view: StatusView
    replicas: tuple[ReplicaReport, ...]
    performance: Performance
    load: Load
    cpu_percent: float | None
    memory_percent: float | None
    gpu_percent: float | None
    held: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a report's measurements come from."""

    database: Database
    observer: Observer
    reconciler: Reconciler
    gateway: Gateway
    launcher: Launcher
    usage: UsageMeter
    recorder: Recorder
    verdict: Callable[[str], Scale | Hold | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a list, in which order."""

    limit: int = 20
    offset: int = 0
    sort_by: str = "created_at"
    sort_order: str = "desc"


class Status:
    """Use cases that look at deployments."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._settling = Settling(self._settled, sources.recorder.changed)

    async def get(self, caller: Caller, reference: str, wait_seconds: float = 0.0) -> Report:
        """Return one deployment, after it settles or `wait_seconds` are over."""
        deadline = time.monotonic() + wait_seconds
        while True:
            report = await self._get(caller, reference)
            left = deadline - time.monotonic()
            if report.view.status.value in _SETTLED or left <= 0:
                return report
            await self._settling.wait(report.deployment.id, left)

    async def model(self, caller: Caller, model: str) -> Report:
        """Return the deployment of one model."""
        async with self._sources.database.read() as tx:
            found = await find_model(tx, caller, model, Permission.MODELS_READ)
            return await self._report_of(tx, found)

    async def page(
        self, caller: Caller, page: Page, permission: Permission = Permission.MODELS_READ
    ) -> tuple[list[Report], int]:
        """Return one page of the caller's deployments and how many there are in all.

        Those that others lend to the caller are among them, where they are lent for this.
        """
        require_own(caller, permission)
        async with self._sources.database.read() as tx:
            whose, also = await listed(tx, caller, permission)
            order = (page.sort_by, page.sort_order)
            found, total = await deployments.page(tx, whose, page.limit, page.offset, order, also)
            rows = await current_replicas(tx, [deployment.id for deployment in found])
            reports = [await self._report(tx, deployment, rows) for deployment in found]
        return reports, total

    async def all(self, organization: str | None = None) -> list[Report]:
        """Return every deployment of an organization (None: of all), for metrics."""
        async with self._sources.database.read() as tx:
            found = await deployments.list_of(tx, organization)
            own = None if organization is None else [deployment.id for deployment in found]
            rows = await current_replicas(tx, own)
            return [await self._report(tx, deployment, rows) for deployment in found]

    async def _get(self, caller: Caller, reference: str) -> Report:
        async with self._sources.database.read() as tx:
            found = await find_deployment(tx, caller, reference, Permission.MODELS_READ)
            return await self._report_of(tx, found)

    async def _settled(self, deployment_id: str) -> bool:
        """Tell whether a deployment has settled, or is gone."""
        async with self._sources.database.read() as tx:
            found = await deployments.get(tx, deployment_id)
            if found is None:
                return True
            report = await self._report_of(tx, found)
        return report.view.status.value in _SETTLED

    async def _report_of(self, tx: Tx, deployment: Deployment) -> Report:
        return await self._report(tx, deployment, await current_replicas(tx, [deployment.id]))

    async def _report(self, tx: Tx, deployment: Deployment, rows: _Rows) -> Report:
        desired = await desired_of(tx, deployment, rows.get(deployment.id, ()))
        return self._assemble(desired, self._measured(await report_of(tx, deployment.id)))

    def _measured(self, report: RolloutReport | None) -> RolloutReport | None:
        """Return the report with what the data path has measured, while a trial is under way."""
        if report is None or report.rollout.phase is not RolloutPhase.TRYING:
            return report
        reading = self._sources.gateway.trial_readings().get(report.rollout.deployment_id)
        return dataclasses.replace(report, measured=reading)

    def _assemble(self, desired: DesiredDeployment, rollout: RolloutReport | None) -> Report:
        sources, now = self._sources, time.time()
        deployment, rows = desired.deployment, desired.replicas
        observed = dataclasses.replace(sources.observer.latest(), at=now)
        holds = sources.reconciler.holds_of(deployment.id)
        active = [row for row in rows if row.active]
        verdict = sources.verdict(deployment.id)
        usages = [usage for row in active if (usage := sources.usage.usage(row.id))]
        return Report(
            deployment=deployment,
            revision=desired.revision,
            rollout=rollout,
            traffic=shares_of(desired.revision, rollout),
            view=derive(desired, observed, holds),
            replicas=self._replicas(desired, observed),
            performance=sources.gateway.performance(deployment.id, now),
            load=sources.gateway.load(deployment.id),
            cpu_percent=_mean([u.cpu_percent for u in usages]),
            memory_percent=_mean([u.memory_percent for u in usages]),
            gpu_percent=_gpu_percent(active, observed),
            held=verdict.reason if isinstance(verdict, Hold) else None,
        )

    def _replicas(
        self, desired: DesiredDeployment, observed: Observed
    ) -> tuple[ReplicaReport, ...]:
        in_flight = self._sources.gateway.in_flight(desired.deployment.id)
        rows = _shown(desired.replicas)
        return tuple(self._replica(row, observed, desired, in_flight) for row in rows)

    def _replica(
        self,
        row: Replica,
        observed: Observed,
        desired: DesiredDeployment,
        in_flight: Mapping[str, int],
    ) -> ReplicaReport:
        probe = observed.probes.get(row.id)
        return ReplicaReport(
            replica=row,
            ready=row.state is ReplicaState.RUNNING and probe is not None and probe.ready,
            in_flight=in_flight.get(row.id, 0),
            usage=self._sources.usage.usage(row.id) if row.active else None,
            message=self._message(row, desired.revision_of(row), probe.words if probe else None),
        )

    def _message(self, row: Replica, revision: Revision, probe_error: str | None) -> str:
        if row.exit is not None:
            return row.exit.message
        if row.state is ReplicaState.PENDING:
            progress = self._sources.launcher.progress(row.organization, revision.spec.image)
            return f"pulling {revision.spec.image}: {_pulled(progress)}" if progress else "queued"
        return probe_error or ""


def _shown(rows: Sequence[Replica]) -> list[Replica]:
    """Return the active replicas and, for each slot, the one that ended last."""
    ended = {(row.revision, row.slot): row for row in rows if not row.active}
    active = [row for row in rows if row.active]
    filled = {(row.revision, row.slot) for row in active if row.state is ReplicaState.RUNNING}
    return active + [row for place, row in ended.items() if place not in filled]


def _pulled(progress: PullProgress) -> str:
    done, total = progress.done_bytes / 1e6, progress.total_bytes
    so_far = f"{done:.0f} MB" if total is None else f"{done:.0f} of {total / 1e6:.0f} MB"
    if progress.trouble is None:
        return so_far
    return f"{so_far}, attempt {progress.attempt}: the last one broke off: {progress.trouble}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _gpu_percent(active: Sequence[Replica], observed: Observed) -> float | None:
    if observed.node.gpus.stale_since is not None:
        return None
    gpus: Mapping[str, Gpu] = {gpu.uuid: gpu for gpu in observed.node.gpus.gpus}
    used = {uuid for row in active for uuid in row.placement.gpu_uuids if uuid in gpus}
    return _mean([gpus[uuid].utilization_percent for uuid in sorted(used)])
