"""Real HTTP backends on loopback, named by how they answer. They count what they see."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Self

from aiohttp import web

from prsmd.core.routes import Route, RouteTarget, RoutingTable
from prsmd.domain.replica import Endpoint
from prsmd.domain.spec import Serving

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Backend:
    """An aiohttp server that answers `POST /infer` with `handler`."""

    def __init__(self, replica_id: str = "r1", handler: Handler | None = None) -> None:
        self.replica_id = replica_id
        self.requests: list[web.Request] = []
        self.bodies: list[dict[str, object]] = []
        self.now_inside = 0
        self.most_inside = 0
        self.changed = asyncio.Condition()
        self._handler = handler or self.answer
        self._runner: web.AppRunner | None = None
        self.endpoint = Endpoint("127.0.0.1", 0)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.endpoint.port)
        await site.start()
        self.endpoint = Endpoint("127.0.0.1", self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def target(self) -> RouteTarget:
        return RouteTarget(replica_id=self.replica_id, endpoint=self.endpoint)

    async def answer(self, request: web.Request) -> web.Response:
        return web.json_response({"outputs": {"replica": self.replica_id}})

    async def wait_inside(self, count: int) -> None:
        """Return when exactly `count` requests are being worked on."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.now_inside == count)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(json.loads(await request.read()))
        await self._step(1)
        try:
            return await self._handler(request)
        finally:
            await self._step(-1)

    async def _step(self, change: int) -> None:
        self.now_inside += change
        self.most_inside = max(self.most_inside, self.now_inside)
        async with self.changed:
            self.changed.notify_all()


class Gated(Backend):
    """Answers only when its gate is open; `order` is the inputs in the order they came in."""

    def __init__(self, replica_id: str = "r1") -> None:
        super().__init__(replica_id, self._wait_for_gate)
        self.gate = asyncio.Semaphore(0)

    @property
    def order(self) -> list[object]:
        return [body["inputs"] for body in self.bodies]

    def let_through(self, count: int = 1) -> None:
        for _ in range(count):
            self.gate.release()

    async def _wait_for_gate(self, request: web.Request) -> web.Response:
        await self.gate.acquire()
        return await self.answer(request)


class Raw:
    """A TCP server that reads a request's head and answers with fixed bytes, then hangs up."""

    def __init__(self, answer: bytes, *, linger: bool = False) -> None:
        self._answer = answer
        self._linger = linger
        self._release = asyncio.Event()
        self.connections = 0
        self.target = RouteTarget(replica_id="raw", endpoint=Endpoint("127.0.0.1", 0))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.target = RouteTarget(replica_id="raw", endpoint=Endpoint("127.0.0.1", port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._release.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            await writer.drain()
            if self._linger:
                await self._release.wait()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Endless(Raw):
    """One that goes on with the same bytes for ever, until it is cut; `sent` is how many went."""

    def __init__(self, answer: bytes, more: bytes) -> None:
        super().__init__(answer)
        self._block = more * (65536 // len(more))
        self.sent = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            while True:
                writer.write(self._block)
                await writer.drain()
                self.sent += len(self._block)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def route(*targets: RouteTarget, **overrides: object) -> Route:
    """A route of deployment `deploy_a`; keyword arguments go to the route or its serving."""
    serving_fields = Serving.__dataclass_fields__
    serving = {key: overrides.pop(key) for key in list(overrides) if key in serving_fields}
    values: dict[str, object] = {
        "deployment_id": "deploy_a",
        "organization": "acme",
        "model_id": "custom_a",
        "model_name": "acme-a",
        "model_type": "classification",
        "version": "1.2.3",
        "revision": 1,
        "serving": Serving(**{"request_timeout_seconds": 20.0, **serving}),
        "targets": targets,
        **overrides,
    }
    return Route(**values)


def table(*routes: Route) -> RoutingTable:
    return RoutingTable({each.deployment_id: each for each in routes})


class NeverAccepts:
    """A listening socket whose backlog is full: connecting to it takes for ever."""

    def __enter__(self) -> RouteTarget:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = self._listener.getsockname()
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        return RouteTarget(replica_id="hung", endpoint=Endpoint(*address))

    def __exit__(self, *_: object) -> None:
        for each in (*self._fillers, self._listener):
            each.close()


def nobody_listens(replica_id: str = "dead") -> RouteTarget:
    """A target on a port that was just free: connections are refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return RouteTarget(
            replica_id=replica_id, endpoint=Endpoint("127.0.0.1", probe.getsockname()[1])
        )


async def until(condition: Callable[[], bool]) -> None:
    """Let everything else run until `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what tests wait for has no event of its own
            await asyncio.sleep(0)
