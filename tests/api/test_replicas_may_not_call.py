"""A model's container that reaches the daemon's port over its bridge is refused, key or no key."""

from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from prsmd.api.app import build
from prsmd.api.identity import Door
from prsmd.core.connection_limits import ConnectionLimits
from prsmd.gateway.meters import Meters
from prsmd.service.access import Access, KeyRing, Peers
from prsmd.service.directory import Directory
from prsmd.service.throttle import Throttle
from prsmd.service.underway import Underway


def door(*replica_hosts: str) -> Door:
    return Door(
        access=Access(KeyRing(b"p" * 32, Directory()), Peers("company", [])),
        underway=Underway(),
        throttle=Throttle(Directory(), Meters()),
        hosts=frozenset({"127.0.0.1"}),
        is_replica=replica_hosts.__contains__,
        body_bytes=1024,
        body_seconds=5,
        header_bytes=16384,
        connection_limits=ConnectionLimits(),
    )


async def test_a_replica_is_known_on_a_listener_for_both_families_too() -> None:
    unused: Any = None
    server = TestServer(build(unused, door("127.0.0.1")), host="::")
    async with server, aiohttp.ClientSession() as session:
        answer = await session.get(f"http://127.0.0.1:{server.port}/healthz")
        assert answer.status == 403


@pytest.mark.parametrize(("replicas", "status"), [(["127.0.0.1"], 403), (["172.30.0.2"], 200)])
async def test_only_addresses_of_replicas_are_refused(replicas: list[str], status: int) -> None:
    unused: Any = None
    async with TestClient(TestServer(build(unused, door(*replicas)))) as client:
        answer = await client.get("/healthz")
        assert answer.status == status
        if status == 403:
            assert (await answer.json())["error"]["code"] == "INSUFFICIENT_PERMISSIONS"
