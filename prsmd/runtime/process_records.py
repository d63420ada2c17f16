"""Reads the files that a run of the embedded runtime keeps about itself; `Runs` says which.

A file is whole, not there, or damaged: by a power cut, by the disk, by another hand.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from .base import Labels

_UNREADABLE = {errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EISDIR, errno.ELOOP}


class DamagedFileError(Exception):
    """A file of a run has not what was written to it."""


def record_of(path: Path) -> tuple[Labels, int] | None:
    """Return who a run is, and its port; None before it was recorded."""
    record = _read(path / "record.json", labels=dict, port=int)
    if record is None:
        return None
    try:
        return Labels(**record["labels"]), record["port"]
    except TypeError:
        raise DamagedFileError(f"{path / 'record.json'} is damaged") from None


def processes_of(path: Path) -> dict[str, Any] | None:
    """Return the pids of the `supervisor` and the `leader` of a run, None before its start."""
    return _read(path / "process.json", supervisor=int, leader=int)


def exit_of(path: Path) -> dict[str, Any] | None:
    """Return the `code` of a run's end and the epoch seconds `at` which it was, None before it."""
    return _read(path / "exit.json", code=int, at=float)


def _content(path: Path) -> bytes:
    # A FIFO in the file's place would be waited for, by all that reads from the disk.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EISDIR, "it is no file")
        return file.read()


def _read(path: Path, **members: type) -> dict[str, Any] | None:
    """Return the members of a file, None without one. DamagedFileError for anything else."""
    try:
        content = json.loads(_content(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from error
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict) or any(
        type(content.get(name)) is not kind for name, kind in members.items()
    ):
        raise DamagedFileError(f"{path} is damaged: it has not what belongs there")
    return content
