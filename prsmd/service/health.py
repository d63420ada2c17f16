"""Whether the daemon works, and the numbers that monitoring reads."""

import dataclasses
import time
from collections.abc import Mapping

from prsmd.domain.access import Permission
from prsmd.domain.node import GpuSample, HostSample
from prsmd.engine.loop_lag import Lag
from prsmd.engine.observer import Observer
from prsmd.engine.reconciler import Reconciler
from prsmd.gateway.infer import Gateway, Load, Totals
from prsmd.service.audit import Audit, Backlog
from prsmd.service.caller import Caller, require_own
from prsmd.service.failures import Failures
from prsmd.service.status import Report, Status
from prsmd.store.beside import Files

_SLOWEST_TICK_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What one scrape shows: deployments with their load and totals, and the hardware.

    `revisions` are the totals of each deployment's newest revisions, by their number. `audit` is
    for who sees every organization: None for others, whom it would tell how much the rest infers;
    `failures`, the failed attempts to say who one is by reason, are likewise.
    """

    reports: list[Report]
    totals: Mapping[str, Totals]
    revisions: Mapping[str, Mapping[int, Totals]]
    loads: Mapping[str, Load]
    gpus: GpuSample
    host: HostSample
    engine_reachable: bool
    store_writable: bool
    store_damaged: bool
    usage_damaged: bool
    audit: Backlog | None
    failures: Mapping[str, int]
    tick_age_seconds: float
    lag: Lag


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """What is on record: the audit, and who failed to say who they are."""

    audit: Audit
    failures: Failures


class Health:
    """Use cases of monitoring."""

    def __init__(
        self,
        *,
        files: Files,
        observer: Observer,
        reconciler: Reconciler,
        gateway: Gateway,
        status: Status,
        recorded: Recorded,
    ) -> None:
        self._lag = observer.lag
        self._database = files.control
        self._usage = files.usage
        self._beside = files.beside
        self._observer = observer
        self._reconciler = reconciler
        self._gateway = gateway
        self._status = status
        self._audit, self._failures = recorded.audit, recorded.failures

    def ready(self) -> bool:
        """Return whether the loop runs, the engine answers and the store can be written.

        Inference goes on without its audit: what cannot be recorded makes nothing unready.
        """
        return self.trouble() is None

    def trouble(self) -> str | None:
        """Return why not, in words that tell nothing of this machine; None where it is ready."""
        found = self._trouble_of_files()
        if found is not None:
            return found
        if self._observer.latest().containers is None:
            return "the engine does not answer"
        if self._lag.on_time_since(self._reconciler.last_tick) >= _SLOWEST_TICK_SECONDS:
            return "the loop does not move"
        return None

    def _trouble_of_files(self) -> str | None:
        if self._database.damage is not None:
            return "the file of the state is damaged"
        if not self._database.in_place():
            return "the file of the state was removed or replaced"
        if not self._database.writable:
            return "the state cannot be written"
        if self._beside.needed:
            return "a file that the next start needs was removed, changed or damaged"
        return None

    async def measure(self, caller: Caller) -> Measurements:
        """Return everything a scrape shows, of the organizations that the caller sees."""
        require_own(caller, Permission.NODE_READ)
        observed = self._observer.latest()
        reports = await self._status.all(caller.scope)
        totals, revisions = self._gateway.totals(), self._gateway.revision_totals()
        seen = [report.deployment.id for report in reports]
        return Measurements(
            reports=reports,
            totals={key: totals[key] for key in seen if key in totals},
            revisions={key: revisions[key] for key in seen if key in revisions},
            loads={key: self._gateway.load(key) for key in seen},
            gpus=observed.node.gpus,
            host=observed.node.host,
            engine_reachable=observed.containers is not None,
            store_writable=self._database.writable,
            store_damaged=self._database.damage is not None,
            usage_damaged=self._usage is not None and self._usage.damage is not None,
            audit=self._audit.backlog() if caller.scope is None else None,
            failures=self._failures.metrics() if caller.scope is None else {},
            tick_age_seconds=self._tick_age(),
            lag=self._lag.lag(),
        )

    def _tick_age(self) -> float:
        return time.monotonic() - self._reconciler.last_tick
