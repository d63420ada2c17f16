"""The process that talks to NVML: it measures on request and judges nothing.

Calls into the NVIDIA driver can block for ever, so they happen here, where the parent can kill
them. The parent writes one line to standard input for each sample it wants and gets one line of
JSON back; the format is the `_sample` below and `devices/nvml.py` reads it. A failure that ends the
usefulness of this process (no driver, driver reloaded) is one last line
`{"fatal": CODE, "text": ...}`. The process ends when standard input does, or with its parent.

It runs as a file of its own (`python -I nvml_helper.py`), so that it imports nothing of prsmd and
stays small: only the standard library and `pynvml`.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

if __name__ == "__main__":
    # pynvml imports ctypes.util and uses nothing of it; the real one brings subprocess, tempfile
    # and all they import: 2 MB of the 15 that this process would have.
    _unused = types.ModuleType("ctypes.util")
    _unused.find_library = None  # type: ignore[attr-defined]
    sys.modules.setdefault("ctypes.util", _unused)

try:
    import pynvml
except ImportError as error:
    print(json.dumps({"fatal": 12, "text": f"the package nvidia-ml-py is missing: {error}"}))  # noqa: T201 - the pipe to the parent
    sys.exit(0)

_PR_SET_PDEATHSIG = 1
_EVENTS_PER_SAMPLE = 64
_EVENT_WAIT_MS = 1  # only events that are already there; 0 is not documented to mean "do not wait"
_XID = pynvml.nvmlEventTypeXidCriticalError
_RECOVERY_ACTION = getattr(pynvml, "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", 230)

# About one device, not about NVML as a whole: the others are still measured.
_DEVICE_FAULTS = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})
_GLOBAL_FAULTS = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)


class _Device:
    """A physical GPU: its handle and what never changes."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.handle: Any = None
        self.uuid = f"index-{index}"  # until the driver tells
        self.name = ""
        self.open_fault: list[Any] | None = None
        with self._noting_fault():
            self.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            self.uuid = pynvml.nvmlDeviceGetUUID(self.handle)
            self.name = pynvml.nvmlDeviceGetName(self.handle)

    def sample(self) -> list[dict[str, Any]]:
        """Return this GPU and, with MIG, its instances."""
        whole: dict[str, Any] = {"uuid": self.uuid, "index": self.index, "name": self.name}
        if self.open_fault is not None:
            return [whole | {"fault": self.open_fault}]
        try:
            return self._measure(whole)
        except pynvml.NVMLError as error:
            return [whole | {"fault": _fault_of_device(error)}]

    def address(self) -> int | None:
        """Return what identifies the handle in an event; None if the GPU cannot be opened."""
        return None if self.handle is None else _address(self.handle)

    def _measure(self, whole: dict[str, Any]) -> list[dict[str, Any]]:
        mode = _supported(pynvml.nvmlDeviceGetMigMode, self.handle)
        mig = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        utilization = _supported(pynvml.nvmlDeviceGetUtilizationRates, self.handle)
        milliwatts = _supported(pynvml.nvmlDeviceGetPowerUsage, self.handle)
        whole |= _memory(self.handle)
        whole["mig"] = mig
        # With MIG, the driver tells a process both here and at its instance.
        whole["processes"] = [] if mig else _processes(self.handle)
        whole["util"] = None if utilization is None else utilization.gpu
        whole["membw"] = None if utilization is None else utilization.memory
        whole["temp"] = _supported(
            pynvml.nvmlDeviceGetTemperature, self.handle, pynvml.NVML_TEMPERATURE_GPU
        )
        whole["power"] = None if milliwatts is None else milliwatts / 1000
        whole["recovery"] = _recovery_action(self.handle)
        return [whole, *(self._instances(whole) if mig else ())]

    def _instances(self, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(self.handle)):
            instance = _supported(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, self.handle, number)
            if instance is None:
                continue
            yield {
                "uuid": pynvml.nvmlDeviceGetUUID(instance),
                "index": self.index,
                "name": _supported(pynvml.nvmlDeviceGetName, instance) or f"{self.name} MIG",
                "mig_parent": self.uuid,
                "processes": _processes(instance),
                "temp": whole["temp"],  # one chip: what it has and needs, its parts have and need
                "recovery": whole["recovery"],
                **_memory(instance),
            }

    @contextlib.contextmanager
    def _noting_fault(self) -> Iterator[None]:
        try:
            yield
        except pynvml.NVMLError as error:
            self.open_fault = _fault_of_device(error)


class _Events:
    """XID errors since the last look, as [uuid, xid]; silent where the driver has no events."""

    def __init__(self, devices: list[_Device]) -> None:
        self._uuids = {device.address(): device.uuid for device in devices}
        self._set: Any = None
        for device in devices:
            with contextlib.suppress(pynvml.NVMLError):
                types_ = pynvml.nvmlDeviceGetSupportedEventTypes(device.handle)
                self._set = self._set or pynvml.nvmlEventSetCreate()
                pynvml.nvmlDeviceRegisterEvents(device.handle, types_ & _XID, self._set)

    def take(self) -> list[tuple[str, int]]:
        if self._set is None:
            return []
        taken = []
        for _ in range(_EVENTS_PER_SAMPLE):
            try:
                event = pynvml.nvmlEventSetWait(self._set, _EVENT_WAIT_MS)
            except pynvml.NVMLError:
                break  # nothing more (a timeout); a lost GPU shows in its own fields
            uuid = self._uuids.get(_address(event.device))
            if event.eventType == _XID and uuid is not None:
                taken.append((uuid, event.eventData))
        return taken


def main(parent: int) -> None:
    """Serve samples until standard input ends."""
    _hear_nobody()
    _die_with(parent)
    try:
        _serve()
    except pynvml.NVMLError as error:
        _tell({"fatal": error.value, "text": str(error)})


def _serve() -> None:
    pynvml.nvmlInit()
    devices = [_Device(index) for index in range(pynvml.nvmlDeviceGetCount())]
    events = _Events(devices)
    driver = pynvml.nvmlSystemGetDriverVersion()
    for _ in sys.stdin:
        _tell(_sample(driver, devices, events))


def _sample(driver: str, devices: list[_Device], events: _Events) -> dict[str, Any]:
    return {
        "driver": driver,
        "gpus": [entry for device in devices for entry in device.sample()],
        "xids": events.take(),
    }


def _supported(call: Callable[..., Any], *args: Any) -> Any:
    """Return what `call` returns, or None where this device or driver does not tell."""
    try:
        return call(*args)
    except pynvml.NVMLError as error:
        if error.value in _DEVICE_FAULTS | _GLOBAL_FAULTS:
            raise
        return None


def _memory(handle: Any) -> dict[str, int]:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:
        return _host_memory()
    return {"total": memory.total, "used": memory.used}


def _host_memory() -> dict[str, int]:
    # A GPU that shares the host's memory (GB10, Jetson) has none of its own to report.
    with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 - pathlib is an import more
        size = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {"total": size["MemTotal"], "used": size["MemTotal"] - size["MemAvailable"]}


def _processes(handle: Any) -> list[tuple[int, int | None, str]]:
    found: dict[int, int | None] = {}
    for call in (
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses,
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses,
    ):
        for process in _processes_of_kind(call, handle):
            # One that computes and draws is in both lists with the same memory.
            known = found.get(process.pid)
            found[process.pid] = max(known or 0, process.usedGpuMemory or 0) or None
    return [(pid, used, _command(pid)) for pid, used in found.items()]


def _processes_of_kind(call: Callable[..., Any], handle: Any) -> Any:
    try:
        return _supported(call, handle) or ()
    except pynvml.NVMLLibraryMismatchError:
        return ()  # a driver without this versioned function


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:  # noqa: PTH123 - as above
            return comm.read().strip()
    except OSError:
        return ""


def _recovery_action(handle: Any) -> int | None:
    values = _supported(pynvml.nvmlDeviceGetFieldValues, handle, [_RECOVERY_ACTION])
    if values is None or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return int(values[0].value.uiVal)


def _fault_of_device(error: Any) -> list[Any]:
    if error.value in _GLOBAL_FAULTS:
        raise error
    return [error.value, str(error)]


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _hear_nobody() -> None:
    """Ignore what is sent to the whole service: it ends with its parent, or when nobody asks."""
    faults = {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE}
    left = faults | {signal.SIGSEGV, signal.SIGSYS, signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
    for number in signal.valid_signals() - left:
        signal.signal(number, signal.SIG_IGN)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
