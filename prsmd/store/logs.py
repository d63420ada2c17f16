"""Output of ended replicas, kept as one bounded file each so that logs outlive the container."""

import asyncio
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from prsmd.domain.logs import LogLine

_SAME_SECONDS = 1.0


class LogArchive:
    """A folder of `<replica>.jsonl` files. Writes are whole-file and atomic; reading is bounded."""

    def __init__(self, folder: Path, *, keep_files: int = 500) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._keep_files = keep_files

    async def save(self, replica_id: str, lines: Sequence[LogLine]) -> None:
        """Keep the lines of an ended replica. OSError where the disk does not take them."""
        await asyncio.to_thread(self._save, replica_id, lines)

    async def read(self, replica_id: str) -> list[LogLine]:
        """Return the kept lines, oldest first; empty where nothing was kept.

        A damaged line is left out.
        """
        return await asyncio.to_thread(self._read, replica_id)

    def _save(self, replica_id: str, lines: Sequence[LogLine]) -> None:
        path = self._path(replica_id)
        partial = path.with_suffix(".partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, 0o600), "w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps([line.at, line.stream, line.text]) + "\n")
        partial.replace(path)
        self._prune()

    def _read(self, replica_id: str) -> list[LogLine]:
        try:
            with self._path(replica_id).open("rb") as file:
                return [line for row in file if (line := _line(row)) is not None]
        except FileNotFoundError:
            return []

    def _prune(self) -> None:
        files = list(self._folder.glob("*.jsonl"))
        if len(files) <= self._keep_files:
            return
        now = time.time() + _SAME_SECONDS
        for path in sorted(files, key=lambda path: _age(path, now))[: -self._keep_files]:
            path.unlink(missing_ok=True)

    def _path(self, replica_id: str) -> Path:
        return self._folder / f"{replica_id}.jsonl"


def _line(row: bytes) -> LogLine | None:
    """Return the line that a row holds, None for a damaged one."""
    try:
        at, stream, text = json.loads(row)
    except (ValueError, TypeError, RecursionError):
        return None
    if not isinstance(at, float | int) or not math.isfinite(at):
        return None
    if not isinstance(stream, str) or not isinstance(text, str):
        return None
    return LogLine(at=at, stream=stream, text=text)


def _age(path: Path, now: float) -> tuple[bool, float]:
    """Return what sorts files by when they were written.

    First comes one that another save has just removed, then one that is to have been written later
    than `now`: the clock was ahead then.
    """
    try:
        written = path.stat().st_mtime
    except FileNotFoundError:
        return False, 0.0
    return written <= now, written
