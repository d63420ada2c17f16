"""Bytes that are held for callers are bounded in sum and for each, and all given back."""

import asyncio
import contextlib
import dataclasses
import gc
import io
import json
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web

from prsmd.api import request_body
from prsmd.core.routes import RouteTarget, RoutingTable
from prsmd.gateway import upstream
from tests.api.conftest import SETTINGS, small
from tests.api.envelope import refused
from tests.api.served import DEPLOY, LEGAL, Door, served
from tests.api.wire import connected, parts
from tests.engine.conftest import life, world
from tests.engine.harness import Life
from tests.gateway.backends import Backend, Gated, nobody_listens, until
from tests.support.daemon import Daemon, running_daemon

__all__ = ["life", "world"]
KIB = 1024
INFER = "/v1/models/legal/infer"
MEMORY = {
    **SETTINGS,
    "limits.body": '"64Ki"',
    "limits.memory_per_principal": '"100Ki"',
    "limits.memory_per_organization": '"150Ki"',
    "limits.memory": '"200Ki"',
    "limits.body_timeout_seconds": "60",
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("memory"), MEMORY) as running:
        accepted = running.call("POST", DEPLOY, small("legal"))
        running.until_ready(accepted.json["deployment_id"], 1)
        yield running


def measured(daemon: Daemon, name: str) -> float:
    lines = daemon.call("GET", "/metrics").raw.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@contextlib.contextmanager
def body_on_its_way(daemon: Daemon, key: str, size: int) -> Iterator[Any]:
    """An inference whose body is announced, and asked for, and never sent."""
    head = (
        f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nExpect: 100-continue\r\n"
        f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    with connected(str(daemon.socket)) as client:
        client.sendall(head.encode())
        yield client


def heard(client: Any) -> bytes:
    return bytes(client.recv(65536))


def test_each_caller_has_a_share_each_organization_another_and_all_is_given_back(daemon: Daemon):
    one, other = (daemon.key("invoker") for _ in range(2))
    stranger = daemon.key("owner", "rival")
    before = measured(daemon, "prsmd_memory_refusals_total")
    with body_on_its_way(daemon, one, 60 * KIB) as first:
        assert heard(first).startswith(b"HTTP/1.1 100 ")
        assert measured(daemon, "prsmd_memory_held_bytes") == 60 * KIB
        with body_on_its_way(daemon, one, 60 * KIB) as second:
            answer = heard(second)
        refused(answer, 503, "RESOURCE_UNAVAILABLE")
        _, headers, body = parts(answer)
        assert (headers["retry-after"], headers["connection"]) == ("1", "close")
        details = body["error"]["details"]
        assert details["resource_type"] == "memory"
        assert "one caller" in details["reason"]
        with body_on_its_way(daemon, other, 60 * KIB) as third:
            assert heard(third).startswith(b"HTTP/1.1 100 ")
            with body_on_its_way(daemon, other, 39 * KIB) as fourth:
                assert "one organization" in parts(heard(fourth))[2]["message"]
        daemon.until(
            "its share back", lambda: measured(daemon, "prsmd_memory_held_bytes") == 60 * KIB
        )
    daemon.until("all given back", lambda: measured(daemon, "prsmd_memory_held_bytes") == 0)
    assert measured(daemon, "prsmd_memory_refusals_total") == before + 2
    assert daemon.infer("legal", {"text": "x"}, key=one).status == 200
    assert daemon.call("GET", "/v1/models", key=stranger).status == 200


def test_a_body_that_grows_beyond_a_share_is_refused_while_it_arrives(daemon: Daemon):
    key = daemon.key("invoker")
    with body_on_its_way(daemon, key, 60 * KIB) as first:
        assert heard(first).startswith(b"HTTP/1.1 100 ")
        head = (
            f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with connected(str(daemon.socket)) as client:
            client.sendall(head.encode() + b"%x\r\n" % (50 * KIB) + b" " * 50 * KIB + b"\r\n")
            refused(heard(client), 503, "RESOURCE_UNAVAILABLE")


class Tracked(bytearray):
    """A body that is known for as long as anybody has it."""

    alive: ClassVar[weakref.WeakSet["Tracked"]] = weakref.WeakSet()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        Tracked.alive.add(self)

    __hash__ = object.__hash__


@pytest.fixture
def without_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No cycle is ever broken, and every body is tracked."""
    monkeypatch.setattr(request_body, "bytearray", Tracked, raising=False)
    monkeypatch.setattr(upstream, "bytearray", Tracked, raising=False)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def door(life: Life, tmp_path: Path) -> AsyncIterator[Door]:
    async with served(life, tmp_path) as door:
        yield door


def kept() -> int:
    return sum(map(len, Tracked.alive))


BROKEN = {
    "no JSON": (b'{"inputs": [' + b"1," * 50_000, 400),
    "an unknown member": (b'{"inputs": 1, "input": "' + b"x" * 100_000 + b'"}', 400),
    "a wrong member": (b'{"inputs": "' + b"x" * 100_000 + b'", "parameters": 1}', 400),
    "not UTF-8": (b'{"inputs": "\xff' + b"x" * 100_000 + b'"}', 400),
    "too large": (b" " * 17 * KIB * KIB, 413),
    "answered": (json.dumps({"inputs": "x" * 100_000}).encode(), 200),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_no_body_outlives_its_request_without_the_garbage_collector(
    life: Life, door: Door, without_collector: None, kind: str
) -> None:
    await door.ask("POST", DEPLOY, LEGAL)
    await life.settle()
    await life.tick()
    body, status = BROKEN[kind]
    url, headers = f"http://localhost{INFER}", {"Content-Type": "application/json"}

    for _ in range(3):
        async with door.session.post(url, data=io.BytesIO(body), headers=headers) as answer:
            assert answer.status == status
            await answer.read()

    await until(lambda: life.services.memory.held == 0)
    assert kept() == 0


async def fails(_request: web.Request) -> web.Response:
    return web.Response(status=500, text="x" * 100_000)


async def talks_nonsense(_request: web.Request) -> web.Response:
    return web.Response(body=b'{"outputs": [' + b"1," * 50_000, content_type="application/json")


async def never_answers(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "200000"})
    await response.prepare(request)
    await response.write(b"x" * 100_000)
    assert request.transport is not None
    request.transport.close()
    return response


FAILURES = {
    "fails": (fails, 502),
    "talks nonsense": (talks_nonsense, 502),
    "never answers": (never_answers, 504),
    "breaks off": (breaks_off, 502),
    "is not there": (None, 503),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_no_body_outlives_a_model_that_fails(
    life: Life, door: Door, without_collector: None, kind: str
) -> None:
    handler, status = FAILURES[kind]
    async with Backend(handler=handler) as backend:
        target = nobody_listens() if handler is None else backend.target
        await _published(life, door, target)
        for _ in range(3):
            async with _asked(door) as answer:
                assert answer.status == status
                await answer.read()
        await until(lambda: life.services.memory.held == 0)
        await until(lambda: kept() == 0)


async def test_no_body_outlives_a_client_that_goes(
    life: Life, door: Door, without_collector: None
) -> None:
    async with Gated() as backend:
        await _published(life, door, backend.target)
        for _ in range(3):
            gone = asyncio.create_task(_asked(door).__aenter__(), name="client")
            await backend.wait_inside(1)
            assert life.services.memory.held > 100_000
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            await backend.wait_inside(0)
        await until(lambda: life.services.memory.held == 0)
        await until(lambda: kept() == 0)


async def test_what_is_refused_by_a_full_queue_is_never_held(
    life: Life, door: Door, without_collector: None
) -> None:
    await _published(life, door)
    async with _asked(door) as answer:
        assert answer.status == 429
    assert life.services.memory.held == 0
    assert kept() == 0


async def _published(life: Life, door: Door, *targets: RouteTarget) -> None:
    """Have the model answered by these targets, and no queue before them."""
    await door.ask("POST", DEPLOY, LEGAL)
    await life.settle()
    await life.tick()
    gateway = life.appliance.gateway
    found = gateway.find("default", "legal")
    assert found is not None
    serving = dataclasses.replace(found.serving, queue_depth=0, request_timeout_seconds=1.0)
    targets = tuple(dataclasses.replace(target, serving=serving) for target in targets)
    route = dataclasses.replace(found, targets=targets, serving=serving, hopeless=False)
    gateway.publish(RoutingTable({route.deployment_id: route}))


def _asked(door: Door) -> Any:
    body = io.BytesIO(json.dumps({"inputs": "x" * 100_000}).encode())
    headers = {"Content-Type": "application/json"}
    return door.session.post(f"http://localhost{INFER}", data=body, headers=headers)
