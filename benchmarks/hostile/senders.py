"""Processes that send what a case says, from memory, and count what became of it.

They stand for clients on other machines, so they run at a low priority and from addresses of their
own (127.0.1.*); everything stays on this machine. Each is bounded by `Plan.count` and by a deadline
at which it closes every connection.
"""

import asyncio
import collections
import contextlib
import dataclasses
import enum
import functools
import multiprocessing
import os
import re
import resource
import signal
import socket
import ssl
import time
from collections.abc import Sequence
from multiprocessing.context import ForkProcess
from typing import Any

_FORK = multiprocessing.get_context("fork")
_PRIORITY = 10  # steps below whoever starts them
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BLOCK = 256 * 1024
_SMALL_BUFFER = 4096
_PATIENCE_SECONDS = 600  # for whoever started this one may be dead
_CHUNKS_END = b"0\r\n\r\n"

Request = tuple[bytes, ...]  # its pieces


class Answers(enum.Enum):
    """What a sender does with answers."""

    AWAITED = "each is read before the next request"
    PIPELINED = "requests are sent without waiting, answers read as they come"
    UNREAD = "nothing is ever read"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all senders of a case send together.

    Each of `connections` sends `count` requests in turn, each one beginning elsewhere in
    `requests`, on one connection or (`reuse` False) on a new one each. `trickle_seconds` pass
    between the pieces of a request. `held`: connections stay open until the deadline.
    """

    requests: Sequence[Request] = ()
    connections: int = 8
    count: int = 1
    reuse: bool = True
    trickle_seconds: float = 0.0
    answers: Answers = Answers.AWAITED
    held: bool = False
    tls: bool = False


class Senders:
    """So many processes that wait for `begin`, then carry a plan out."""

    def __init__(self, plan: Plan, port: int, seconds: float, processes: int = 2) -> None:
        self._begin = _FORK.Event()
        self._seconds = seconds
        self._told = [_FORK.Pipe(duplex=False) for _ in range(processes)]
        self._processes: list[ForkProcess] = []
        for number, (_, tell) in enumerate(self._told):
            work = _Work(plan, port, seconds, range(number, plan.connections, processes))
            made = _FORK.Process(target=_run, args=(work, number, self._begin, tell), daemon=True)
            made.start()
            self._processes.append(made)

    def begin(self) -> None:
        """Have them send."""
        self._begin.set()

    def working(self) -> bool:
        """Tell whether any has not ended."""
        return any(process.is_alive() for process in self._processes)

    def end(self) -> dict[str, int]:
        """End them, and return the sum of what they counted."""
        total: collections.Counter[str] = collections.Counter()
        for process, (told, _) in zip(self._processes, self._told, strict=True):
            if told.poll(0 if process.exitcode is not None else 1):
                with contextlib.suppress(EOFError):
                    total.update(told.recv())
            process.kill()
            process.join()
        for ends in self._told:
            for end in ends:
                end.close()
        return dict(sorted(total.items()))


class _Work:
    """One process's part of a plan."""

    def __init__(self, plan: Plan, port: int, seconds: float, numbers: Sequence[int]) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.source = "127.0.1.1"
        self._plan = plan
        self._port = port
        self._seconds = seconds
        self._numbers = numbers

    async def run(self) -> None:
        """Send until all is sent or the time is over."""
        tasks = [asyncio.create_task(self._client(n), name=f"client {n}") for n in self._numbers]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self, number: int) -> None:
        plan = self._plan
        connection: _Connection | None = None
        try:
            for turn in range(plan.count):
                request = plan.requests[(number + turn) % len(plan.requests)]
                if connection is None or connection.closed or not plan.reuse:
                    if connection is not None:
                        connection.close()
                    connection = await self._connect()
                    if connection is None:
                        continue
                await self._send(connection, request)
            if plan.held:
                await asyncio.sleep(self._seconds)
        finally:
            if connection is not None:
                connection.close()

    async def _connect(self) -> "_Connection | None":
        try:
            return await _Connection.open(self._port, self.source, self._plan, self.counts)
        except OSError:
            self.counts["refused"] += 1
            await asyncio.sleep(0.05)
            return None

    async def _send(self, connection: "_Connection", request: Request) -> None:
        self.counts["requests"] += 1
        try:
            await connection.exchange(request)
        except (OSError, EOFError, ValueError):
            self.counts["cut"] += 1
            connection.close()


class _Connection:
    """One client's connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        plan: Plan,
        counts: collections.Counter[str],
    ) -> None:
        self.closed = False
        self._reader = reader
        self._writer = writer
        self._plan = plan
        self._counts = counts
        self._reading: asyncio.Task[None] | None = None
        if plan.answers is Answers.PIPELINED:
            self._reading = asyncio.create_task(self._read_all(), name="read")

    @classmethod
    async def open(
        cls, port: int, source: str, plan: Plan, counts: collections.Counter[str]
    ) -> "_Connection":
        """Connect from `source`."""
        made = socket.socket()
        made.setblocking(False)  # noqa: FBT003 - its only way
        if plan.answers is Answers.UNREAD:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            made.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
            context, name = (_tls(), "localhost") if plan.tls else (None, None)
            ends = await asyncio.open_connection(
                sock=made, limit=_BLOCK, ssl=context, server_hostname=name
            )
        except BaseException:
            made.close()
            raise
        return cls(*ends, plan, counts)

    async def exchange(self, request: Request) -> None:
        """Send a request, and read its answer if the plan says so."""
        if self._plan.answers is Answers.UNREAD:
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # it has it
        if self._plan.answers is not Answers.AWAITED:
            await self._send(request)
            return
        sending = asyncio.create_task(self._send(request), name="send")
        try:
            status = await self._read_one()
            self._counts[str(status)] += 1
            self.closed = self.closed or not sending.done()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def close(self) -> None:
        """End it."""
        self.closed = True
        if self._reading is not None:
            self._reading.cancel()
        self._writer.transport.abort()

    async def _send(self, request: Request) -> None:
        for number, piece in enumerate(request):
            if number and self._plan.trickle_seconds:
                await asyncio.sleep(self._plan.trickle_seconds)
            view = memoryview(piece)
            for start in range(0, len(piece), _BLOCK):
                self._writer.write(view[start : start + _BLOCK])
                await self._writer.drain()

    async def _read_one(self) -> int:
        head = await self._reader.readuntil(b"\r\n\r\n")
        while head[9:10] == b"1":
            head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is not None:
            await self._discard(int(length[1]))
        else:
            await self._discard_chunks()
        self.closed = b"\r\nconnection: close" in head.lower()
        return int(head[9:12])

    async def _discard(self, left: int) -> None:
        while left:
            found = await self._reader.read(min(left, _BLOCK))
            if not found:
                raise EOFError
            left -= len(found)

    async def _discard_chunks(self) -> None:
        last = b""
        while not last.endswith(_CHUNKS_END):
            found = await self._reader.read(_BLOCK)
            if not found:
                raise EOFError
            last = (last + found)[-len(_CHUNKS_END) :]

    async def _read_all(self) -> None:
        with contextlib.suppress(OSError):
            while found := await self._reader.read(_BLOCK):
                for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", found):
                    self._counts[status.decode()] += 1
            self.closed = True


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _run(work: _Work, number: int, begin: Any, tell: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(_PRIORITY)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    work.source = f"127.0.1.{number + 1}"
    if not begin.wait(_PATIENCE_SECONDS):
        return
    began = time.monotonic()
    asyncio.run(work.run())
    tell.send(work.counts + collections.Counter(ms=round(1000 * (time.monotonic() - began))))
