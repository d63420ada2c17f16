"""A started gateway for each test, closed afterwards."""

from collections.abc import AsyncIterator

import pytest

from prsmd.gateway.infer import Gateway, GatewaySettings


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway(GatewaySettings(max_answer_bytes=100_000))
    await gateway.start()
    yield gateway
    await gateway.close()
