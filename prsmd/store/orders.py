"""What an operator orders of a folder that no daemon has: begin anew, or take it as it is."""

import contextlib
import time
from pathlib import Path

from prsmd.domain.errors import StorageFullError

from .errors import StoreDamagedError
from .head import ANY, NEW, Head, HeadFile
from .lock import FolderLock

_KEPT = ("lock",)


def begin_anew(folder: Path) -> str:
    """Move all that is in the folder aside, for a new instance; return what to say of it.

    Raises:
        StoreLockedError: a daemon has the folder.
        StorageFullError: it cannot be moved.
    """
    aside = folder / time.strftime("before-%Y%m%dT%H%M%SZ", time.gmtime())
    lock = _locked(folder)
    try:
        what = [each for each in folder.iterdir() if each.name not in _KEPT and not _aside(each)]
        aside.mkdir(mode=0o700)
        for each in what:
            each.rename(aside / each.name)
        HeadFile(folder).order(Head(NEW))
    except OSError as error:
        raise StorageFullError(f"{folder} cannot be moved aside: {error}.") from error
    finally:
        lock.release()
    return f"what was in {folder} is in {aside}; the next start begins a new instance\n"


def accept(folder: Path) -> str:
    """Have the next start take control.db as it is; return what to say of it.

    Raises:
        StoreLockedError: a daemon has the folder.
        StorageFullError: nothing can be written there.
    """
    lock = _locked(folder)
    try:
        HeadFile(folder).order(Head(ANY, _commits(folder)))
    except OSError as error:
        raise StorageFullError(f"{folder} cannot be written: {error}.") from error
    finally:
        lock.release()
    return f"the next start takes {folder / 'control.db'} as it is\n"


def _commits(folder: Path) -> int:
    """Return how many commits the head knows of; 0 where it cannot be read."""
    with contextlib.suppress(StoreDamagedError):
        known = HeadFile(folder).read()
        return 0 if known is None else known.commits
    return 0


def _locked(folder: Path) -> FolderLock:
    try:
        return FolderLock(folder)
    except OSError as error:
        raise StorageFullError(f"{folder} cannot be used: {error}.") from error


def _aside(path: Path) -> bool:
    return path.is_dir() and path.name.startswith("before-")
