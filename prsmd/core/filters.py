"""The limits that a placement must keep: each filter looks at one and says in words why not.

A filter returns None where the limit is kept. What is chosen among the GPUs that pass is for
`place`.
"""

from collections.abc import Callable, Mapping, Sequence

from prsmd.core.capacity import GpuRoom
from prsmd.core.plan import Capacity
from prsmd.core.quota_admission import admit, reserved
from prsmd.domain.quantity import GIB, MIB, format_cpu, format_gpu, gib
from prsmd.domain.spec import Resources

NodeFilter = Callable[[Resources, Capacity], str | None]
GpuFilter = Callable[[Resources, GpuRoom], str | None]

# Desktops and monitors keep a few hundred MiB on a GPU; more is somebody's work, and whoever was
# promised a whole GPU must not compete with it for compute.
STRANGERS_TOLERANCE_BYTES = 512 * MIB


def gpu_memory_asked(resources: Resources, room: GpuRoom) -> int:
    """Return the bytes that must be free on this GPU: by default a share's part of all of it."""
    if resources.gpu_memory_bytes is not None:
        return resources.gpu_memory_bytes
    return room.gpu.memory_total_bytes * resources.gpu_millis // 1000 if resources.shares_gpu else 0


def enough_cpu(resources: Resources, capacity: Capacity) -> str | None:
    """Refuse when all cpu reservations together would exceed the node's."""
    reserved = sum(placed.cpu_millis for placed in capacity.reservations)
    if reserved + resources.cpu_millis <= capacity.cpu_millis:
        return None
    return (
        f"node: {format_cpu(reserved)} of {format_cpu(capacity.cpu_millis)} cpu reserved,"
        f" {format_cpu(resources.cpu_millis)} asked"
    )


def enough_memory(resources: Resources, capacity: Capacity) -> str | None:
    """Refuse when all memory reservations together would exceed the node's."""
    reserved = sum(placed.memory_bytes for placed in capacity.reservations)
    if reserved + resources.memory_bytes <= capacity.memory_bytes:
        return None
    free = max(0, capacity.memory_bytes - reserved)
    return f"node: {_too_little(free, capacity.memory_bytes, resources.memory_bytes, 'memory ')}"


def has_gpus(resources: Resources, capacity: Capacity) -> str | None:
    """Refuse a GPU request while the GPUs are unknown, or where there is none."""
    if not resources.gpu_count:
        return None
    if capacity.gpus_unknown is not None:
        return f"node: GPUs are unknown: {capacity.gpus_unknown}"
    return None if capacity.gpus else "node: there is no GPU"


def is_healthy(_: Resources, room: GpuRoom) -> str | None:
    """Refuse a GPU that its own telemetry calls unfit."""
    return None if room.gpu.unhealthy is None else f"unhealthy: {room.gpu.unhealthy}"


def is_whole_device(_: Resources, room: GpuRoom) -> str | None:
    """Refuse a GPU that is split into MIG devices: those are placed on one by one."""
    return "split into MIG devices" if room.split else None


def is_unreserved(resources: Resources, room: GpuRoom) -> str | None:
    """Refuse a GPU of which less is free than the replica takes."""
    asked = resources.gpu_millis if resources.shares_gpu else 1000
    if room.free_millis >= asked:
        return None
    by = " by " + ", ".join(room.holders) if room.holders else ""
    if room.free_millis == 0 and len(room.holders) <= 1:
        return f"reserved whole{by}"
    return f"{format_gpu(room.reserved_millis)} of it reserved{by}, {format_gpu(asked)} asked"


def is_left_alone(resources: Resources, room: GpuRoom) -> str | None:
    """Refuse to sell a GPU as whole while someone else works on it."""
    if resources.shares_gpu or room.strangers_bytes <= STRANGERS_TOLERANCE_BYTES:
        return None
    return _strangers_words(room)


def has_gpu_memory(resources: Resources, room: GpuRoom) -> str | None:
    """Refuse a GPU whose free memory is less than what the replica needs of it."""
    asked = gpu_memory_asked(resources, room)
    if asked <= room.free_bytes:
        return None
    reason = _too_little(room.free_bytes, room.gpu.memory_total_bytes, asked)
    if not room.strangers_bytes:
        return reason
    return f"{reason} ({_strangers_words(room)})"


def within_quota(resources: Resources, capacity: Capacity) -> str | None:
    """Refuse what an organization's replicas may not hold together, by its quota."""
    tenant = capacity.tenant
    limits = capacity.limits.get(tenant) if tenant is not None else None
    if tenant is None or not limits:
        return None
    excesses = admit(limits, capacity.held.get(tenant, {}), reserved(resources, 1))
    if not excesses:
        return None
    return f"quota of {tenant}, by what its replicas hold: " + "; ".join(e.words for e in excesses)


NODE_FILTERS: Mapping[str, NodeFilter] = {
    "cpu": enough_cpu,
    "memory": enough_memory,
    "GPUs": has_gpus,
    "the organization's quota": within_quota,
}
GPU_FILTERS: Sequence[GpuFilter] = (
    is_healthy,
    is_whole_device,
    is_unreserved,
    is_left_alone,
    has_gpu_memory,
)


def node_refusals(resources: Resources, capacity: Capacity) -> Mapping[str, str]:
    """Return every limit of the node that would be exceeded, by its name, with the reason."""
    verdicts = {name: check(resources, capacity) for name, check in NODE_FILTERS.items()}
    return {name: reason for name, reason in verdicts.items() if reason is not None}


def gpu_refusal(resources: Resources, room: GpuRoom) -> str | None:
    """Return the first reason against this GPU, or None."""
    verdicts = (check(resources, room) for check in GPU_FILTERS)
    return next((reason for reason in verdicts if reason is not None), None)


def _strangers_words(room: GpuRoom) -> str:
    pids = ", ".join(f"pid {pid}" for pid in room.stranger_pids)
    words = f"{gib(room.strangers_bytes)} in use by processes that are not prsmd's"
    return f"{words}: {pids}" if pids else words


def _too_little(free: int, total: int, asked: int, of_what: str = "") -> str:
    if gib(free) == gib(asked):  # rounding would make the reason contradict itself
        return f"{free} of {total} bytes {of_what}free is less than {asked} asked"
    return f"{free / GIB:.1f} of {gib(total)} {of_what}free is less than {gib(asked)} asked"
