"""How events tell an operator where a replica was placed and what came up. Decides nothing."""

from collections.abc import Sequence

from prsmd.core.place import gpu_words
from prsmd.domain.node import Gpu
from prsmd.domain.quantity import MILLI, format_cpu, format_gpu, gib
from prsmd.domain.replica import Placement, Replica
from prsmd.runtime.base import Container

_SHORT_ID = 12  # as engines print the 64 digits of an id


def placed_words(placement: Placement, gpus: Sequence[Gpu]) -> str:
    """Return what is reserved and where: "2 cpu, 4 GiB and GPU-1f… (NVIDIA T4) on node rack-7"."""
    known = {gpu.uuid: gpu_words(gpu) for gpu in gpus}
    share = f"{format_gpu(placement.gpu_millis)} of " if 0 < placement.gpu_millis < MILLI else ""
    named = [share + known.get(uuid, uuid) for uuid in placement.gpu_uuids]
    first = f"{format_cpu(placement.cpu_millis)} cpu, {gib(placement.memory_bytes)}"
    return f"{first} and {', '.join(named) or 'no GPU'} on node {placement.node}"


def started_words(replica: Replica, container: Container) -> str:
    """Return what came up: its address, and the engine's name for it where it has one."""
    at = f" at {container.endpoint}" if container.endpoint is not None else ""
    named = "" if container.id == replica.id else f" (container {container.id[:_SHORT_ID]})"
    return f"up{at}{named}; it is ready once it answers its health check"
