"""Decides where a replica goes: on which GPUs of the node, and what it reserves there.

Reads no clock and changes nothing; a refusal says why for the node and for every GPU.
"""

from collections.abc import Mapping, Sequence

from prsmd.core.capacity import GpuRoom, gpu_rooms
from prsmd.core.filters import gpu_memory_asked, gpu_refusal, node_refusals
from prsmd.core.plan import Capacity, Unplaceable
from prsmd.domain.node import Gpu
from prsmd.domain.quantity import MILLI
from prsmd.domain.replica import Placement
from prsmd.domain.spec import Resources

_SHOWN_UUID = 12


def place(
    resources: Resources, capacity: Capacity, asker: str | None = None
) -> Placement | Unplaceable:
    """Return what to reserve for one replica, or why it fits nowhere.

    The words are for the organization `asker` and name nothing of another one; None: for the
    appliance's administrators.

    A share goes on the fullest GPU that has room, so that whole GPUs stay whole; whole GPUs are
    those with the least memory in strangers' use. Ties go to the lower index.
    """
    refusals = node_refusals(resources, capacity)
    rooms = gpu_rooms(capacity, asker) if resources.gpu_count and "GPUs" not in refusals else []
    verdicts = [(room, gpu_refusal(resources, room)) for room in rooms]
    fitting = [room for room, reason in verdicts if reason is None]
    if refusals or len(fitting) < resources.gpu_count:
        return _unplaceable(resources, refusals, verdicts)
    if not resources.gpu_count:
        return _reservation(resources, capacity.node, [])
    order = _fullest_first if resources.shares_gpu else _quietest_first
    chosen = sorted(fitting, key=order)[: resources.gpu_count]
    return _reservation(resources, capacity.node, chosen)


def gpu_words(gpu: Gpu) -> str:
    """Return how a reason names a GPU: the beginning of its UUID and its model."""
    uuid = gpu.uuid if len(gpu.uuid) <= _SHOWN_UUID else gpu.uuid[:_SHOWN_UUID] + "…"
    return f"{uuid} ({gpu.name})"


def _fullest_first(room: GpuRoom) -> tuple[int, int, int]:
    return (room.free_millis, room.free_bytes, room.gpu.index)


def _quietest_first(room: GpuRoom) -> tuple[int, int]:
    return (room.strangers_bytes, room.gpu.index)


def _reservation(resources: Resources, node: str, chosen: Sequence[GpuRoom]) -> Placement:
    if not chosen:
        memory = 0
    elif resources.shares_gpu:
        memory = gpu_memory_asked(resources, chosen[0])
    else:  # one number holds for each GPU: all that is left of the smallest
        memory = min(room.free_bytes for room in chosen)
    return Placement(
        node=node,
        cpu_millis=resources.cpu_millis,
        memory_bytes=resources.memory_bytes,
        gpu_uuids=tuple(room.gpu.uuid for room in chosen),
        gpu_millis=(resources.gpu_millis if resources.shares_gpu else MILLI) if chosen else 0,
        gpu_memory_bytes=memory,
    )


def _unplaceable(
    resources: Resources,
    refusals: Mapping[str, str],
    verdicts: Sequence[tuple[GpuRoom, str | None]],
) -> Unplaceable:
    refused = sum(reason is not None for _, reason in verdicts)
    missing = list(refusals)
    if len(verdicts) - refused < resources.gpu_count and verdicts:
        asked = f", {resources.gpu_count} asked" if resources.gpu_count > 1 else ""
        missing.append(f"{refused} of {len(verdicts)} GPUs refused{asked}")
    lines = [f"{gpu_words(room.gpu)}: {reason or 'has room'}" for room, reason in verdicts]
    return Unplaceable(
        summary="insufficient resources: " + ", ".join(missing),
        reasons=(*refusals.values(), *lines),
    )
