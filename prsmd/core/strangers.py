"""Decides how much memory of each GPU is in use by processes that are not ours.

Knows nothing of reservations: what our own replicas use is covered by what they reserved.
"""

from collections.abc import Mapping, Sequence

from prsmd.domain.node import Gpu, GpuProcess
from prsmd.domain.quantity import MIB

# Memory that the driver takes for itself on an idle device and reports as used. Data-centre GPUs
# show 300 to 650 MiB; a process that hides inside this much cannot make a model fail to load.
DRIVER_BASELINE_BYTES = 640 * MIB


def strangers_memory(gpus: Sequence[Gpu], own_pids: frozenset[int]) -> Mapping[str, int]:
    """Return the bytes in use by processes other than `own_pids`, by GPU UUID, 0 included.

    Where the driver lists every process with its size, strangers are the sum of those that are not
    ours, and what remains of `used` is the driver's own. Where it does not (no process visible, or
    a foreign one without a size), all use that is neither ours nor the driver's is strangers'.
    """
    return {gpu.uuid: _on(gpu, own_pids) for gpu in gpus}


def strangers_pids(gpus: Sequence[Gpu], own_pids: frozenset[int]) -> Mapping[str, tuple[int, ...]]:
    """Return the numbers of the strangers, by GPU UUID, largest first.

    Refusals tell these to every organization; what the processes are called is for administrators.
    """
    return {gpu.uuid: _pids(gpu, own_pids) for gpu in gpus}


def _pids(gpu: Gpu, own_pids: frozenset[int]) -> tuple[int, ...]:
    foreign = [process for process in gpu.processes if process.pid not in own_pids]
    foreign.sort(key=lambda process: (-(process.memory_bytes or 0), process.pid))
    return tuple(process.pid for process in foreign)


def _on(gpu: Gpu, own_pids: frozenset[int]) -> int:
    foreign = [process for process in gpu.processes if process.pid not in own_pids]
    named = _known_bytes(foreign)
    if gpu.processes and all(process.memory_bytes is not None for process in foreign):
        return named
    unexplained = gpu.memory_used_bytes - _known_bytes(gpu.processes) - DRIVER_BASELINE_BYTES
    return named + max(0, unexplained)


def _known_bytes(processes: Sequence[GpuProcess]) -> int:
    return sum(process.memory_bytes or 0 for process in processes)
