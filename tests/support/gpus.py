"""GPUs that a test steers: the real pynvml on a libnvidia-ml.so.1 whose machine is a text file."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from prsmd.domain.quantity import GIB, MIB

SOURCE = Path(__file__).parent / "nvml" / "nvml.c"
BUILD = Path(__file__).parents[2] / ".cache" / "nvml"
DRIVER = "580.65.06"

DRIVER_NOT_LOADED = 9
GPU_IS_LOST = 15
NOT_SUPPORTED = 3
RESET_REQUIRED = 16
VERSION_MISMATCH = 18


def library_folder() -> Path:
    """Return the folder of the built library, compiling it if its source changed."""
    folder = BUILD / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = folder / "libnvidia-ml.so.1"
    if not library.exists():
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise RuntimeError("steered GPUs need a C compiler (Debian: apt-get install gcc)")
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{os.getpid()}.so"
        flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
        subprocess.run([compiler, *flags, "-o", fresh, SOURCE], check=True)
        fresh.rename(library)
    return folder


@dataclasses.dataclass
class SteeredGpu:
    """One device of the steered machine; change it through `SteeredGpus.change`."""

    uuid: str
    name: str
    memory_total_bytes: int
    memory_used_bytes: int = 0
    utilization_percent: int = 0
    memory_bandwidth_percent: int = 0
    temperature_celsius: int = 40
    power_milliwatts: int = 27_000
    mig_enabled: bool = False
    recovery_action: int = 0
    error: int = 0
    mig_parent: str | None = None

    def record(self) -> tuple[object, ...]:
        if self.mig_parent is not None:
            totals = (self.memory_total_bytes, self.memory_used_bytes)
            return ("mig", self.mig_parent, self.uuid, self.name, *totals)
        fields = [field.name for field in dataclasses.fields(self) if field.name != "mig_parent"]
        values = [getattr(self, name) for name in fields]
        return ("gpu", *(int(value) if isinstance(value, bool) else value for value in values))


class SteeredGpus:
    """A machine's GPUs. Every method takes effect at the driver's next call, as a whole.

    Give `environment()` to the process whose pynvml shall see them: the daemon or an NVML helper.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "nvml.txt"
        self.gpus: dict[str, SteeredGpu] = {}
        self._library = library_folder()
        self._extra: dict[str, tuple[object, ...]] = {"driver": ("driver", DRIVER)}
        self._processes: dict[tuple[str, int, str], tuple[object, ...]] = {}
        self._serial = 0
        self._write()

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self._library), "PRSMD_FAKE_NVML": str(self.path)}

    def add(self, name: str = "NVIDIA T4", memory_total_bytes: int = 15 * GIB) -> str:
        """Plug in a GPU and return its UUID."""
        gpu = SteeredGpu(f"GPU-{uuid.uuid4()}", name, memory_total_bytes, 450 * MIB)
        self.gpus[gpu.uuid] = gpu
        self._write()
        return gpu.uuid

    def add_instance(self, parent: str, profile: str = "1g.10gb", size: int = 10 * GIB) -> str:
        """Enable MIG on a GPU, give it one more instance and return the instance's UUID."""
        self.gpus[parent].mig_enabled = True
        name = f"{self.gpus[parent].name} MIG {profile}"
        instance = SteeredGpu(f"MIG-{uuid.uuid4()}", name, size, 14 * MIB, mig_parent=parent)
        self.gpus[instance.uuid] = instance
        self._write()
        return instance.uuid

    def change(self, gpu: str, **values: object) -> None:
        """Set fields of `SteeredGpu`."""
        for name, value in values.items():
            assert hasattr(self.gpus[gpu], name), name
            setattr(self.gpus[gpu], name, value)
        self._write()

    def unplug(self, gpu: str) -> SteeredGpu:
        """Make a GPU vanish from the driver's list; plug it in again with `plug`."""
        gone = self.gpus.pop(gpu)
        self._write()
        return gone

    def plug(self, gpu: SteeredGpu) -> None:
        """Put a GPU back."""
        self.gpus[gpu.uuid] = gpu
        self._write()

    def lose(self, gpu: str) -> None:
        """Let every call on this GPU return GPU_IS_LOST."""
        self.change(gpu, error=GPU_IS_LOST)

    def run(
        self, gpu: str, pid: int, memory_bytes: int | None = GIB, *, kind: str = "compute"
    ) -> None:
        """Let a process hold memory on a GPU, counted in the GPU's used memory."""
        told = -1 if memory_bytes is None else memory_bytes
        self._processes[gpu, pid, kind] = ("process", gpu, pid, told, kind)
        self.change(gpu, memory_used_bytes=self.gpus[gpu].memory_used_bytes + (memory_bytes or 0))

    def end(self, gpu: str, pid: int, *, kind: str = "compute") -> None:
        """Let a process of `run` let go of its memory."""
        held = self._processes.pop((gpu, pid, kind))[3]
        assert isinstance(held, int)
        self.change(gpu, memory_used_bytes=self.gpus[gpu].memory_used_bytes - max(held, 0))

    def xid(self, gpu: str, number: int) -> None:
        """Raise an XID event, seen once by every event set that exists now."""
        self._serial += 1
        self._extra[f"xid {self._serial}"] = ("xid", self._serial, gpu, number)
        self._write()

    def fail(self, function: str, code: int, gpu: str = "*") -> None:
        """Let a function return an error on one GPU or on all."""
        self._extra[f"fail {function} {gpu}"] = ("fail", gpu, function, code)
        self._write()

    def hang(self, function: str) -> None:
        """Let a function not return until `recover`."""
        self._extra["hang"] = ("hang", function)
        self._write()

    def crash(self, function: str) -> None:
        """Let a function abort the process that calls it."""
        self._extra["crash"] = ("crash", function)
        self._write()

    def refuse(self, code: int) -> None:
        """Let NVML not initialize: DRIVER_NOT_LOADED, VERSION_MISMATCH."""
        self._extra["init"] = ("init", code)
        self._write()

    def unload_driver(self) -> None:
        """Take the driver away from processes that already use it, too."""
        del self._extra["driver"]
        self._write()

    def recover(self) -> None:
        """End every hang, crash, refusal and failure; lost GPUs are found again."""
        kept = {key: record for key, record in self._extra.items() if key.startswith("xid")}
        self._extra = {"driver": ("driver", DRIVER), **kept}
        for gpu in self.gpus.values():
            gpu.error = 0
        self._write()

    def calm(self) -> None:
        """End every process on the GPUs and let them idle."""
        for gpu, pid, kind in tuple(self._processes):
            self.end(gpu, pid, kind=kind)
        for gpu in tuple(self.gpus):
            self.change(gpu, utilization_percent=0)

    def _write(self) -> None:
        gpus = [gpu.record() for gpu in self.gpus.values()]
        records = [*self._extra.values(), *gpus, *self._processes.values()]
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join("\t".join(map(str, record)) + "\n" for record in records))
        fresh.rename(self.path)
