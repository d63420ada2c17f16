"""A file of the state: opening it safely, handing writes to its one writer, lending readers.

Decides nothing about what is stored. What the control file acknowledges is on the disk; the usage
file, which counts and records inferences, may lose its last moments with the power.
"""

import asyncio
import contextlib
import dataclasses
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from prsmd.domain.errors import ConflictError, StorageFullError

from . import continuity, meta
from .connection import Durability, Tx, open_writer
from .errors import BackupError, StoreDamagedError, translated
from .examination import examine, refuse_garbled
from .head import ANY, Head, HeadFile
from .lock import FolderLock
from .migrate import CONTROL as CONTROL_MIGRATIONS
from .migrate import USAGE as USAGE_MIGRATIONS
from .migrate import known_migrations, migrate
from .readers import Readers, ReadLimits
from .writer import CommitCounter, Writer, WriterLimits

__all__ = ["CONTROL", "USAGE", "Database", "DatabaseFile", "ReadLimits", "Tx", "WriterLimits"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFile:
    """One of the files of the state. `guards` says that it holds the lock on their folder."""

    name: str
    migrations: str
    durability: Durability
    guards: bool


CONTROL = DatabaseFile(
    name="control.db", migrations=CONTROL_MIGRATIONS, durability=Durability.FULL, guards=True
)
USAGE = DatabaseFile(
    name="usage.db", migrations=USAGE_MIGRATIONS, durability=Durability.NORMAL, guards=False
)


class Database:
    """An open database. Made by `open`; `close` lets go of everything.

    `ordered_anew` says that somebody had a new instance begin with it.
    """

    def __init__(
        self, path: Path, writer: Writer, readers: Readers, stack: contextlib.AsyncExitStack
    ) -> None:
        self.path = path
        self.fatal = writer.fatal
        self._writer = writer
        self._readers = readers
        self._stack = stack
        self._identities = _identities(path)
        self._damage: str | None = None
        self.ordered_anew = False

    @classmethod
    async def open(
        cls,
        folder: Path,
        limits: WriterLimits | None = None,
        file: DatabaseFile = CONTROL,
        reads: ReadLimits | None = None,
    ) -> "Database":
        """Lock `folder` (made with mode 0700), check the database in it and bring it up to date.

        Another file than the control file relies on the lock that the control file's owner holds.

        Raises:
            StoreLockedError: another process uses the folder.
            StoreDamagedError: the file is not an intact database.
            StoreNotItsOwnError: the control file is not the one that this folder had.
            StoreSchemaError: a newer prsmd wrote it, or a migration's checksum changed.
            StorageFullError: the folder or the file cannot be written.
        """
        path = folder / file.name
        async with contextlib.AsyncExitStack() as stack:
            if file.guards:
                stack.callback(_take(folder).release)
            with translated(path):
                head, known = _head_of(folder, file)
                tx = await open_writer(path, file.durability)
                stack.push_async_callback(tx.close)
                if head is not None:
                    await continuity.refuse_blank(tx, path, known)
                await migrate(tx, known_migrations(file.migrations))
                await asyncio.to_thread(refuse_garbled, path)
                counter = None
                if head is not None:
                    counter = await _continue(tx, path, head, known)
                    stack.callback(head.close)
                readers = await Readers.open(path, reads or ReadLimits())
                stack.push_async_callback(readers.close)
            writer = Writer(tx, limits or WriterLimits(), counter)
            stack.push_async_callback(writer.close)
            made = cls(path, writer, readers, stack.pop_all())
            made.ordered_anew = known is not None and known.begins
            return made
        raise AssertionError  # pragma: no cover - the stack swallows no error

    @property
    def last_tick(self) -> float:
        """Monotonic time at which the writer task was last known to be alive."""
        return self._writer.last_tick

    @property
    def writable(self) -> bool:
        """False after a write failed for lack of space or a failing disk, until one succeeds.

        False too while it or its write-ahead log is not where it was opened.
        """
        return self._writer.writable and self.in_place()

    def in_place(self) -> bool:
        """Tell whether a next start would find the file that is open, and its write-ahead log."""
        return _identities(self.path) == self._identities

    async def write(
        self,
        transaction: Callable[[Tx], Awaitable[T]],
        then: Callable[[T], None] | None = None,
    ) -> T:
        """Run `transaction` on the writer; its result is returned when it is on the disk.

        It is rolled back as a whole when it raises, and its error reaches only this caller. A
        cancelled caller stops waiting; the transaction is carried out all the same. The callable
        must not start or end transactions, and must await nothing but the store. `then` is given
        the result before anybody else learns of it, in the order of the commits: so memory can
        follow the store without a lock. Callers take turns, as they do in reading.

        Raises:
            ResourceUnavailableError: the caller has too much waiting already.
            StorageFullError: nothing was changed; trying again later can help.
            StoreFailedError: the outcome is unknown and `fatal` is done.
        """
        if not self._writer.closing:  # the last connection takes the write-ahead log with it
            self._refuse_lost()
        try:
            with translated(self.path):
                return await self._writer.submit(transaction, then)
        except StoreDamagedError as error:
            self._damage = error.message
            raise

    def _refuse_lost(self) -> None:
        """Raise StorageFullError where a next start would not find what is written now."""
        if not self.in_place():
            words = "or its -wal was removed or replaced while prsmd has it open."
            raise StorageFullError(f"{self.path} {words} Nothing was changed.")
        if self.damage is not None:
            raise StorageFullError(f"{self.damage} Nothing was changed.")

    @property
    def damage(self) -> str | None:
        """What says that the file is damaged: words of a reader, the writer or `examine`."""
        return self._damage or self._readers.damage

    async def examine(self, table: str | None = None) -> None:
        """Look at the file itself: at its header and one table, or at all of it.

        Raises:
            StoreDamagedError: it is not an intact database; `damage` says so from then on.
        """
        try:
            await asyncio.to_thread(examine, self.path, table)
        except StoreDamagedError as error:
            self._damage = error.message
            raise

    def read(self) -> AbstractAsyncContextManager[Tx]:
        """Lend a connection that can only read and sees one snapshot. Never waits for the writer.

        What is read after a `write` returned includes what it wrote. Callers take turns
        (`asking.asking_for`), and one that reads must not read anew before it has given back.
        """
        return self._readers.lend()

    async def ping(self) -> float:
        """Have the idle writer prove that it and its disk answer; return the new `last_tick`."""
        await self._writer.between(_touch)
        return self._writer.last_tick

    async def sync(self) -> None:
        """Have the disk hold all that `write` acknowledged before: for files that do not by itself.

        Raises:
            StorageFullError: the disk refused; what it holds is not known.
        """
        try:
            await asyncio.to_thread(_sync, self.path.with_name(self.path.name + "-wal"))
        except OSError as error:
            raise StorageFullError(f"{self.path} cannot be written: {error}.") from error

    async def backup(self, path: Path) -> None:
        """Copy the database, as of now, to the new file `path` (mode 0600). Writes wait meanwhile.

        Raises:
            ConflictError: there is a file already.
            BackupError: the copy could not be written; nothing is left of it.
        """

        async def copy(tx: Tx) -> None:
            await _copy_to(tx, path)

        await self._writer.between(copy)

    async def close(self) -> None:
        """Finish what waits to be written, then close and unlock. May be called twice."""
        await self._stack.aclose()


def _take(folder: Path) -> FolderLock:
    try:
        for above in reversed(folder.absolute().parents):
            above.mkdir(mode=0o755, exist_ok=True)  # `parents=True` would follow the umask
        folder.mkdir(mode=0o700, exist_ok=True)
        return FolderLock(folder)
    except OSError as error:
        raise StorageFullError(f"{folder} cannot be used for the state: {error}.") from error


def _head_of(folder: Path, file: DatabaseFile) -> tuple[HeadFile | None, Head | None]:
    """Return the head's file, for the control file, and what it says; refuse what was lost."""
    if not file.guards:
        return None, None
    head = HeadFile(folder)
    known = head.read()
    continuity.refuse_vanished(folder / file.name, known)
    return head, known


async def _continue(tx: Tx, path: Path, head: HeadFile, known: Head | None) -> CommitCounter:
    """Return what counts the commits from here on, of a file that is the folder's own."""
    await meta.ensure_instance_id(tx)
    instance, commits = await meta.instance_id(tx), await meta.commits(tx)
    if known is None or not known.unchecked:
        await continuity.refuse_other(tx, path, known)
    if known is not None and known.instance == ANY:
        await meta.note_accepted(tx, known.commits)  # before the order is gone
    head.begin(Head(instance, commits))
    return CommitCounter(commits, head.note)


def _identities(path: Path) -> tuple[tuple[int, int] | None, ...]:
    # Every open connection keeps the log's file: checkpoints write and truncate it in place.
    return _identity(path), _identity(path.with_name(path.name + "-wal"))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _touch(tx: Tx) -> None:
    await tx.execute_fetchall("SELECT 1 FROM schema_migrations LIMIT 1")


def _sync(path: Path) -> None:
    # What left the write-ahead log for the database was synced by SQLite on its way.
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


async def _copy_to(tx: Tx, path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        target = _new_database(path, partial)
        try:
            await tx.backup(target)
        finally:
            target.close()
        _publish(partial, path)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"The backup could not be written: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _new_database(path: Path, partial: Path) -> sqlite3.Connection:
    if path.exists():
        raise ConflictError(f"{path} exists already.")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return sqlite3.connect(partial, check_same_thread=False)


def _publish(partial: Path, path: Path) -> None:
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
