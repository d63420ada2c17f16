"""The NVML driver on a steered machine, whose samples a test awaits instead of sleeping."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from prsmd.devices import nvml
from prsmd.devices.nvml import NvmlGpus, NvmlSettings
from prsmd.domain.node import Gpu, GpuSample
from tests.support.gpus import SteeredGpus

HELPER = Path(nvml.__file__).with_name("nvml_helper.py")


class Samples:
    """Every sample of one driver, in order."""

    def __init__(self) -> None:
        self.seen: list[GpuSample] = []
        self._queue: asyncio.Queue[GpuSample] = asyncio.Queue()

    def add(self, sample: GpuSample) -> None:
        self.seen.append(sample)
        self._queue.put_nowait(sample)

    async def next(self) -> GpuSample:
        return await self._queue.get()

    async def until(self, condition: Callable[[GpuSample], bool]) -> GpuSample:
        """Return the first sample from now on that meets the condition; the test's limit bounds."""
        while not condition(sample := await self._queue.get()):
            pass
        return sample

    async def gpu_until(self, uuid: str, condition: Callable[[Gpu], bool]) -> Gpu:
        sample = await self.until(lambda s: any(g.uuid == uuid and condition(g) for g in s.gpus))
        return gpu_of(sample, uuid)


class Driver:
    """The NVML driver on the steered machine, fast enough for tests."""

    def __init__(self, steered: SteeredGpus, stack: AsyncExitStack) -> None:
        self.steered = steered
        self.samples = Samples()
        self._stack = stack

    async def start(self, **settings: float) -> NvmlGpus:
        fast = {
            "sample_seconds": 0.01,
            "deadline_seconds": 20.0,  # a loaded machine is slow; tests of hangs choose a short one
            "start_deadline_seconds": 20.0,
            "retry_seconds": 0.2,
            "backoff_seconds": 0.01,
        }
        chosen = NvmlSettings(**{**fast, **settings}, environment=self.steered.environment())
        gpus = NvmlGpus(chosen, on_sample=self.samples.add)
        self._stack.push_async_callback(gpus.close)
        await gpus.start()
        return gpus


def gpu_of(sample: GpuSample, uuid: str) -> Gpu:
    return next(gpu for gpu in sample.gpus if gpu.uuid == uuid)


def fresh(sample: GpuSample) -> bool:
    return sample.supported and sample.stale_since is None


def stale(sample: GpuSample) -> bool:
    return sample.stale_since is not None


def helpers() -> list[psutil.Process]:
    """Return the helper processes that this process started and that are alive."""
    return [p for p in psutil.Process().children() if str(HELPER) in p.cmdline()]
