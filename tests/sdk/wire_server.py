"""An HTTP server that answers as a test tells it to, on a Unix socket and on TCP. It is not prsmd.

It serves what a healthy daemon never shows a client on purpose: hung requests, cut connections,
refusals, answers of something else.
"""

import asyncio
import dataclasses
import json
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from aiohttp import web

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclasses.dataclass(frozen=True)
class Seen:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


class WireServer:
    """Each route plays its behaviours in order and repeats the last one."""

    def __init__(self, folder: Path) -> None:
        self.socket_path = str(folder / "wire.sock")
        self.unix_url = f"unix://{self.socket_path}"
        self.tcp_url = ""
        self.seen: list[Seen] = []
        self._plays: dict[tuple[str, str], deque[Behaviour]] = defaultdict(deque)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire-server")

    def on(self, method: str, path: str, *behaviours: Behaviour) -> None:
        self._plays[method, path].extend(behaviours)

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.seen]

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{any:.*}", self._play)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.UnixSite(self._runner, self.socket_path).start()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[-1][1]
        self.tcp_url = f"http://127.0.0.1:{port}"

    async def _stop(self) -> None:
        # asyncio leaks a connection whose acceptance is under way when its listener closes.
        for _ in range(5):
            await asyncio.sleep(0)
        await self._runner.cleanup()
        pending = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _play(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        is_json = request.content_type == "application/json"
        self.seen.append(
            Seen(
                request.method,
                request.raw_path.partition("?")[0],
                dict(request.query),
                dict(request.headers),
                json.loads(text) if is_json and text else text or None,
            )
        )
        plays = self._plays[request.method, request.path]
        if not plays:
            return await refuses(404, "NOT_FOUND", f"no {request.path} here")(request)
        return await (plays.popleft() if len(plays) > 1 else plays[0])(request)


def answers(body: Any, status: int = 200, **headers: str) -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return behave


def refuses(status: int, code: str, message: str, details: Any = None, **headers: str) -> Behaviour:
    error = {"code": code, "message": message, "details": details or {}, "request_id": "req-1"}
    return answers({"error": error, "message": message}, status, **headers)


def says(text: str, content_type: str = "text/html", status: int = 200) -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=content_type, status=status)

    return behave


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def cuts(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cuts_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"deployments": [')
    return await cuts(request)


def streams(*chunks: str, then: Behaviour | None = None) -> Behaviour:
    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk.encode())
        if then is not None:
            await then(request)
        return response

    return behave
