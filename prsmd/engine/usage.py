"""How much of its reservation each replica uses, from successive readings of its cgroup."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

from prsmd.core.plan import DesiredDeployment
from prsmd.devices.base import Host
from prsmd.domain.node import Usage
from prsmd.domain.replica import Placement
from prsmd.runtime.base import Container

_LEAST_SECONDS = 1.0  # a shorter interval between readings says little about cpu


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    cpu_seconds: float
    taken_at: float


class UsageMeter:
    """Keeps the last reading of every running replica. cpu needs two of them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._readings: dict[str, _Reading] = {}
        self._usage: dict[str, Usage] = {}

    def usage(self, replica_id: str) -> Usage | None:
        """Return what a replica used when last measured; None where it never was."""
        return self._usage.get(replica_id)

    def sample(
        self, desired: Sequence[DesiredDeployment], containers: Mapping[str, Container]
    ) -> None:
        """Read every active replica that has a running container; forget the others."""
        placements = {r.id: r.placement for d in desired for r in d.replicas if r.active}
        for gone in self._usage.keys() - placements.keys():
            self._usage.pop(gone)
            self._readings.pop(gone, None)
        for replica_id, placement in placements.items():
            container = containers.get(replica_id)
            if container is not None and container.pid is not None:
                self._read(replica_id, container, placement)

    def _read(self, replica_id: str, container: Container, placement: Placement) -> None:
        assert container.pid is not None  # noqa: S101 - the caller checked
        read = self._host.replica_usage(container.pid, own_cgroup=container.own_cgroup)
        before = self._readings.get(replica_id)
        if read is None:
            return
        cpu_seconds, memory = read
        now = time.monotonic()
        if before is not None and now - before.taken_at < _LEAST_SECONDS:
            return
        self._readings[replica_id] = _Reading(cpu_seconds, now)
        cpu = None
        if before is not None and cpu_seconds >= before.cpu_seconds:
            cores = (cpu_seconds - before.cpu_seconds) / (now - before.taken_at)
            cpu = 100.0 * cores / (placement.cpu_millis / 1000)
        self._usage[replica_id] = Usage(
            cpu_percent=cpu,
            memory_percent=100.0 * memory / placement.memory_bytes,
            memory_bytes=memory,
            taken_at=time.time(),
        )
