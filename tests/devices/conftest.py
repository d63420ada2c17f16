"""Steered GPUs and the NVML driver on them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.devices.samples import Driver
from tests.support.gpus import SteeredGpus


@pytest.fixture
def steered(tmp_path: Path) -> SteeredGpus:
    return SteeredGpus(tmp_path)


@pytest.fixture
async def driver(steered: SteeredGpus) -> AsyncIterator[Driver]:
    async with AsyncExitStack() as stack:
        yield Driver(steered, stack)
