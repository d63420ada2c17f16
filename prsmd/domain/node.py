"""The appliance's hardware as last measured. Every sample says when it was taken."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process holding memory on a GPU. `memory_bytes` is None where the driver does not tell."""

    pid: int
    memory_bytes: int | None
    name: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device (or MIG instance), named by its UUID. Percentages are 0..100; None: not supported.

    `unhealthy` is the reason why nothing new may be placed here, or None.
    """

    uuid: str
    index: int
    name: str
    memory_total_bytes: int
    memory_used_bytes: int
    processes: tuple[GpuProcess, ...] = ()
    utilization_percent: float | None = None
    memory_bandwidth_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    mig_parent: str | None = None
    xid_errors: tuple[int, ...] = ()
    unhealthy: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """All GPUs at one moment. `taken_at` is seconds since the epoch.

    `stale_since` is when fresh samples stopped coming (None: fresh); `error` says why, and is also
    set when there is no driver at all. `supported` is False on a machine without NVML.
    """

    gpus: tuple[Gpu, ...]
    taken_at: float
    stale_since: float | None = None
    error: str | None = None
    supported: bool = True
    driver_version: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """Host cpu and memory at one moment. `cpu_percent` is of the whole machine, 0..100."""

    cpu_count: int
    cpu_percent: float
    memory_total_bytes: int
    memory_available_bytes: int
    taken_at: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host with one container engine, and how much of it models may reserve."""

    name: str
    cpu_millis: int
    memory_bytes: int
    gpus: GpuSample
    host: HostSample


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one replica uses: cpu in percent of its reservation, memory likewise. None: unknown."""

    cpu_percent: float | None
    memory_percent: float | None
    memory_bytes: int | None
    taken_at: float
