"""Container logs of a deployment: of running replicas from the engine, of ended ones as kept."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, TypeVar

from prsmd.core.fair_queue import Asker, Slots
from prsmd.core.memory_budget import Holding
from prsmd.core.ring_buffer import RingBuffer
from prsmd.domain.access import Permission
from prsmd.domain.errors import EngineNotFoundError, NotFoundError
from prsmd.domain.logs import LogLine
from prsmd.domain.replica import Replica
from prsmd.gateway.endings import hold
from prsmd.runtime.base import LogQuery, Runtime
from prsmd.service.caller import Caller
from prsmd.service.deployments import find_deployment
from prsmd.store import replicas
from prsmd.store.db import Database
from prsmd.store.fair_semaphore import FairSemaphore
from prsmd.store.logs import LogArchive

T = TypeVar("T")
_LOOK_BACK = 20  # replicas of a deployment whose logs are put together
_WAITING_LINES = 2  # a follower that does not read holds the containers' readers back here
MOST_CHARACTERS = 2 * 1024**2  # of the lines that are answered at once, the newest ones
_HELD_FOR_EACH = 4  # bytes while a character is read, put into JSON and written
_FOLLOWED_BACK = 128 * 1024  # characters of ended replicas before what is followed
_FOLLOWER_BYTES = 256 * 1024  # lines that wait for a follower, and those of ended replicas
_READER_BYTES = 128 * 1024  # of each container that is followed: a line, and one half read
_OF_A_LINE = 64  # what a line costs beside its text
_READ_AT_ONCE = Slots(total=2, per_organization=1, waiting=64)
_LINES_IN_A_TURN = 64  # of the loop


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaLine:
    """A line and the replica that wrote it."""

    replica_id: str
    line: LogLine


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogRequest:
    """Which lines: the last `tail` since `since` (epoch seconds), of one replica or of all.

    What is held for them counts in `holding`: a container writes as much as it likes.
    """

    replica_id: str | None = None
    tail: int = 100
    since: float | None = None
    holding: Holding | None = None


class Logs:
    """Use cases on container output."""

    def __init__(self, database: Database, runtime: Runtime, archive: LogArchive) -> None:
        self._database = database
        self._runtime = runtime
        self._archive = archive
        self._reading = FairSemaphore(_READ_AT_ONCE, "log")

    async def read(
        self,
        caller: Caller,
        reference: str,
        request: LogRequest,
        render: Callable[[Sequence[ReplicaLine]], T],
    ) -> T:
        """Return what `render` makes, in a thread, of the last lines of all chosen replicas.

        They are oldest first, and at most `MOST_CHARACTERS`. Few of those who read at once do so at
        the same time: ten thousand lines are much to carry.

        Raises:
            ResourceUnavailableError: no memory may be had for them now, or too many of the caller's
                requests wait already.
        """
        chosen = await self._replicas(caller, reference, request.replica_id)
        hold(request.holding, _HELD_FOR_EACH * MOST_CHARACTERS if request.tail else 0)
        principal = caller.principal
        async with self._reading.slot(Asker(principal.organization, principal.id)):
            lines = await self._newest(chosen if request.tail else (), request, MOST_CHARACTERS)
            return await _in_thread(render, lines)

    async def check(self, caller: Caller, reference: str, replica_id: str | None) -> None:
        """Raise what `read` would: there is no such deployment or replica for the caller."""
        await self._replicas(caller, reference, replica_id)

    async def follow(
        self, caller: Caller, reference: str, request: LogRequest
    ) -> AsyncGenerator[ReplicaLine, None]:
        """Yield the last lines, then new ones as they come, until the replicas' containers end.

        Raises:
            ResourceUnavailableError: no memory may be had for it now.
        """
        chosen = await self._replicas(caller, reference, request.replica_id)
        running = [r for r in chosen if r.active and r.container_id is not None]
        hold(request.holding, _FOLLOWER_BYTES + _READER_BYTES * len(running))
        ended = [replica for replica in chosen if replica not in running]
        for item in await self._newest(ended, request, _FOLLOWED_BACK):
            yield item
        queue: asyncio.Queue[ReplicaLine | Exception | None] = asyncio.Queue(_WAITING_LINES)
        tasks = [
            asyncio.create_task(self._pump(replica, request, queue), name=f"logs:{replica.id}")
            for replica in running
        ]
        try:
            left = len(tasks)
            while left:
                arrived = await queue.get()
                if arrived is None:
                    left -= 1
                elif isinstance(arrived, Exception):
                    raise arrived
                else:
                    yield arrived
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(
        self,
        replica: Replica,
        request: LogRequest,
        queue: asyncio.Queue[ReplicaLine | Exception | None],
    ) -> None:
        query = LogQuery(tail=request.tail, since=request.since, follow=True)
        assert replica.container_id is not None  # noqa: S101 - the caller chose such replicas
        ended: Exception | None = None
        try:
            async with contextlib.aclosing(self._runtime.logs(replica.container_id, query)) as log:
                async for line in log:
                    await queue.put(ReplicaLine(replica.id, line))
        except EngineNotFoundError:  # a container that went ends its log
            pass
        except Exception as error:  # noqa: BLE001 - the follower is told, whatever it is
            ended = error
        await queue.put(ended)

    async def _newest(
        self, chosen: Iterable[Replica], request: LogRequest, most: int
    ) -> list[ReplicaLine]:
        """Return the newest lines of replicas, oldest first, of so many characters at most."""
        found: list[ReplicaLine] = []
        for replica in chosen:
            newest, count = RingBuffer(request.tail, most, _cost), 0
            async with contextlib.aclosing(self._lines(replica, request)) as lines:
                async for line in lines:
                    newest.add(ReplicaLine(replica.id, line))
                    count += 1
                    if count % _LINES_IN_A_TURN == 0:
                        await asyncio.sleep(0)
            found = await _in_thread(_merged, found, newest.items, request.tail, most)
        return found

    async def _lines(self, replica: Replica, request: LogRequest) -> AsyncGenerator[LogLine, None]:
        if replica.active and replica.container_id is not None:
            query = LogQuery(tail=request.tail, since=request.since)
            try:
                async with contextlib.aclosing(
                    self._runtime.logs(replica.container_id, query)
                ) as found:
                    async for line in found:
                        yield line
                    return
            except (
                EngineNotFoundError
            ):  # it ended since its row was read: what was kept of it, then
                pass
        for line in await self._archive.read(replica.id):
            if request.since is None or line.at >= request.since:
                yield line

    async def _replicas(
        self, caller: Caller, reference: str, replica_id: str | None
    ) -> list[Replica]:
        async with self._database.read() as tx:
            found = await find_deployment(tx, caller, reference, Permission.LOGS_READ)
            rows = await replicas.list_for(tx, found.id, _LOOK_BACK)
            known = {row.id for row in rows}
            current = await replicas.list_current(tx, 0, [found.id])  # active ones, however old
        rows += [row for row in current if row.id not in known]
        if replica_id is None:
            return rows
        chosen = [row for row in rows if row.id == replica_id]
        if not chosen:
            names = ", ".join(row.id for row in rows) or "none"
            raise NotFoundError(
                f"There is no replica {replica_id[:100]} of {found.id}; known are {names}."
            )
        return chosen


async def _in_thread(work: Callable[..., T], *given: Any) -> T:
    """Do work in a thread. Who is cancelled still waits for its end: until then it takes a slot."""
    task = asyncio.create_task(asyncio.to_thread(work, *given))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _merged(
    found: Sequence[ReplicaLine], more: Sequence[ReplicaLine], most_lines: int, most_characters: int
) -> list[ReplicaLine]:
    """Return the newest lines of both, oldest first."""
    merged = RingBuffer(most_lines, most_characters, _cost)
    for item in sorted([*found, *more], key=_written_at):
        merged.add(item)
    return [*merged.items]


def _written_at(item: ReplicaLine) -> float:
    return item.line.at


def _cost(item: ReplicaLine) -> int:
    return len(item.line.text) + _OF_A_LINE
