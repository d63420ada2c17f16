"""Constant inference load from a process of its own; counts what became of every request.

    python -m benchmarks.load --unix PATH --model NAME [--connections N] [--rate R] [--requests N]

Each connection is kept alive and has one request at a time; with `--rate` all together send that
many a second. Every request carries a number of its own, and only an answer 200 that gives this
number back is `answered`. It runs until its input ends, SIGTERM, or `--requests`, and always waits
for what is in flight. Every fifth of a second it prints the counts as one line of JSON; the last
line has `"final": true` and the latencies.

What is not an answer is told apart by how much of the request can have reached anyone:

    refused    no connection came about, so nothing was sent; tried again on a new one
    cut        the connection broke after the request was sent; sent again, under the same number
    closed     the other side ended a connection on which nothing was under way; no harm
    lost       no answer within `--timeout`

So `sent` == `answered` + `failed` in the end, where `failed` are answers other than 200 (`statuses`
counts them), `wrong` answers and `lost` requests. `failures` describes the first hundred, `slow`
the first hundred that took over a second: number, beginning, seconds.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop

_REPORT_SECONDS = 0.2
_RETRY_SECONDS = 0.02
_SLOW_SECONDS = 1.0
_DESCRIBED = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where the load goes, how much of it, and what each request carries."""

    unix: Path | None
    tcp: str | None
    model: str
    connections: int
    rate: float | None
    requests: int | None
    timeout: float
    headers: tuple[str, ...]


@dataclasses.dataclass(slots=True)
class Counts:
    """What became of the requests so far. Moments are seconds of the monotonic clock."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    wrong: int = 0
    lost: int = 0
    refused: int = 0
    cut: int = 0
    closed: int = 0
    statuses: dict[int, int] = dataclasses.field(default_factory=dict)
    tags: dict[str, int] = dataclasses.field(default_factory=dict)
    failures: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    slow: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)


class Exchange(asyncio.Protocol):
    """One connection. `ask` sends one request and gives its answer; None when it was cut."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes] | None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that requests can be sent."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is not one by name
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Hand over the answer when it is complete."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < (length := _content_length(head)):
            return
        self._received = body[length:]
        if b"\r\nconnection: close" in head.lower():
            self.open = False
        self._settle((int(head[9:12]), body[:length]))

    def connection_lost(self, _: Exception | None) -> None:
        """Cut what is under way."""
        self.open = False
        self._settle(None)

    async def ask(self, request: bytes) -> tuple[int, bytes] | None:
        """Send and return status and body."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """End the connection."""
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def _settle(self, answer: tuple[int, bytes] | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


class Load:
    """All connections, and the counts."""

    def __init__(self, options: Options) -> None:
        self.counts = Counts()
        self.latencies: list[float] = []
        self._options = options
        self._stop = asyncio.Event()
        self._began = time.monotonic()
        path = f"/v1/models/{options.model}/infer"
        lines = ["Host: localhost", "Content-Type: application/json", *options.headers]
        self._head = f"POST {path} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\nContent-Length: "

    def stop(self) -> None:
        """Send nothing new."""
        self._stop.set()

    async def run(self) -> None:
        """Send until stopped; return when nothing is under way any more."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self._options.connections):
                group.create_task(self._client(), name=f"client {number}")

    def report(self) -> dict[str, Any]:
        """Return the counts so far."""
        seconds = round(time.monotonic() - self._began, 3)
        return {**dataclasses.asdict(self.counts), "seconds": seconds}

    def final(self) -> dict[str, Any]:
        """Return the counts and the latencies in milliseconds."""
        times = sorted(self.latencies)
        parts = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
        found = {name: round(1000 * _quantile(times, part), 2) for name, part in parts.items()}
        report = self.report()
        rate = round(self.counts.answered / max(report["seconds"], 0.001), 1)
        return {"final": True, **report, "per_second": rate, "latency_ms": found}

    async def _client(self) -> None:
        exchange: Exchange | None = None
        try:
            while (number := await self._next()) is not None:
                exchange = await self._one(number, exchange)
        finally:
            if exchange is not None:
                exchange.close()

    async def _next(self) -> int | None:
        """Return the number of the next request when it is its time; None when there is none."""
        options, number = self._options, self.counts.sent
        if self._stop.is_set() or (options.requests is not None and number >= options.requests):
            return None
        self.counts.sent += 1
        if options.rate is not None:
            await asyncio.sleep(self._began + number / options.rate - time.monotonic())
        return number

    async def _one(self, number: int, exchange: Exchange | None) -> Exchange:
        """Send until there is an answer; return the connection for the next one."""
        body = json.dumps({"inputs": {"text": f"request {number}"}}).encode()
        request = f"{self._head}{len(body)}\r\n\r\n".encode() + body
        while True:
            if exchange is not None and not exchange.open:
                self.counts.closed += 1
                exchange.close()
                exchange = None
            exchange = exchange or await self._connect()
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._options.timeout):
                    answer = await exchange.ask(request)
            except TimeoutError:
                self.counts.lost += 1
                exchange.close()
                self._fail(number, began, 0, "no answer in time")
                return exchange
            if answer is not None:
                self._judge(number, began, answer)
                return exchange
            self.counts.cut += 1
            exchange = None

    async def _connect(self) -> Exchange:
        loop = asyncio.get_running_loop()
        while True:
            try:
                if self._options.unix is not None:
                    made = await loop.create_unix_connection(Exchange, str(self._options.unix))
                else:
                    host, port = str(self._options.tcp).rsplit(":", 1)
                    made = await loop.create_connection(Exchange, host, int(port))
            except OSError:
                self.counts.refused += 1
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return made[1]

    def _judge(self, number: int, began: float, answer: tuple[int, bytes]) -> None:
        status, body = answer
        took = time.monotonic() - began
        self.latencies.append(took)
        if took > _SLOW_SECONDS and len(self.counts.slow) < _DESCRIBED:
            self.counts.slow.append((number, round(began, 3), round(took, 3)))
        if status != 200:
            self.counts.statuses[status] = self.counts.statuses.get(status, 0) + 1
            self._fail(number, began, status, body.decode(errors="replace"))
            return
        outputs = json.loads(body).get("outputs") or {}
        if outputs.get("inputs") != {"text": f"request {number}"}:
            self.counts.wrong += 1
            self._fail(number, began, status, body.decode(errors="replace"))
            return
        self.counts.answered += 1
        tag = str(outputs.get("tag", ""))
        self.counts.tags[tag] = self.counts.tags.get(tag, 0) + 1

    def _fail(self, number: int, began: float, status: int, text: str) -> None:
        self.counts.failed += 1
        if len(self.counts.failures) < _DESCRIBED:
            ended = time.monotonic()
            what = {"number": number, "began": began, "ended": ended, "status": status}
            self.counts.failures.append({**what, "text": text[:500]})


def main() -> None:
    """Run from the command line."""
    uvloop.run(_main(_options()))


async def _main(options: Options) -> None:
    load = Load(options)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, load.stop)
    loop.add_reader(sys.stdin, _stop_at_end, load)
    reporting = asyncio.create_task(_report(load), name="report")
    await load.run()
    reporting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reporting
    print(json.dumps(load.final()), flush=True)


def _stop_at_end(load: Load) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin)
        load.stop()


async def _report(load: Load) -> None:
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        print(json.dumps(load.report()), flush=True)


def _content_length(head: bytes) -> int:
    found = head.lower().partition(b"\r\ncontent-length:")[2]
    return int(found.partition(b"\r\n")[0])


def _quantile(times: list[float], part: float) -> float:
    return times[min(int(part * len(times)), len(times) - 1)] if times else 0.0


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--unix", type=Path, help="the daemon's socket")
    where.add_argument("--tcp", help="host:port of the daemon, or of a model that speaks its API")
    parser.add_argument("--model", required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float, help="requests a second (default: as many as it can)")
    parser.add_argument("--requests", type=int, help="end after that many")
    parser.add_argument("--timeout", type=float, default=60, help="seconds until it counts as lost")
    parser.add_argument("--header", action="append", default=[], help="'Name: value'")
    values = vars(parser.parse_args())
    return Options(headers=tuple(values.pop("header")), **values)


if __name__ == "__main__":
    main()
