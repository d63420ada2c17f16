"""The store's own errors, and how SQLite's are translated into the domain's tree."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prsmd.domain.errors import (
    ConflictError,
    InvalidInputError,
    PrsmdError,
    ResourceUnavailableError,
    StorageFullError,
)

_STORAGE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class StoreLockedError(PrsmdError):
    """Another process uses this folder."""


class StoreSchemaError(PrsmdError):
    """The file was made by a newer prsmd, or a migration that it went through has changed."""


class StoreDamagedError(PrsmdError):
    """The file is not an intact database."""


class DamagedRowError(StoreDamagedError):
    """A row is missing, or holds what prsmd never wrote. Who knows the file names it: `damaged`."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The state is damaged: {why}.", problems=[why])
        self.why = why


class StoreNotItsOwnError(PrsmdError):
    """The control file is not the one that this folder had: it was lost, emptied or put back."""


class StoreFailedError(PrsmdError):
    """A commit failed in a way that leaves its outcome unknown; the daemon must start again."""


class BackupError(PrsmdError):
    """A backup could not be written."""


class StoreClosedError(PrsmdError):
    """The store is closing or closed; nothing was changed."""


class StoreBusyError(ResourceUnavailableError):
    """Another process holds the database's lock; nothing was changed."""


class TransactionTimeoutError(ResourceUnavailableError):
    """A transaction took too long and was rolled back."""


class QueryTooExpensiveError(InvalidInputError):
    """What a caller reads costs more than one request may; it was given up."""


class IllegalTransitionError(ConflictError):
    """A replica can not go from the state that is stored to the one that was given."""


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code of `error`; 0 for one that Python itself raised."""
    code: Any = getattr(error, "sqlite_errorcode", 0)
    return int(code) & 0xFF


def is_storage(error: BaseException) -> bool:
    """Tell whether `error` says that the disk is full or cannot be written."""
    return isinstance(error, sqlite3.Error) and primary_code(error) in _STORAGE


def is_full(error: BaseException) -> bool:
    """Tell whether `error` says that the disk is full."""
    return isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_FULL


def is_io(error: sqlite3.Error) -> bool:
    """Tell whether `error` is a failed read, write or fsync."""
    return primary_code(error) == sqlite3.SQLITE_IOERR


def damaged(path: Path, why: str) -> StoreDamagedError:
    """Return the error for a file that is not what prsmd wrote."""
    words = f"{path} is damaged: {why}. Restore a backup, or move the file away."
    return StoreDamagedError(words, problems=[why])


def translate(error: sqlite3.Error | UnicodeDecodeError, path: Path | None = None) -> PrsmdError:
    """Return the domain's error for SQLite's; the caller raises it `from` the original.

    A UnicodeDecodeError comes from Python's sqlite3 where a message quotes what is not text.
    """
    if isinstance(error, UnicodeDecodeError) or primary_code(error) in _DAMAGED or _garbled(error):
        where = Path("The state's file") if path is None else path
        return damaged(where, f"{error}" or "it is not an intact database")
    code = primary_code(error)
    if code in _STORAGE:
        return StorageFullError(f"The state could not be written: {error}. Nothing was changed.")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ConflictError(f"This contradicts what is stored: {error}.")
    if code == sqlite3.SQLITE_INTERRUPT:
        return QueryTooExpensiveError.field(
            "query",
            "reads more than one request may. Narrow it: since and until (or one of them), exact"
            " texts in the place of beginnings, a smaller offset; page on with before",
        )
    if code in _BUSY:
        return StoreBusyError("Another process keeps the state locked. Nothing was changed.")
    return PrsmdError("The state could not be read or written.", sqlite=str(error))


@contextlib.contextmanager
def translated(path: Path | None = None) -> Iterator[None]:
    """Raise the domain's error for every one of SQLite's that leaves the block.

    `path` is the file that it is about; a row's damage gets its name.
    """
    try:
        yield
    except DamagedRowError as error:
        if path is None:
            raise
        raise damaged(path, error.why) from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise translate(error, path) from error


def _garbled(error: sqlite3.Error) -> bool:
    """Tell whether a column is not text, or the schema is not what the migrations made."""
    words = str(error)
    return words.startswith(("Could not decode", "no such table", "no such column", "malformed"))
