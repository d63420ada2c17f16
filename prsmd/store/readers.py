"""A small pool of connections that can only read. Each use sees one unchanging snapshot.

The daemon's own loops have connections that no caller ever uses. Callers share the others in turn
(`core/fair_queue.py`), and what one of them reads may cost no more than a limit.
"""

import asyncio
import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from prsmd.core.fair_queue import Asker, Slots

from .asking import asker
from .connection import Tx, open_reader
from .errors import StoreClosedError, StoreDamagedError, translated
from .fair_semaphore import FairSemaphore

_OWN_CONNECTIONS = 2
_STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's virtual machine: a millisecond at most
_CALLERS_NICENESS = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """How many callers read at once, how much each may wait for, and what one reading may cost.

    `seconds` are of processor time in the database, so that a busy machine fails nobody.
    """

    readers: int = 4
    waiting: int = 256
    seconds: float = 1.0

    @property
    def slots(self) -> Slots:
        """The callers' slots: no organization has them all, unless there is only one."""
        half = max(1, self.readers // 2)
        return Slots(total=self.readers, per_organization=half, waiting=self.waiting)


class Budget:
    """What the reading on one connection has cost since it was lent. Asked in its thread."""

    def __init__(self) -> None:
        self._yields = False
        self._seconds: float | None = None
        self._since: float | None = None

    def begin(self, seconds: float | None) -> None:
        """Let what is read from now on cost so much processor time; None: anything."""
        self._seconds, self._since = seconds, None

    def is_spent(self) -> bool:
        """Tell SQLite, which asks now and then, whether to give the query up."""
        if self._seconds is None:
            return False
        if not self._yields:  # a long query leaves the processors to the loop and the models
            self._yields = True
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _CALLERS_NICENESS)
        now = time.thread_time()
        if self._since is None:
            self._since = now
        return now - self._since > self._seconds


class Readers:
    """Lends reading connections; more readers than connections wait for one.

    `damage` is what the last reader who found the file damaged was told; None: nobody was.
    """

    def __init__(self, path: Path, own: list[Tx], callers: list[Tx], limits: ReadLimits) -> None:
        self.damage: str | None = None
        self._path = path
        self._limits = limits
        self._own: asyncio.LifoQueue[Tx] = asyncio.LifoQueue()
        for connection in own:
            self._own.put_nowait(connection)
        self._callers = callers
        self._semaphore = FairSemaphore(limits.slots, "reader")
        self._budgets: dict[Tx, Budget] = {}
        self._closed = False

    @classmethod
    async def open(cls, path: Path, limits: ReadLimits) -> "Readers":
        """Open connections to the database at `path`, which the writer has open."""
        connections: list[Tx] = []
        try:
            for _ in range(_OWN_CONNECTIONS + limits.readers):
                connections.append(await open_reader(path))  # noqa: PERF401 - closed on failure
            own, callers = connections[:_OWN_CONNECTIONS], connections[_OWN_CONNECTIONS:]
            found = cls(path, own, callers, limits)
            for connection in callers:
                await found._bound(connection)
        except BaseException:
            for connection in connections:
                await connection.close()
            raise
        return found

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Tx]:
        """Lend a connection with a read transaction open on it.

        Raises:
            ResourceUnavailableError: the caller has too much waiting already.
            QueryTooExpensiveError: what a caller reads costs more than one request may.
        """
        self._refuse_closed()
        who = asker()
        async with contextlib.nullcontext() if who is None else self._semaphore.slot(who):
            self._refuse_closed()
            tx = await self._own.get() if who is None else self._callers.pop()
            try:
                self._refuse_closed()
                with translated(self._path):
                    await tx.execute_fetchall("BEGIN")
                    if who is not None:
                        self._budgets[tx].begin(self._limits.seconds)
                    yield tx
            except StoreDamagedError as error:
                self.damage = error.message
                raise
            finally:
                # The rollback is queued before anything can suspend, so a cancelled reader cannot
                # leave its snapshot to the next one.
                try:
                    if who is not None:
                        self._budgets[tx].begin(None)
                    await (tx.close() if self._closed else tx.rollback())
                finally:
                    self._take_back(tx, who)

    async def close(self) -> None:
        """Close the connections, those that are lent when they come back."""
        self._closed = True
        while not self._own.empty():
            await self._own.get_nowait().close()
        while self._callers:
            await self._callers.pop().close()

    async def _bound(self, connection: Tx) -> None:
        """Let what callers read on a connection be given up."""
        budget = self._budgets[connection] = Budget()
        await connection.set_progress_handler(budget.is_spent, _STEPS_BETWEEN_LOOKS)

    def _take_back(self, tx: Tx, who: Asker | None) -> None:
        if who is None:
            self._own.put_nowait(tx)
        else:
            self._callers.append(tx)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreClosedError("The state is closed.")
