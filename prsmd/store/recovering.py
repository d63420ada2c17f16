"""A file of the state whose failure ends nothing: it is opened anew until that succeeds.

For what counts and records, not for what is desired: its writers keep what they could not write.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from prsmd.domain.errors import PrsmdError, StorageFullError

from .connection import Tx
from .db import Database, DatabaseFile, ReadLimits
from .errors import StoreDamagedError, StoreSchemaError
from .writer import WriterLimits

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MOST_ASIDE = 3
_LOOK_AGAIN_SECONDS = 60.0  # for a file that only somebody's hand makes good: it is read as a whole


class RecoveringDatabase(Database):
    """A database that may be away for a while. `fatal` is never done.

    Whoever writes has it opened again, at most once in `limits.retry_seconds`. `losses` are the
    damaged files that were moved aside, in words, oldest first.
    """

    def __init__(
        self,
        folder: Path,
        file: DatabaseFile,
        limits: WriterLimits,
        reads: ReadLimits | None = None,
    ) -> None:
        self.path = folder / file.name
        self.fatal = asyncio.get_running_loop().create_future()
        self._folder = folder
        self._file = file
        self._limits = limits
        self._reads = reads
        self._current: Database | None = None
        self._reason = "it was not opened yet"
        self._retry_at = 0.0
        self._opening = asyncio.Lock()
        self.losses: list[str] = []

    @classmethod
    async def open(
        cls,
        folder: Path,
        limits: WriterLimits | None = None,
        file: DatabaseFile | None = None,
        reads: ReadLimits | None = None,
    ) -> "RecoveringDatabase":
        """Open the file now, or later where the disk is full or fails just now.

        A damaged file is moved aside, and a new one begun: `losses` says so. One that another
        release wrote stays closed.
        """
        if file is None or file.guards:
            raise ValueError("what is desired must not be away")
        found = cls(folder, file, limits or WriterLimits(), reads)
        try:
            found._current = await found._open_intact()
        except (StorageFullError, StoreDamagedError, StoreSchemaError) as error:
            found._away(error)
        return found

    @property
    def damage(self) -> str | None:
        """Why it is away, if it is for being damaged; else what its readers and writer say."""
        return self._reason if self._current is None else self._current.damage

    async def examine(self, table: str | None = None) -> None:
        """Look at the file as `Database.examine` does. Nothing while it is away."""
        if self._current is not None:
            await self._current.examine(table)

    @property
    def last_tick(self) -> float:
        """Monotonic time at which the writer task was last known to be alive."""
        return 0.0 if self._current is None else self._current.last_tick

    @property
    def writable(self) -> bool:
        """Whether it is here and can be written, as far as is known."""
        return self._current is not None and self._current.writable

    def in_place(self) -> bool:
        """Tell whether it is here, and is what a next start would find."""
        return self._current is not None and self._current.in_place()

    async def write(
        self,
        transaction: Callable[[Tx], Awaitable[T]],
        then: Callable[[T], None] | None = None,
    ) -> T:
        """Run `transaction` as `Database.write` does.

        Raises:
            StorageFullError: the file is away or, as was found just now, damaged.
        """
        here = await self._here()
        with self._ending_nothing():
            return await here.write(transaction, then)

    def read(self) -> AbstractAsyncContextManager[Tx]:
        """Lend a reader as `Database.read` does. StorageFullError as for `write`."""
        if self._current is None:
            raise self._refusal()
        return self._lent(self._current)

    @contextlib.asynccontextmanager
    async def _lent(self, here: Database) -> AsyncIterator[Tx]:
        with self._ending_nothing():
            async with here.read() as tx:
                yield tx

    @contextlib.contextmanager
    def _ending_nothing(self) -> Iterator[None]:
        """Damage is made up for when the file is opened the next time: it is no damaged state."""
        try:
            yield
        except StoreDamagedError as error:
            raise StorageFullError(f"{self.path} cannot be used: {error.message}") from error

    async def ping(self) -> float:
        """Have the writer prove that it answers."""
        return await (await self._here()).ping()

    async def sync(self) -> None:
        """Have the disk hold all that was acknowledged before."""
        await (await self._here()).sync()

    async def backup(self, path: Path) -> None:
        """Copy the database as `Database.backup` does."""
        await (await self._here()).backup(path)

    async def close(self) -> None:
        """Close it, if it is open."""
        async with self._opening:
            await self._let_go()
            self._reason, self._retry_at = "it is closed", float("inf")

    async def _here(self) -> Database:
        async with self._opening:
            current = self._current
            if current is not None and self._is_good(current):
                return current
            if current is not None:
                await self._lose(current)
            if time.monotonic() < self._retry_at:
                raise self._refusal()
            return await self._open_again()

    @staticmethod
    def _is_good(current: Database) -> bool:
        return not current.fatal.done() and current.in_place() and current.damage is None

    async def _open_intact(self) -> Database:
        """Open the file; one that is damaged is moved aside, unless too many are there already."""
        try:
            return await self._opened()
        except StoreDamagedError as error:
            if not self._move_aside(error):
                raise
        return await self._opened()

    async def _opened(self) -> Database:
        return await Database.open(self._folder, self._limits, self._file, self._reads)

    def _move_aside(self, error: StoreDamagedError) -> bool:
        name = f"{self.path.name}.damaged-"
        if len(list(self._folder.glob(f"{name}*Z"))) >= _MOST_ASIDE:
            return False
        aside = self.path.with_name(time.strftime(f"{name}%Y%m%dT%H%M%SZ", time.gmtime()))
        try:
            self.path.replace(aside)
            for suffix in ("-wal", "-shm", "-journal"):
                beside = self.path.with_name(self.path.name + suffix)
                if beside.exists():
                    beside.replace(aside.with_name(aside.name + suffix))
        except OSError as problem:
            _log.error("%s cannot be moved aside: %s", self.path, problem)
            return False
        words = f"{error.message} It was moved to {aside.name}, and an empty one begun."
        _log.error("%s", words)
        self.losses.append(words)
        return True

    async def _open_again(self) -> Database:
        try:
            self._current = found = await self._open_intact()
        except PrsmdError as error:
            self._away(error)
            raise self._refusal() from error
        _log.warning("%s can be written again", self.path)
        return found

    async def _lose(self, current: Database) -> None:
        if current.damage is not None:
            self._away(StorageFullError(current.damage))
            self._retry_at = 0.0
        elif current.fatal.done():
            self._away(current.fatal.result())
        else:
            self._away(StorageFullError(f"{self.path} was removed or replaced."))
        displaced = not current.in_place()
        await self._let_go()
        if displaced:
            # What SQLite leaves beside a file that was moved would be read into the next one.
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    async def _let_go(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            await current.close()

    def _away(self, error: PrsmdError) -> None:
        if error.message != self._reason:
            _log.error("%s is away until it can be opened again: %s", self.path, error.message)
        self._reason = error.message
        mended_by_hand = isinstance(error, StoreDamagedError | StoreSchemaError)
        pause = _LOOK_AGAIN_SECONDS if mended_by_hand else self._limits.retry_seconds
        self._retry_at = time.monotonic() + pause

    def _refusal(self) -> StorageFullError:
        return StorageFullError(f"{self.path} cannot be used: {self._reason}")
