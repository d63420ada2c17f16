"""A started gateway for each test, on both event loops, closed afterwards."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from prsmd.gateway.infer import Gateway, GatewaySettings


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop; where there is none, asyncio's own loop has to do."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway(GatewaySettings(max_answer_bytes=100_000))
    await gateway.start()
    yield gateway
    await gateway.close()
