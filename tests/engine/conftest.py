"""A world for each test, and one daemon's life in it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.harness import Life, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.start()
    yield world
    await world.server.close()


@pytest.fixture
async def life(world: World) -> AsyncIterator[Life]:
    async with world.life() as life:
        yield life
