"""How the database file is opened: the settings of the writer's and of a reader's connection."""

import enum
import os
import sqlite3
from pathlib import Path

import aiosqlite

from prsmd.domain.errors import StorageFullError

from .errors import StoreFailedError, damaged

Tx = aiosqlite.Connection

BUSY_MILLISECONDS = 5_000
WAL_LIMIT_BYTES = 8 * 1024**2

# Versions of SQLite before 3.51.3 can corrupt the file when one connection checkpoints while
# another writes. So nobody checkpoints by itself: the writer does, between its transactions.
_EVERY_CONNECTION = (
    f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA mmap_size = 0",
    "PRAGMA cell_size_check = ON",
)
_WRITER = (
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}",
)


class Durability(enum.StrEnum):
    """What survives a power cut: all that was acknowledged, or all but the last moments.

    Both survive a killed process, and neither ever leaves half a transaction.
    """

    FULL = "FULL"
    NORMAL = "NORMAL"


async def open_writer(path: Path, durability: Durability = Durability.FULL) -> Tx:
    """Open the one connection that writes, creating the file (0600), and prove it is intact."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageFullError(f"{path} cannot be opened: {error.strerror}.") from error
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists() and not journal.is_file():  # SQLite would wait for a FIFO
        raise damaged(journal, "it is no file")
    tx = await _unjoined(aiosqlite.connect(path, isolation_level=None, cached_statements=256))
    try:
        await _configure(tx, _EVERY_CONNECTION)
        await _refuse_damage(tx, path)
        await _use_wal(tx, path)
        await _configure(tx, (*_WRITER, f"PRAGMA synchronous = {durability}"))
    except BaseException:
        await tx.close()
        raise
    return tx


async def open_reader(path: Path) -> Tx:
    """Open a connection that can only read."""
    tx = await _unjoined(aiosqlite.connect(_read_only_uri(path), uri=True, isolation_level=None))
    try:
        tx.text_factory = _readable
        await _configure(tx, (*_EVERY_CONNECTION, "PRAGMA query_only = ON"))
    except BaseException:
        await tx.close()
        raise
    return tx


def _unjoined(connection: Tx) -> Tx:
    # Python waits for a connection's thread at exit. A daemon that dies of an unforeseen error, or
    # whose disk hangs, must end all the same; the file is as safe then as after a kill.
    connection._thread.daemon = True  # noqa: SLF001 - aiosqlite has no public way
    return connection


def _readable(text: bytes) -> str:
    # Text that someone damaged must be readable for whoever has to say that it is.
    return text.decode(errors="surrogateescape")


def _read_only_uri(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"


async def _configure(tx: Tx, pragmas: tuple[str, ...]) -> None:
    tx.row_factory = sqlite3.Row
    await tx.executescript(";".join(pragmas))


async def _refuse_damage(tx: Tx, path: Path) -> None:
    rows = await tx.execute_fetchall("PRAGMA quick_check(5)")
    problems = [line for row in rows for line in str(row[0]).splitlines()]
    if problems != ["ok"]:
        raise damaged(path, "; ".join(problems))


async def _use_wal(tx: Tx, path: Path) -> None:
    [[mode]] = await tx.execute_fetchall("PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise StoreFailedError(f"{path} cannot use a write-ahead log here (mode: {mode}).")
