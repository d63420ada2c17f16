"""What every driver of GPUs promises: run by NVML on the steered library and by the fake."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest

from prsmd.devices.base import Gpus
from prsmd.devices.fake import InMemoryGpus
from prsmd.devices.nvml import NvmlGpus, NvmlSettings
from prsmd.domain.node import GpuSample
from prsmd.domain.quantity import GIB, MIB
from tests.devices.samples import Samples, fresh, gpu_of, stale
from tests.support import gpus as steering
from tests.support.gpus import SteeredGpus


class Machine(Protocol):
    """A machine whose GPUs a test changes, and the driver that should notice."""

    gpus: Gpus
    samples: Samples

    def add(self, name: str, memory_bytes: int) -> str: ...
    def run(self, uuid: str, pid: int, memory_bytes: int) -> None: ...
    def load(self, uuid: str, percent: int) -> None: ...
    def lose(self, uuid: str) -> None: ...
    def stall(self) -> None: ...
    def resume(self) -> None: ...
    def remove_driver(self) -> None: ...


class NvmlMachine:
    """The real driver on the steered library."""

    def __init__(self, directory: Path) -> None:
        self.samples = Samples()
        self._steered = SteeredGpus(directory)
        settings = NvmlSettings(
            sample_seconds=0.01,
            deadline_seconds=0.5,
            backoff_seconds=0.01,
            environment=self._steered.environment(),
        )
        self.gpus = NvmlGpus(settings, on_sample=self.samples.add)

    def add(self, name: str, memory_bytes: int) -> str:
        return self._steered.add(name, memory_bytes)

    def run(self, uuid: str, pid: int, memory_bytes: int) -> None:
        self._steered.run(uuid, pid, memory_bytes)

    def load(self, uuid: str, percent: int) -> None:
        self._steered.change(uuid, utilization_percent=percent)

    def lose(self, uuid: str) -> None:
        self._steered.lose(uuid)

    def stall(self) -> None:
        self._steered.hang("nvmlDeviceGetMemoryInfo")

    def resume(self) -> None:
        self._steered.recover()

    def remove_driver(self) -> None:
        self._steered.refuse(steering.DRIVER_NOT_LOADED)


class MemoryMachine:
    """The shipped fake."""

    def __init__(self, directory: Path) -> None:
        self.samples = Samples()
        self.gpus = InMemoryGpus(on_sample=self.samples.add)

    def add(self, name: str, memory_bytes: int) -> str:
        uuid = f"GPU-{len(self.gpus.sample().gpus)}{name[-1]}"
        self.gpus.add(uuid, name=name, memory_bytes=memory_bytes)
        return uuid

    def run(self, uuid: str, pid: int, memory_bytes: int) -> None:
        self.gpus.run(uuid, pid, memory_bytes)

    def load(self, uuid: str, percent: int) -> None:
        self.gpus.change(uuid, utilization_percent=percent)

    def lose(self, uuid: str) -> None:
        self.gpus.lose(uuid)

    def stall(self) -> None:
        self.gpus.stall()

    def resume(self) -> None:
        self.gpus.resume()

    def remove_driver(self) -> None:
        self.gpus.remove_driver()


@pytest.fixture(params=[NvmlMachine, MemoryMachine])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machine]:
    make: Callable[[Path], Machine] = request.param
    async with AsyncExitStack() as stack:
        made = make(tmp_path)
        stack.push_async_callback(made.gpus.close)
        yield made


def sees(uuid: str) -> Callable[[GpuSample], bool]:
    return lambda sample: fresh(sample) and uuid in {gpu.uuid for gpu in sample.gpus}


async def test_before_the_start_the_sample_is_stale_and_says_why(machine: Machine) -> None:
    sample = machine.gpus.sample()
    assert (sample.gpus, stale(sample), sample.error) == ((), True, "not yet sampled")


async def test_gpus_are_listed_with_name_memory_and_index(machine: Machine) -> None:
    first = machine.add("NVIDIA T4", 15 * GIB)
    second = machine.add("NVIDIA L4", 23 * GIB)
    await machine.gpus.start()
    sample = await machine.samples.until(sees(second))
    told = [(gpu.uuid, gpu.name, gpu.memory_total_bytes, gpu.index) for gpu in sample.gpus]
    assert told == [(first, "NVIDIA T4", 15 * GIB, 0), (second, "NVIDIA L4", 23 * GIB, 1)]
    assert sample.driver_version is not None
    assert sample == machine.gpus.sample() or sample.taken_at < machine.gpus.sample().taken_at


async def test_a_process_is_told_with_its_memory_which_counts_as_used(machine: Machine) -> None:
    uuid = machine.add("NVIDIA T4", 15 * GIB)
    await machine.gpus.start()
    await machine.samples.until(sees(uuid))
    machine.run(uuid, 4711, 2 * GIB)
    gpu = await machine.samples.gpu_until(uuid, lambda g: bool(g.processes))
    assert [(p.pid, p.memory_bytes) for p in gpu.processes] == [(4711, 2 * GIB)]
    assert gpu.memory_used_bytes == 2 * GIB + 450 * MIB


async def test_a_change_of_load_shows(machine: Machine) -> None:
    uuid = machine.add("NVIDIA T4", 15 * GIB)
    await machine.gpus.start()
    await machine.samples.gpu_until(uuid, lambda g: g.utilization_percent == 0)
    machine.load(uuid, 90)
    await machine.samples.gpu_until(uuid, lambda g: g.utilization_percent == 90)


async def test_a_lost_gpu_stays_listed_as_unhealthy_with_nothing_on_it(machine: Machine) -> None:
    uuid = machine.add("NVIDIA T4", 15 * GIB)
    machine.run(uuid, 4711, GIB)
    await machine.gpus.start()
    await machine.samples.until(sees(uuid))
    machine.lose(uuid)
    gpu = await machine.samples.gpu_until(uuid, lambda g: g.unhealthy is not None)
    assert (gpu.processes, gpu.utilization_percent) == ((), None)


async def test_when_samples_stop_the_last_one_stays_marked_stale(machine: Machine) -> None:
    uuid = machine.add("NVIDIA T4", 15 * GIB)
    await machine.gpus.start()
    last = await machine.samples.until(sees(uuid))
    machine.stall()
    sample = await machine.samples.until(stale)
    assert sample.stale_since is not None
    assert sample.stale_since >= last.taken_at
    assert sample.error
    assert [(gpu.uuid, gpu.unhealthy) for gpu in sample.gpus] == [(uuid, None)]
    machine.resume()
    assert (await machine.samples.until(sees(uuid))).error is None


async def test_a_machine_without_a_driver_says_so_and_is_not_stale(machine: Machine) -> None:
    machine.remove_driver()
    await machine.gpus.start() if isinstance(machine, NvmlMachine) else None
    sample = await machine.samples.until(lambda s: not s.supported)
    assert (sample.gpus, sample.stale_since) == ((), None)
    assert sample.error


async def test_the_last_sample_can_be_read_after_close(machine: Machine) -> None:
    uuid = machine.add("NVIDIA T4", 15 * GIB)
    await machine.gpus.start()
    await machine.samples.until(sees(uuid))
    await machine.gpus.close()
    assert gpu_of(machine.gpus.sample(), uuid).name == "NVIDIA T4"
