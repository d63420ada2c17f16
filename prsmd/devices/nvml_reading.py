"""Judges what the NVML helper measured: health in words, XIDs and vanished GPUs kept.

Pure: no process, no clock of its own. `devices/nvml.py` owns the helper and feeds its lines here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prsmd.domain.node import Gpu, GpuProcess, GpuSample

from .xid import unhealthy_by_recovery, unhealthy_by_xid

LIBRARY_NOT_FOUND = 12
DRIVER_NOT_LOADED = 9
NO_DRIVER = frozenset({LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED})

_XIDS_KEPT = 16
_UNOPENED = "index-"  # what the helper calls a GPU whose UUID it cannot read
_VANISHED = "the driver no longer reports this GPU"
_MIG = "MIG is enabled: models run on its instances, not on the whole GPU"

_FAULTS: Mapping[int, str] = {
    4: "no permission to talk to the driver: check the rights of /dev/nvidia*",
    DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
    LIBRARY_NOT_FOUND: "no NVIDIA driver on this machine (libnvidia-ml.so.1 was not found)",
    15: "the GPU is lost: it fell off the bus or was disconnected",
    16: "the GPU needs a reset before it can be used again",
    18: "the NVIDIA driver in the kernel and its libraries have different versions, as after an"
    " upgrade: reboot, or reload the nvidia kernel modules",
}


def fault_in_words(code: int, text: str) -> str:
    """Return an NVML error for an operator, with what to do about it where that is known."""
    return _FAULTS.get(code, f"NVML error {code}: {text}")


class KnownGpus:
    """Every GPU seen so far, with its last values and XIDs.

    `incomplete` while one is lost, vanished or cannot be opened: worth a look with a fresh process.
    """

    def __init__(self) -> None:
        self.gpus: tuple[Gpu, ...] = ()
        self.incomplete = False
        self._xids: dict[str, tuple[int, ...]] = {}
        self._damaged: dict[str, str] = {}  # apart, so that later XIDs cannot push a verdict out

    def take(self, line: Mapping[str, Any], taken_at: float) -> GpuSample:
        """Fold one line of the helper in and return the sample that it makes."""
        for uuid, xid in line["xids"]:
            self._note_xid(uuid, xid)
        before = {gpu.uuid: gpu for gpu in self.gpus}
        present = [self._gpu(entry, before) for entry in line["gpus"]]
        vanished = _vanished(self.gpus, present)
        self.gpus = (*_without_doubles(present, vanished), *vanished)
        self.incomplete = bool(vanished) or any(entry.get("fault") for entry in line["gpus"])
        return GpuSample(gpus=self.gpus, taken_at=taken_at, driver_version=line["driver"])

    def _note_xid(self, uuid: str, xid: int) -> None:
        self._xids[uuid] = (*self._xids.get(uuid, ()), xid)[-_XIDS_KEPT:]
        damage = unhealthy_by_xid(xid)
        if damage is not None:
            self._damaged[uuid] = damage

    def _gpu(self, entry: Mapping[str, Any], before: Mapping[str, Gpu]) -> Gpu:
        chip = entry.get("mig_parent", entry["uuid"])
        xids = self._xids.get(chip, ())
        if entry.get("fault"):
            return _faulty(entry, before.get(entry["uuid"]), xids)
        return Gpu(
            uuid=entry["uuid"],
            index=entry["index"],
            name=entry["name"],
            memory_total_bytes=entry["total"],
            memory_used_bytes=entry["used"],
            processes=tuple(
                GpuProcess(pid=pid, memory_bytes=used, name=name)
                for pid, used, name in entry["processes"]
            ),
            utilization_percent=entry.get("util"),
            memory_bandwidth_percent=entry.get("membw"),
            temperature_celsius=entry.get("temp"),
            power_watts=entry.get("power"),
            mig_parent=entry.get("mig_parent"),
            xid_errors=xids,
            unhealthy=unhealthy_by_recovery(entry.get("recovery"))
            or self._damaged.get(chip)
            or (_MIG if entry.get("mig") else None),
        )


def _faulty(entry: Mapping[str, Any], before: Gpu | None, xids: tuple[int, ...]) -> Gpu:
    known = before or Gpu(
        uuid=entry["uuid"],
        index=entry["index"],
        name=entry["name"] or "GPU that cannot be opened",
        memory_total_bytes=0,
        memory_used_bytes=0,
    )
    return _gone(dataclasses.replace(known, xid_errors=xids), fault_in_words(*entry["fault"]))


def _vanished(before: Sequence[Gpu], present: Sequence[Gpu]) -> list[Gpu]:
    here = {gpu.uuid: gpu for gpu in present}
    return [
        _gone(gpu, _VANISHED)
        for gpu in before
        if gpu.uuid not in here
        and not gpu.uuid.startswith(_UNOPENED)
        and not _was_deleted(gpu, here)
    ]


def _was_deleted(gpu: Gpu, here: Mapping[str, Gpu]) -> bool:
    """Tell whether a MIG instance is gone because an operator removed it: its GPU still works."""
    parent = here.get(gpu.mig_parent or "")
    return parent is not None and parent.unhealthy in {_MIG, None}


def _without_doubles(present: Sequence[Gpu], vanished: Sequence[Gpu]) -> list[Gpu]:
    """Leave out a GPU that cannot be opened where the one known at its index is listed anyway."""
    known = {gpu.index for gpu in vanished}
    return [g for g in present if not (g.uuid.startswith(_UNOPENED) and g.index in known)]


def _gone(gpu: Gpu, reason: str) -> Gpu:
    """Return the GPU as last known, without what is certainly no longer true of it."""
    return dataclasses.replace(
        gpu,
        processes=(),
        utilization_percent=None,
        memory_bandwidth_percent=None,
        temperature_celsius=None,
        power_watts=None,
        unhealthy=reason,
    )
