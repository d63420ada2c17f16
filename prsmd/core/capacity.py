"""Says what of the node is left to place on. Gathers; the deciding is in `filters` and `place`."""

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from prsmd.core import quota_admission
from prsmd.core.plan import Capacity, Observed
from prsmd.domain.node import Gpu, GpuSample
from prsmd.domain.quantity import MILLI
from prsmd.domain.replica import Replica
from prsmd.domain.resource_quota import Limits

_ANOTHER = "another organization"


def capacity_of(
    observed: Observed,
    replicas: Iterable[Replica],
    limits: Mapping[str, Limits] = MappingProxyType({}),
) -> Capacity:
    """Return the node as placement sees it. `replicas` are all rows; only active ones reserve.

    `limits` are organizations' quotas.
    """
    node = observed.node
    empty = Capacity(
        node=node.name,
        cpu_millis=node.cpu_millis,
        memory_bytes=node.memory_bytes,
        gpus=node.gpus.gpus,
        reservations=(),
        strangers=observed.strangers,
        stranger_pids=observed.stranger_pids,
        gpus_unknown=_why_unknown(node.gpus),
        limits=limits,
    )
    active = [replica for replica in replicas if replica.active]
    return reserve(empty, sorted(active, key=lambda replica: (replica.created_at, replica.id)))


def reserve(capacity: Capacity, replicas: Iterable[Replica]) -> Capacity:
    """Return `capacity` with the reservations of `replicas` added."""
    reservations = list(capacity.reservations)
    holders, owners, held = dict(capacity.holders), dict(capacity.owners), dict(capacity.held)
    for replica in replicas:
        held[replica.organization] = quota_admission.with_one_more(
            held.get(replica.organization, {}), replica.placement
        )
        reservations.append(replica.placement)
        owners[replica.id] = replica.organization
        for uuid in replica.placement.gpu_uuids:
            holders[uuid] = (*holders.get(uuid, ()), replica.id)
    return dataclasses.replace(
        capacity, reservations=tuple(reservations), holders=holders, owners=owners, held=held
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuRoom:
    """One GPU with everything that is taken of it. `split` is True for a parent of MIG devices."""

    gpu: Gpu
    reserved_millis: int
    reserved_bytes: int
    strangers_bytes: int
    holders: tuple[str, ...]
    split: bool
    stranger_pids: tuple[int, ...] = ()

    @property
    def free_millis(self) -> int:
        """Return the thousandths of the GPU that nobody reserved."""
        return max(0, MILLI - self.reserved_millis)

    @property
    def free_bytes(self) -> int:
        """Return the memory that is neither reserved nor in use by strangers."""
        return max(0, self.gpu.memory_total_bytes - self.reserved_bytes - self.strangers_bytes)


def gpu_rooms(capacity: Capacity, asker: str | None = None) -> list[GpuRoom]:
    """Return every GPU of the node in the order of its index.

    Holders are named as the organization `asker` may see them; None: to the administrators.
    """
    parents = {gpu.mig_parent for gpu in capacity.gpus}
    gpus = sorted(capacity.gpus, key=lambda gpu: (gpu.index, gpu.uuid))
    rooms = [_room(gpu, capacity, split=gpu.uuid in parents) for gpu in gpus]
    return rooms if asker is None else [_as_seen(room, capacity.owners, asker) for room in rooms]


def _as_seen(room: GpuRoom, owners: Mapping[str, str], asker: str) -> GpuRoom:
    """Return the room with nothing in its words that belongs to another organization."""
    names = [name if owners.get(name) == asker else _ANOTHER for name in room.holders]
    return dataclasses.replace(room, holders=tuple(dict.fromkeys(names)))


def _room(gpu: Gpu, capacity: Capacity, *, split: bool) -> GpuRoom:
    here = [placed for placed in capacity.reservations if gpu.uuid in placed.gpu_uuids]
    return GpuRoom(
        gpu=gpu,
        reserved_millis=sum(placed.gpu_millis for placed in here),
        reserved_bytes=sum(placed.gpu_memory_bytes for placed in here),
        strangers_bytes=capacity.strangers.get(gpu.uuid, 0),
        holders=capacity.holders.get(gpu.uuid, ()),
        stranger_pids=capacity.stranger_pids.get(gpu.uuid, ()),
        split=split,
    )


def _why_unknown(sample: GpuSample) -> str | None:
    if sample.stale_since is not None:
        return f"no fresh sample: {sample.error or 'the driver does not answer'}"
    return sample.error if not sample.gpus else None
