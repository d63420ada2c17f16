"""Whether the files beside the databases are still what a next start needs.

They are read once, at the start, so that one which vanished or was changed is missed by nothing
until then. Only what this daemon did not do itself counts: logs grow and are moved aside, keys are
put before others, and the head counts on.
"""

import dataclasses
import os
import stat
from collections.abc import Callable
from pathlib import Path

from prsmd.core.exhaustion import is_exhausted

from . import continuity, head
from .db import Database
from .errors import StoreDamagedError

_MOST_BYTES = 1024**2  # of a file that is kept as a whole
_TAIL_BYTES = 4096
LOCK = "lock"
ENVELOPE = "envelope-key"  # the next one, which was written beside it, takes its place


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """What was there: the whole of a small file, the end of a log."""

    size: int
    content: bytes
    identity: tuple[int, int]


_Judge = Callable[[Path, _Seen, _Seen], bool]


class Beside:
    """Compares the files of a state folder with how they were when they were first seen.

    `opens` tells whether a key opens what is sealed (None: the folder's envelope key is not used).
    `copy` is a log elsewhere that is watched like those of the folder.
    `look` blocks on the disk. What is wrong is in `problems`, by file; nothing once it is mended.
    `needed` are those of them without which a next start refuses: not the copy, nor the lock, by
    which another start knows that this daemon is here.
    """

    def __init__(
        self, folder: Path, opens: Callable[[bytes], bool] | None, copy: Path | None = None
    ) -> None:
        self._folder = folder
        self._judges = dict(JUDGES)
        self._copies = () if copy is None else (str(copy.absolute()),)
        self._spared = (LOCK, *self._copies)
        self._logs: tuple[str, ...] = (*_LOGS, *self._copies)
        self._judges |= dict.fromkeys(self._copies, _goes_on)
        if opens is None:
            del self._judges[ENVELOPE]
        else:
            self._judges[ENVELOPE] = lambda _path, _before, now: opens(now.content)
        self._seen: dict[str, _Seen] = {}
        self.problems: dict[str, str] = {}

    def look(self) -> None:
        """Look at each file once."""
        problems = {}
        for name, judge in self._judges.items():
            problem = self._problem(name, judge)
            if problem is not None:
                problems[name] = problem
        for name in MOVED:
            problem = self._unreadable(name)
            if problem is not None:
                problems[name] = problem
        self.problems = problems

    @property
    def needed(self) -> list[str]:
        """What is wrong with files that the next start needs."""
        return [self.problems[name] for name in self.problems if name not in self._spared]

    def _unreadable(self, name: str) -> str | None:
        """Return what is wrong with a log that was moved aside; one that went is not missed."""
        path = self._folder / name
        try:
            _read(path, ends=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            if is_exhausted(error):
                return self.problems.get(name)
            return f"{path} cannot be read: {error.strerror or error}"
        return None

    def _problem(self, name: str, judge: _Judge) -> str | None:
        path, before = self._folder / name, self._seen.get(name)
        try:
            now = _read(path, ends=name in self._logs)
            fits = before is None or judge(path, before, now)
        except FileNotFoundError:
            return None if before is None else f"{path} was removed while prsmd runs"
        except OSError as error:
            if is_exhausted(error):
                return self.problems.get(name)
            if before is None:
                return None  # whoever needed it at the start said so
            return f"{path} cannot be read: {error.strerror or error}"
        if fits:
            self._seen[name] = now
            return None
        return f"{path} was changed or damaged while prsmd runs"


@dataclasses.dataclass(frozen=True, slots=True)
class Files:
    """The files of the state, and those `beside`. `usage` None: inferences are not recorded."""

    control: Database
    usage: Database | None
    beside: Beside


def _read(path: Path, *, ends: bool) -> _Seen:
    # A FIFO in the file's place would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is no file")
        start = max(0, found.st_size - _TAIL_BYTES) if ends else 0
        content = os.pread(descriptor, _TAIL_BYTES if ends else _MOST_BYTES, start)
        return _Seen(found.st_size, content[: found.st_size - start], (found.st_dev, found.st_ino))
    finally:
        os.close(descriptor)


def _same(_path: Path, before: _Seen, now: _Seen) -> bool:
    return now.content == before.content


def _is_it(_path: Path, before: _Seen, now: _Seen) -> bool:
    return now.identity == before.identity


def _goes_on_before(_path: Path, before: _Seen, now: _Seen) -> bool:
    return before.content in now.content


def _goes_on(path: Path, before: _Seen, _now: _Seen) -> bool:
    """Tell whether a log has what it had, and more; or that was moved aside as a whole."""
    return _has(path, before) or _has(path.with_name(path.name + ".1"), before)


def _has(path: Path, before: _Seen) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(before.size - len(before.content))
            return file.read(len(before.content)) == before.content
    except OSError as error:
        if is_exhausted(error):
            raise
        return False


def _counts_on(path: Path, before: _Seen, now: _Seen) -> bool:
    """Tell whether the head is the one that is written on, and says what it should."""
    if now.identity != before.identity:
        return False
    try:
        return head.HeadFile(path.parent).read() is not None
    except StoreDamagedError as error:
        if error.__cause__ is not None and is_exhausted(error.__cause__):
            raise error.__cause__ from None
        return False


_LOGS = (continuity.CHECKPOINTS, "audit-successions.jsonl")
MOVED = tuple(f"{name}.1" for name in _LOGS)
JUDGES: dict[str, _Judge] = {
    LOCK: _is_it,
    "pepper": _same,
    "audit-key": _same,
    ENVELOPE: _same,
    "audit-public-keys.pem": _goes_on_before,
    **dict.fromkeys(_LOGS, _goes_on),
    head.NAME: _counts_on,
}
