"""The appliance itself: what hardware there is, how it does and who holds it."""

import dataclasses

from prsmd.core.plan import Observed
from prsmd.domain.access import Permission
from prsmd.domain.node import Gpu
from prsmd.domain.replica import Replica
from prsmd.engine.observer import Observer
from prsmd.runtime.base import Runtime
from prsmd.service.caller import Caller, require_own
from prsmd.store import replicas
from prsmd.store.db import Database


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """One GPU with the replicas that reserved it, as far as the caller may see them.

    Processes are named to administrators only: they may be another organization's.
    """

    gpu: Gpu
    reserved_by: tuple[str, ...]
    reserved_millis: int
    reserved_memory_bytes: int
    strangers_memory_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """The node as last observed and what is reserved on it."""

    observed: Observed
    runtime: str
    isolates: bool
    engine_error: str | None
    reserved_cpu_millis: int
    reserved_memory_bytes: int
    gpus: tuple[GpuReport, ...]


class Nodes:
    """Use cases on the appliance."""

    def __init__(self, database: Database, observer: Observer, runtime: Runtime) -> None:
        self._database = database
        self._observer = observer
        self._runtime = runtime

    async def get(self, caller: Caller) -> NodeReport:
        """Return the node's hardware and reservations."""
        require_own(caller, Permission.NODE_READ)
        async with self._database.read() as tx:
            active = [row for row in await replicas.list_current(tx, 0) if row.active]
        observed = self._observer.latest()
        return NodeReport(
            observed=observed,
            runtime=self._runtime.name,
            isolates=self._runtime.isolates,
            engine_error=self._observer.engine_error,
            reserved_cpu_millis=sum(row.placement.cpu_millis for row in active),
            reserved_memory_bytes=sum(row.placement.memory_bytes for row in active),
            gpus=tuple(
                _gpu_report(gpu, active, observed, caller) for gpu in observed.node.gpus.gpus
            ),
        )


def _gpu_report(gpu: Gpu, active: list[Replica], observed: Observed, caller: Caller) -> GpuReport:
    holders = [row for row in active if gpu.uuid in row.placement.gpu_uuids]
    wide = caller.principal.appliance_wide
    return GpuReport(
        gpu=gpu if wide else dataclasses.replace(gpu, processes=()),
        reserved_by=tuple(
            row.id if caller.scope in {None, row.organization} else "another organization"
            for row in holders
        ),
        reserved_millis=sum(row.placement.gpu_millis for row in holders),
        reserved_memory_bytes=sum(row.placement.gpu_memory_bytes for row in holders),
        strangers_memory_bytes=observed.strangers.get(gpu.uuid, 0),
    )
