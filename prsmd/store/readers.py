"""A small pool of connections that can only read. Each use sees one unchanging snapshot."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from .connection import Tx, open_reader
from .errors import StoreClosedError, StoreDamagedError, translated


class Readers:
    """Lends reading connections; more readers than connections wait for one.

    `damage` is what the last reader who found the file damaged was told; None: nobody was.
    """

    def __init__(self, connections: list[Tx], path: Path) -> None:
        self.damage: str | None = None
        self._path = path
        self._idle: asyncio.LifoQueue[Tx] = asyncio.LifoQueue()
        self._closed = False
        for connection in connections:
            self._idle.put_nowait(connection)

    @classmethod
    async def open(cls, path: Path, count: int) -> "Readers":
        """Open `count` connections to the database at `path`, which the writer has open."""
        connections: list[Tx] = []
        try:
            for _ in range(count):
                connections.append(await open_reader(path))  # noqa: PERF401 - closed on failure
        except BaseException:
            for connection in connections:
                await connection.close()
            raise
        return cls(connections, path)

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Tx]:
        """Lend a connection with a read transaction open on it."""
        if self._closed:
            raise StoreClosedError("The state is closed.")
        tx = await self._idle.get()
        try:
            if self._closed:
                raise StoreClosedError("The state is closed.")
            with translated(self._path):
                await tx.execute_fetchall("BEGIN")
                yield tx
        except StoreDamagedError as error:
            self.damage = error.message
            raise
        finally:
            # The rollback is queued before anything can suspend, so a cancelled reader cannot
            # leave its snapshot to the next one.
            try:
                await (tx.close() if self._closed else tx.rollback())
            finally:
                self._idle.put_nowait(tx)

    async def close(self) -> None:
        """Close the connections, those that are lent when they come back."""
        self._closed = True
        while not self._idle.empty():
            await self._idle.get_nowait().close()
