"""The one task that writes: it commits waiting transactions together, each in its own savepoint.

It owns the writing connection. `write_queue.py` says who is next. It decides who learns of which
failure, and when a failure is fatal; it does not know what the transactions do.
"""

import asyncio
import collections
import contextlib
import dataclasses
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from prsmd.domain.errors import PrsmdError, StorageFullError

from . import meta
from .asking import asker
from .connection import Tx
from .errors import (
    StoreClosedError,
    StoreFailedError,
    TransactionTimeoutError,
    is_full,
    is_io,
    is_storage,
    translate,
)
from .write_queue import WriteQueue

T = TypeVar("T")
_SHORTEST_PAUSE_SECONDS = 0.1
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WriterLimits:
    """Bounds of the writer task. Times are seconds."""

    group: int = 128  # transactions in one commit
    group_seconds: float = 0.02  # after which a commit takes in no more of what waits
    waiting: int = 256  # transactions of one caller that wait
    transaction_seconds: float = 30.0
    retry_seconds: float = 1.0  # after a full disk: how long writes are refused untried
    probe_seconds: float = 5.0  # after that: when nobody writes, try whether one could
    checkpoint_every: int = 250  # transactions between two checkpoints of the write-ahead log


class Writer:
    """Runs callables on the writing connection, one after the other.

    `last_tick` is the monotonic time at which the task was last alive. `fatal` is done, with the
    error, when nothing can be written any more and the process should end.
    """

    def __init__(
        self, tx: Tx, limits: WriterLimits, counter: "CommitCounter | None" = None
    ) -> None:
        self.last_tick = time.monotonic()
        self.fatal: asyncio.Future[PrsmdError] = asyncio.get_running_loop().create_future()
        self.writable = True
        self._tx = tx
        self._limits = limits
        self._counter = counter
        self._waiting: WriteQueue[_Job] = WriteQueue(limits.waiting)
        self._alone: collections.deque[_Job] = collections.deque()  # between two commits
        self._arrived = asyncio.Event()
        self._closing = False
        self._refuse_until = 0.0
        self._since_checkpoint = 0
        self._task = asyncio.create_task(self._run(), name="store-writer")

    async def submit(
        self, run: Callable[[Tx], Awaitable[T]], then: Callable[[T], None] | None = None
    ) -> T:
        """Run `run` in a transaction and return its result, which `then` takes before.

        `then` is called in the order of the commits. A caller that is cancelled stops waiting; what
        it asked for is done all the same, and `then` called.

        Raises:
            ResourceUnavailableError: the caller has as much waiting as it may.
        """
        self._refuse_gone()
        job = _Job(run, asyncio.get_running_loop().create_future(), then)
        self._waiting.push(asker(), job)
        self._arrived.set()
        result: T = await job.done
        return result

    async def between(self, run: Callable[[Tx], Awaitable[T]]) -> T:
        """Run `run` outside of any transaction, before what waits to be written."""
        self._refuse_gone()
        job = _Job(run, asyncio.get_running_loop().create_future())
        self._alone.append(job)
        self._arrived.set()
        result: T = await job.done
        return result

    @property
    def closing(self) -> bool:
        """Whether `close` was called: nothing is taken any more."""
        return self._closing

    async def close(self) -> None:
        """Finish what waits, then stop. The connection stays open."""
        self._closing = True
        self._arrived.set()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while not self.fatal.done():
                await self._something_to_do()
                if self._alone:
                    await self._run_alone(self._alone.popleft())
                elif (job := self._waiting.pop()) is not None:
                    await self._commit_together([job])
                elif self._closing:
                    break
                else:
                    self._arrived.clear()
                self.last_tick = time.monotonic()
        except Exception as error:  # noqa: BLE001 - unforeseen, so the process must end
            _log.exception("the store's writer failed")
            self._die(StoreFailedError(f"The writer of the state failed: {error!r}."))
        finally:
            while (job := self._waiting.pop()) is not None:
                job.fail(self._gone())
            while self._alone:
                self._alone.popleft().fail(self._gone())

    async def _something_to_do(self) -> None:
        """Wait for a job. After a full disk, see for oneself when nobody tries for a while."""
        if self.writable:
            await self._arrived.wait()
            return
        due = self._refuse_until + self._limits.probe_seconds
        pause = max(due - time.monotonic(), _SHORTEST_PAUSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._arrived.wait()
        if time.monotonic() >= due and not self._closing:
            job = _Job(_touch, asyncio.get_running_loop().create_future())
            job.done.add_done_callback(asyncio.Future.exception)
            self._waiting.push(None, job)

    async def _commit_together(self, jobs: list["_Job"]) -> None:
        """Commit one transaction together with what waits, which is added to `jobs`."""
        try:
            await self._commit(jobs)
        except BaseException:
            for job in jobs:
                job.fail(StoreFailedError("The writer of the state failed."))
            raise

    async def _commit(self, jobs: list["_Job"]) -> None:
        if time.monotonic() < self._refuse_until:
            for job in jobs:
                job.fail(StorageFullError("The disk was full a moment ago. Nothing was changed."))
            return
        committing = False
        try:
            await self._tx.execute_fetchall("BEGIN IMMEDIATE")
            await self._run_group(jobs)
            if self._counter is not None:
                await meta.count_commit(self._tx, self._counter.commits + 1)
            committing = True
            await self._tx.execute_fetchall("COMMIT")
        except sqlite3.Error as error:
            await self._abandon(jobs, error, committing=committing)
            return
        if self._counter is not None:
            self._counter.step()
        self._note_writable()
        for job in jobs:
            job.deliver()
        await self._checkpoint_when_due(len(jobs))

    async def _run_group(self, jobs: list["_Job"]) -> None:
        """Run a transaction and those that wait, also what comes meanwhile, each in its turn."""
        until = time.monotonic() + self._limits.group_seconds
        await self._run_in_savepoint(jobs[0])
        while len(jobs) < self._limits.group and time.monotonic() < until:
            job = self._waiting.pop()
            if job is None:
                return
            jobs.append(job)
            await self._run_in_savepoint(job)

    async def _run_in_savepoint(self, job: "_Job") -> None:
        """Run one transaction; raise sqlite3.Error only when the whole group is lost."""
        await self._tx.execute_fetchall("SAVEPOINT job")
        await self._attempt(job, self._limits.transaction_seconds)
        if not self._tx.in_transaction:
            cause = job.error if isinstance(job.error, sqlite3.Error) else None
            raise cause or sqlite3.OperationalError("a transaction ended the group it was in")
        if job.error is not None:
            if is_storage(job.error):
                self._note_full(job.error)
            await self._tx.execute_fetchall("ROLLBACK TO job")
        await self._tx.execute_fetchall("RELEASE job")
        self.last_tick = time.monotonic()

    async def _attempt(self, job: "_Job", limit: float | None) -> None:
        try:
            async with asyncio.timeout(limit) as deadline:
                job.result = await job.run(self._tx)
        except TimeoutError as error:
            job.error = error
            if deadline.expired():
                job.error = TransactionTimeoutError(
                    f"A change of the state took longer than {limit:g} s and was rolled back."
                )
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the writer itself is being ended
            job.error = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            job.error = error

    async def _run_alone(self, job: "_Job") -> None:
        try:
            await self._attempt(job, None)
        except BaseException:
            job.fail(StoreFailedError("The writer of the state failed."))
            raise
        job.deliver()

    async def _abandon(
        self, jobs: Sequence["_Job"], error: sqlite3.Error, *, committing: bool
    ) -> None:
        """Nothing of the group is kept: tell everyone, also those who failed by themselves.

        A refusal may rest on what another transaction of the lost group had written.
        """
        rolled_back = await self._roll_back()
        if (committing and is_io(error)) or not rolled_back:
            # After a failed fsync the kernel may forget what it did not write: only a restart
            # that reads the file again knows what is there.
            self._die(StoreFailedError(f"The state could not be committed: {error}."))
        elif is_storage(error):
            self._note_full(error)
            if is_full(error):
                # What is written back leaves its room in the write-ahead log to what is small.
                await self._checkpoint()
        for job in jobs:
            job.fail(self._gone() if self.fatal.done() else _caused_by(error))

    async def _roll_back(self) -> bool:
        if self._tx.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                await self._tx.execute_fetchall("ROLLBACK")
        return not self._tx.in_transaction

    async def _checkpoint_when_due(self, transactions: int) -> None:
        self._since_checkpoint += transactions
        if self._since_checkpoint >= self._limits.checkpoint_every:
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        self._since_checkpoint = 0
        try:
            await self._tx.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            if is_io(error):
                self._die(StoreFailedError(f"The state could not be written back: {error}."))
            else:
                _log.warning("the write-ahead log was not written back: %s", error)

    def _note_full(self, error: BaseException) -> None:
        if self.writable:
            _log.error("the state cannot be written: %s", error)
        self.writable = False
        self._refuse_until = time.monotonic() + self._limits.retry_seconds

    def _note_writable(self) -> None:
        if not self.writable and time.monotonic() >= self._refuse_until:
            _log.warning("the state can be written again")
            self.writable = True

    def _refuse_gone(self) -> None:
        if self.fatal.done() or self._closing or self._task.done():
            raise self._gone()

    def _gone(self) -> PrsmdError:
        if self.fatal.done():
            return StoreFailedError(self.fatal.result().message)
        return StoreClosedError("The state is closed. Nothing was changed.")

    def _die(self, error: StoreFailedError) -> None:
        self.writable = False
        if not self.fatal.done():
            _log.critical("%s", error.message)
            self.fatal.set_result(error)


@dataclasses.dataclass(slots=True)
class CommitCounter:
    """How many commits the file has, and who is told of each one when it is on the disk."""

    commits: int
    told: Callable[[int], None]

    def step(self) -> None:
        """Count one more, which is on the disk."""
        self.commits += 1
        self.told(self.commits)


@dataclasses.dataclass(slots=True)
class _Job:
    run: Callable[[Tx], Awaitable[Any]]
    done: asyncio.Future[Any]
    then: Callable[[Any], None] | None = None
    result: Any = None
    error: BaseException | None = None

    def deliver(self) -> None:
        if self.error is None and self.then is not None:
            try:
                self.then(self.result)
            except Exception as error:  # noqa: BLE001 - as that of its transaction, it is the caller's
                self.error = error
        if self.error is not None:
            self.fail(self.error)
        elif not self.done.done():
            self.done.set_result(self.result)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, sqlite3.Error | UnicodeDecodeError):
            error = _caused_by(error)
        if self.done.cancelled():
            _log.warning("a change that nobody waits for any more failed: %s", error)
        elif not self.done.done():
            if isinstance(error, asyncio.CancelledError):
                self.done.cancel()
            else:
                self.done.set_exception(error)


async def _touch(tx: Tx) -> None:
    await tx.execute_fetchall("UPDATE schema_migrations SET name = name")


def _caused_by(error: sqlite3.Error | UnicodeDecodeError) -> PrsmdError:
    translated = translate(error)
    translated.__cause__ = error
    return translated
