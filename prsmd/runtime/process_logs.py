"""Reads the log files that `supervisor.py` writes, across their rotation."""

import collections
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from .base import LogLine, LogQuery


class LogReader:
    """Reads one run's log once through and then what is added. Call from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self._file: BinaryIO | None = None
        self._rest = b""

    def first(self, query: LogQuery) -> Iterable[LogLine]:
        """Return what is kept, as `query` asks."""
        if query.tail == 0:
            collections.deque(self.more(), maxlen=0)
            return []
        since = query.since or 0.0
        lines = (line for line in self._kept() if line.at >= since)
        return collections.deque(lines, maxlen=query.tail)

    def more(self) -> Iterator[LogLine]:
        """Yield the lines added since the last read."""
        if self._file is None and not self._open():
            return
        yield from self._lines()
        if self._rotated():
            self.close()
            self._open()
            yield from self._lines()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _kept(self) -> Iterator[LogLine]:
        self._open()
        older = self._path.with_suffix(".1")
        try:
            with older.open("rb") as file:
                for raw in file:
                    yield _line(raw)
        except FileNotFoundError:
            pass
        yield from self.more()

    def _open(self) -> bool:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return False
        return True

    def _lines(self) -> Iterator[LogLine]:
        while self._file is not None and (raw := self._file.readline()):
            self._rest += raw
            if self._rest.endswith(b"\n"):
                complete, self._rest = self._rest, b""
                yield _line(complete)

    def _rotated(self) -> bool:
        if self._file is None:
            return False
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False


def _line(raw: bytes) -> LogLine:
    at, stream, text = raw.decode(errors="replace").rstrip("\n").split(" ", 2)
    return LogLine(at=float(at), stream=stream, text=text)
