"""What has ended is freed at once: no cycle keeps it for the garbage collector to find.

A search through all that lives holds the loop up, in proportion to what waits to be found.
"""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from prsmd.api.client_transport import ClientTransport
from prsmd.api.connections import Connection
from prsmd.gateway.passage import Passage
from prsmd.gateway.queue import Ticket
from prsmd.http_listening import serve
from prsmd.settings import Settings
from tests.api.served import DEPLOY, LEGAL
from tests.engine.conftest import life, world
from tests.engine.harness import Life

__all__ = ["life", "world"]
ENDED = (Connection, ClientTransport, Passage, Ticket, web.Request)


@pytest.fixture
async def session(life: Life, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of which each request has a connection of its own."""
    path = str(tmp_path / "api.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    runner = await serve(life.appliance.application, Settings(), [listener], None, owned=True)
    async with aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path, force_close=True)
    ) as client:
        yield client
    await runner.cleanup()


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/healthz", None, 200),
        ("POST", "/v1/models/legal/infer", {"inputs": {"text": "x"}}, 200),
        ("POST", "/v1/models/legal/infer", {"inputs": 1, "input": 2}, 400),
        ("POST", "/v1/models/none/infer", {"inputs": 1}, 404),
        ("GET", "/v1/custom-models", None, 200),
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/models", None, 405),
        ("POST", "/v1/api-keys", {"role": "none"}, 400),
        ("POST", "/v1/custom-models/none/scale", {"target_replicas": 1}, 404),
        ("DELETE", "/v1/custom-models/none", None, 404),
    ],
)
async def test_a_request_that_has_ended_is_freed_without_a_search_for_cycles(
    life: Life,
    session: aiohttp.ClientSession,
    without_collector: None,
    method: str,
    path: str,
    body: object,
    status: int,
) -> None:
    async with session.post(f"http://localhost{DEPLOY}", json=LEGAL) as answer:
        assert answer.status == 202
    await life.settle()
    await life.tick()
    gc.collect()
    before = living()  # of other tests in this process

    for _ in range(3):
        async with session.request(method, f"http://localhost{path}", json=body) as answer:
            assert answer.status == status
            await answer.read()

    async with asyncio.timeout(30):
        while not living().keys() <= before.keys():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.1)


def living() -> dict[int, object]:
    return {id(each): each for each in gc.get_objects() if isinstance(each, ENDED)}
