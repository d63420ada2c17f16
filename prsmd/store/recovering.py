"""A file of the state whose failure ends nothing: it is opened anew until that succeeds.

For what counts and records, not for what is desired: its writers keep what they could not write.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from prsmd.domain.errors import PrsmdError, StorageFullError

from .connection import Tx
from .db import Database, DatabaseFile
from .writer import WriterLimits

T = TypeVar("T")
_log = logging.getLogger(__name__)


class RecoveringDatabase(Database):
    """A database that may be away for a while. `fatal` is never done.

    Whoever writes has it opened again, at most once in `limits.retry_seconds`.
    """

    def __init__(self, folder: Path, file: DatabaseFile, limits: WriterLimits) -> None:
        self.path = folder / file.name
        self.fatal = asyncio.get_running_loop().create_future()
        self._folder = folder
        self._file = file
        self._limits = limits
        self._current: Database | None = None
        self._reason = "it was not opened yet"
        self._retry_at = 0.0
        self._opening = asyncio.Lock()

    @classmethod
    async def open(
        cls, folder: Path, limits: WriterLimits | None = None, file: DatabaseFile | None = None
    ) -> "RecoveringDatabase":
        """Open the file now, or later where the disk is full or fails just now.

        Raises:
            StoreDamagedError, StoreSchemaError: somebody has to look at it.
        """
        if file is None or file.guards:
            raise ValueError("what is desired must not be away")
        found = cls(folder, file, limits or WriterLimits())
        try:
            found._current = await Database.open(folder, found._limits, file)
        except StorageFullError as error:
            found._away(error)
        return found

    @property
    def last_tick(self) -> float:
        """Monotonic time at which the writer task was last known to be alive."""
        return 0.0 if self._current is None else self._current.last_tick

    @property
    def writable(self) -> bool:
        """Whether it is here and can be written, as far as is known."""
        return self._current is not None and self._current.writable

    async def write(self, transaction: Callable[[Tx], Awaitable[T]]) -> T:
        """Run `transaction` as `Database.write` does. StorageFullError while the file is away."""
        return await (await self._here()).write(transaction)

    def read(self) -> AbstractAsyncContextManager[Tx]:
        """Lend a reader as `Database.read` does. StorageFullError while the file is away."""
        if self._current is None:
            raise self._refusal()
        return self._current.read()

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
            if current is not None and not current.fatal.done() and current.in_place():
                return current
            if current is not None:
                await self._lose(current)
            if time.monotonic() < self._retry_at:
                raise self._refusal()
            return await self._open_again()

    async def _open_again(self) -> Database:
        try:
            self._current = found = await Database.open(self._folder, self._limits, self._file)
        except PrsmdError as error:
            self._away(error)
            raise self._refusal() from error
        _log.warning("%s can be written again", self.path)
        return found

    async def _lose(self, current: Database) -> None:
        if current.fatal.done():
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
        self._retry_at = time.monotonic() + self._limits.retry_seconds

    def _refusal(self) -> StorageFullError:
        return StorageFullError(f"{self.path} cannot be used: {self._reason}")
