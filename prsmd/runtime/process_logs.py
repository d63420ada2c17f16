"""Reads the log files that `supervisor.py` writes, across their rotation."""

import collections
import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from .base import LogLine, LogQuery

_BLOCK_BYTES = 256 * 1024


class LogReader:
    """Reads one run's log once through and then what is added. Call from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self._file: BinaryIO | None = None
        self._rest = b""

    def first(self, query: LogQuery) -> Iterable[LogLine]:
        """Return what is kept, as `query` asks; of long files no more than that is parsed."""
        self._open()
        older = self._older()
        if query.tail is not None:
            _skip_all_but([file for file in (older, self._file) if file is not None], query.tail)
        since = query.since or 0.0
        with contextlib.nullcontext() if older is None else older:
            kept = () if older is None else _whole(map(_line, older))
            lines = (each for each in itertools.chain(kept, self.more()) if each.at >= since)
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

    def _older(self) -> BinaryIO | None:
        """Open the file before this one, unless this one was just moved there."""
        try:
            older = self._path.with_suffix(".1").open("rb")
        except FileNotFoundError:
            return None
        if self._file is not None and os.path.sameopenfile(older.fileno(), self._file.fileno()):
            older.close()
            return None
        return older

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
                yield from _whole([_line(complete)])

    def _rotated(self) -> bool:
        if self._file is None:
            return False
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False


def _skip_all_but(files: Sequence[BinaryIO], lines: int) -> None:
    """Go forward in files that follow each other to where their last lines begin."""
    for file in reversed(files):
        lines -= _skip_in(file, lines)


def _skip_in(file: BinaryIO, lines: int) -> int:
    """Go to where the last whole lines of a file begin, or its first; return how many they are."""
    at = file.seek(0, os.SEEK_END)
    found = 0
    while at:
        size = min(at, _BLOCK_BYTES)
        at = file.seek(at - size)
        block = file.read(size)
        ends = block.count(b"\n")
        if found + ends > lines:  # the line end before those that are wanted is in here
            place = len(block)
            for _ in range(lines - found + 1):
                place = block.rindex(b"\n", 0, place)
            file.seek(at + place + 1)
            return lines
        found += ends
    file.seek(0)
    return found


def _whole(lines: Iterable[LogLine | None]) -> Iterator[LogLine]:
    return (line for line in lines if line is not None)


def _line(raw: bytes) -> LogLine | None:
    """Return a line, None for one that a power cut or the disk damaged."""
    try:
        at, stream, text = raw.decode(errors="replace").rstrip("\n").split(" ", 2)
        return LogLine(at=float(at), stream=stream, text=text)
    except ValueError:
        return None
