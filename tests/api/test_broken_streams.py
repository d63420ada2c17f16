"""Streams that do not get to their end: none looks whole, whatever ends it and whatever streams."""

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import prsmd.api
from prsmd.api import app
from prsmd.api.operations import UNDERWAY, Operation
from prsmd.api.streams import OPEN_STREAMS
from prsmd.domain.errors import DaemonStoppingError, EngineUnreachableError, InvalidApiKeyError
from prsmd.domain.events import AuditFilter, Event, Severity
from prsmd.domain.logs import LogLine
from prsmd.domain.quota import Use
from prsmd.gateway.infer import InferenceResult
from prsmd.service.logs import ReplicaLine
from tests.api.served import DEPLOY, LEGAL, Door, served
from tests.engine.conftest import life, world
from tests.engine.harness import Life, caller

__all__ = ["life", "world"]
BEGINNERS = {"held_stream", "followed_stream", "event_stream", "streamed_file"}
WAITERS = {"held_poll"}
ELSEWHERE = ("StreamResponse(", "FileResponse", "WebSocketResponse", "enable_chunked")
STREAMING = [operation for operation in app.OPERATIONS if operation.streams]


def reaching(module: Any, wanted: set[str]) -> set[str]:
    """Return the functions of a module that call one of the wanted, or one that does."""
    calls = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
            calls[node.name] = {
                each.func.id
                for each in ast.walk(node)
                if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)
            }
    found, before = set(wanted), set()
    while found != before:
        before = set(found)
        found |= {name for name, called in calls.items() if called & found}
    return found - wanted


@pytest.mark.parametrize("operation", app.OPERATIONS, ids=lambda o: f"{o.method} {o.path}")
def test_the_table_tells_which_operations_stream_and_which_wait(operation: Operation):
    module = inspect.getmodule(operation.handler)
    name = operation.handler.__name__

    assert operation.streams == (name in reaching(module, BEGINNERS))
    assert operation.polls == (name in reaching(module, WAITERS))


def test_nothing_streams_but_by_the_module_that_knows_how_streams_end():
    for path in Path(prsmd.api.__file__).parent.rglob("*.py"):
        if path.name != "streams.py":
            assert not [word for word in ELSEWHERE if word in path.read_text()], path


@pytest.fixture
async def door(life: Life, tmp_path: Path) -> AsyncIterator[Door]:
    async with served(life, tmp_path) as door:
        assert (await door.ask("POST", DEPLOY, LEGAL)).status == 202
        yield door


class Source:
    """Stands in the place of whatever an operation streams: gives one piece, then waits to fail."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.fails: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def pieces(self, first: Any) -> AsyncIterator[Any]:
        yield first
        self.begun.set()
        await self.fails


class Stream:
    """The stream of an inference."""

    def __init__(self, source: Source) -> None:
        self._pieces = source.pieces(b"data: one\n\n")

    async def __aenter__(self) -> AsyncIterator[Any]:
        return self._pieces

    async def __aexit__(self, *_: object) -> None:
        await self._pieces.aclose()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._pieces


async def sourced(operation: Operation, life: Life, monkeypatch: Any) -> tuple[Source, str]:
    """Have the operation stream from a source; return it, and the path to ask."""
    services, source = life.services, Source()
    [report] = await services.status.all()
    found = report.deployment
    if operation.path.endswith("/infer"):

        async def infer(*_: object) -> Any:
            result = InferenceResult(
                outputs=None,
                inference_time_ms=1.0,
                replica_id="r",
                model_version="1",
                stream=Stream(source),  # type: ignore[arg-type]
            )
            return None, result

        monkeypatch.setattr(services.inferences, "infer", infer)
    else:
        where, verb, first = {
            "/v1/audit": (services.audit, "follow", (await every_record(services))[0]),
            "/v1/audit/export": (services.audit, "export", b'{"a": 1}\n'),
            "/events": (services.events, "follow", EVENT),
            "/usage": (services.usage, "export", [USE]),
            "/logs": (
                services.logs,
                "follow",
                ReplicaLine("r", LINE),
            ),
        }[operation.path.partition("}")[2] or operation.path]
        monkeypatch.setattr(where, verb, lambda *_: source.pieces(first))
    path = operation.path.format(deployment_id=found.id, model_id=found.model_id)
    return source, path + ("?format=csv" if operation.streams_as == "text/csv" else "")


def of_events(operation: Operation) -> bool:
    return (operation.answers, operation.streams_as) == ("application/json", "text/event-stream")


USE = Use(
    day=1,
    deployment_id="d",
    organization="default",
    principal="key:a",
    owner="default",
    model_id="m",
    requests=1,
)
LINE = LogLine(at=1.0, stream="stdout", text="a")
EVENT = Event(
    sequence=1,
    deployment_id="d",
    organization="default",
    reason="Deployed",
    message="a",
    severity=Severity.NORMAL,
    at=1.0,
)


async def every_record(services: Any) -> list[Any]:
    return (await services.audit.page(caller(), "changes", AuditFilter(), 1, 0))[0]


def request_of(operation: Operation, path: str, version: str = "1.1") -> bytes:
    accept = "Accept: text/event-stream\r\n" if of_events(operation) else ""
    return (
        f"{operation.method} {path} HTTP/{version}\r\nHost: localhost\r\n{accept}"
        "Content-Length: 0\r\n\r\n"
    ).encode()


ENDS = {
    "the source fails": EngineUnreachableError("the engine is gone"),
    "a defect": ValueError("a defect"),
    "an HTTP error": web.HTTPNotFound(),
    "a timeout": TimeoutError(),
    "the source is cancelled": asyncio.CancelledError(),
}
CUTS = {
    "the proof ends": InvalidApiKeyError("it was revoked"),
    "the daemon stops": DaemonStoppingError("its stop timeout is over"),
}


@pytest.mark.parametrize("end", [*ENDS, *CUTS])
@pytest.mark.parametrize("operation", STREAMING, ids=lambda o: o.path)
async def test_a_stream_that_ends_too_early_is_seen_to(
    door: Door, life: Life, tmp_path: Path, monkeypatch: Any, operation: Operation, end: str
):
    source, path = await sourced(operation, life, monkeypatch)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
    writer.write(request_of(operation, path))
    await source.begun.wait()
    if end in CUTS:
        life.appliance.application[UNDERWAY].end_all(CUTS[end])
    else:
        source.fails.set_exception(ENDS[end])
    said = await reader.read()
    writer.close()

    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), said
    assert body
    assert b"HTTP/1." not in body
    assert not body.endswith(b"0\r\n\r\n"), "it looks whole"
    if of_events(operation) and end != "the source is cancelled":
        assert b"event: error\n" in body
        if end in CUTS:
            assert CUTS[end].message.encode() in body


@pytest.mark.parametrize("operation", STREAMING, ids=lambda o: o.path)
async def test_a_stream_is_refused_where_its_end_could_not_be_told_from_a_cut(
    door: Door, life: Life, tmp_path: Path, monkeypatch: Any, operation: Operation
):
    _source, path = await sourced(operation, life, monkeypatch)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
    writer.write(request_of(operation, path, "1.0"))
    said = await reader.read()
    writer.close()

    assert said.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert b"must be HTTP/1.1" in said


async def test_followers_end_when_the_stop_begins_and_others_go_on(
    door: Door, life: Life, tmp_path: Path, monkeypatch: Any
):
    for operation in STREAMING:
        source, path = await sourced(operation, life, monkeypatch)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        writer.write(request_of(operation, path))
        await source.begun.wait()
        life.appliance.application[OPEN_STREAMS].end_endless()
        endless = of_events(operation) and not operation.path.endswith("/infer")
        if not endless:
            source.fails.set_result(None)
        said = await reader.readuntil(b"0\r\n\r\n") if not endless else await reader.read()
        writer.close()
        assert (b"the daemon is stopping" in said) == endless
        life.appliance.application[OPEN_STREAMS]._stopping = False
