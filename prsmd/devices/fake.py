"""The hardware in memory: devices for tests of the layers above, changed by plain method calls."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from prsmd.domain.node import Gpu, GpuProcess, GpuSample, HostSample
from prsmd.domain.quantity import GIB, MIB

_DRIVER = "580.65.06"


class InMemoryGpus:
    """GPUs that exist by being told. Shows a change at once, in `sample` and to `on_sample`."""

    def __init__(
        self,
        gpus: Sequence[Gpu] = (),
        *,
        on_sample: Callable[[GpuSample], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._on_sample = on_sample
        self._clock = clock
        now = clock()
        self._sample = GpuSample(gpus=(), taken_at=now, stale_since=now, error="not yet sampled")

    async def start(self) -> None:
        """Make the GPUs visible."""
        self._refresh()

    def sample(self) -> GpuSample:
        """Return the machine as last told."""
        return self._sample

    async def close(self) -> None:
        """Keep the last sample."""

    def add(self, uuid: str, *, name: str = "NVIDIA T4", memory_bytes: int = 15 * GIB) -> None:
        """Plug in a GPU."""
        self._gpus[uuid] = Gpu(
            uuid=uuid,
            index=len(self._gpus),
            name=name,
            memory_total_bytes=memory_bytes,
            memory_used_bytes=450 * MIB,
            utilization_percent=0.0,
            temperature_celsius=40.0,
        )
        self._refresh()

    def change(self, uuid: str, **values: Any) -> None:
        """Set fields of `Gpu`."""
        self._gpus[uuid] = dataclasses.replace(self._gpus[uuid], **values)
        self._refresh()

    def run(self, uuid: str, pid: int, memory_bytes: int = GIB, name: str = "") -> None:
        """Let a process hold memory on a GPU, counted in the GPU's used memory."""
        gpu = self._gpus[uuid]
        process = GpuProcess(pid=pid, memory_bytes=memory_bytes, name=name)
        self.change(
            uuid,
            processes=(*gpu.processes, process),
            memory_used_bytes=gpu.memory_used_bytes + memory_bytes,
        )

    def lose(self, uuid: str, reason: str = "the GPU is lost") -> None:
        """Make a GPU unhealthy."""
        self.change(uuid, unhealthy=reason, processes=(), utilization_percent=None)

    def recover(self, uuid: str) -> None:
        """Make a GPU healthy again."""
        self.change(uuid, unhealthy=None, utilization_percent=0.0)

    def stall(self, reason: str = "the NVIDIA driver did not answer") -> None:
        """Let samples stop coming: the last one stays, marked stale."""
        since = self._sample.stale_since or self._sample.taken_at
        self._publish(dataclasses.replace(self._sample, stale_since=since, error=reason))

    def resume(self) -> None:
        """Let samples come again after `stall`."""
        self._refresh()

    def remove_driver(self) -> None:
        """Turn this into a machine without NVML."""
        self._gpus.clear()
        self._publish(
            GpuSample(gpus=(), taken_at=self._clock(), error="no NVIDIA driver", supported=False)
        )

    def _refresh(self) -> None:
        gpus = tuple(self._gpus.values())
        self._publish(GpuSample(gpus=gpus, taken_at=self._clock(), driver_version=_DRIVER))

    def _publish(self, sample: GpuSample) -> None:
        self._sample = sample
        if self._on_sample is not None:
            self._on_sample(sample)


class InMemoryHost:
    """A host that exists by being told: its size, and what single processes use and belong to."""

    def __init__(
        self,
        *,
        cpu_count: int = 8,
        memory_bytes: int = 32 * GIB,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.usage: dict[int, tuple[float, int]] = {}
        self.replica_of: dict[int, int] = {}
        self.cpu_percent = 0.0
        self.memory_available_bytes = memory_bytes
        self._cpu_count = cpu_count
        self._memory_bytes = memory_bytes
        self._clock = clock

    def sample(self) -> HostSample:
        """Return the machine as last told."""
        return HostSample(
            cpu_count=self._cpu_count,
            cpu_percent=self.cpu_percent,
            memory_total_bytes=self._memory_bytes,
            memory_available_bytes=self.memory_available_bytes,
            taken_at=self._clock(),
        )

    def replica_usage(self, pid: int, *, own_cgroup: bool) -> tuple[float, int] | None:  # noqa: ARG002 - told per pid
        """Return what `usage` holds for `pid`."""
        return self.usage.get(pid)

    def belongs_to(self, pid: int, replica_pids: Sequence[int]) -> bool:
        """Tell whether `pid` is one of the replicas' pids or told to be in one's process tree."""
        return self.replica_of.get(pid, pid) in replica_pids
