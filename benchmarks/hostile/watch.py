"""A process that asks one thing all the time and knows the longest time between two answers.

It waits `_PAUSE_SECONDS` between an answer and the next question, always on one kept-alive
connection. Only an answer 200 counts. How late it woke itself is the machine's part of a gap.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import Any

_FORK = multiprocessing.get_context("fork")
_PAUSE_SECONDS = 0.003
_ANSWER_SECONDS = 60.0
_LAST, _LONGEST, _COUNT, _BAD, _LATE, _MARK = range(6)

Connect = Callable[[], socket.socket]


class Watch:
    """The process, and what it saw since `mark`."""

    def __init__(self, connect: Connect, request: bytes) -> None:
        self._seen = _FORK.Array("d", 6, lock=False)
        self._process: ForkProcess = _FORK.Process(
            target=_run, args=(connect, request, self._seen), daemon=True
        )
        self._process.start()

    @property
    def silent_seconds(self) -> float:
        """How long ago the last answer came."""
        return float(time.monotonic() - self._seen[_LAST])

    @property
    def gap_ms(self) -> float:
        """The longest time without an answer, the one that is under way included."""
        return round(1000 * max(float(self._seen[_LONGEST]), self.silent_seconds), 1)

    @property
    def late_ms(self) -> float:
        """By how much the process itself woke too late, at most."""
        return round(1000 * float(self._seen[_LATE]), 1)

    @property
    def answers(self) -> int:
        """How many answers 200 came."""
        return int(self._seen[_COUNT])

    @property
    def failures(self) -> int:
        """How many other answers and broken connections came."""
        return int(self._seen[_BAD])

    def mark(self) -> None:
        """Forget what was seen so far."""
        self._seen[_MARK] = 1
        while self._seen[_MARK]:
            time.sleep(0.001)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _run(connect: Connect, request: bytes, seen: Any) -> None:
    connection: socket.socket | None = None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    seen[_LAST], parent = time.monotonic(), os.getppid()
    while os.getppid() == parent:
        if seen[_MARK]:
            seen[_LONGEST] = seen[_COUNT] = seen[_BAD] = seen[_LATE] = seen[_MARK] = 0
        try:
            connection = connection or connect()
            good = _ask(connection, request)
        except (OSError, EOFError, ValueError):
            good = False
            if connection is not None:
                connection.close()
            connection = None
        now = time.monotonic()
        if good:
            seen[_LONGEST] = max(seen[_LONGEST], now - seen[_LAST])
            seen[_LAST] = now
            seen[_COUNT] += 1
        else:
            seen[_BAD] += 1
        time.sleep(_PAUSE_SECONDS)
        seen[_LATE] = max(seen[_LATE], time.monotonic() - now - _PAUSE_SECONDS)


def _ask(connection: socket.socket, request: bytes) -> bool:
    connection.sendall(request)
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + _length(received):
        found = connection.recv(65536)
        if not found:
            raise EOFError
        received += found
    return received[9:12] == b"200"


def _length(received: bytes) -> int:
    lowered = received.partition(b"\r\n\r\n")[0].lower()
    return int(lowered.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)


def over_tcp(port: int) -> Connect:
    """Return what connects to a port of this machine."""
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS)


def over_unix(path: str) -> Connect:
    """Return what connects to a Unix socket."""

    def connect() -> socket.socket:
        with contextlib.ExitStack() as unless_connected:
            made = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
            made.settimeout(_ANSWER_SECONDS)
            made.connect(path)
            unless_connected.pop_all()
        return made

    return connect
