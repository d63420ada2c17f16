"""Container logs of a deployment: of running replicas from the engine, of ended ones as kept."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator

from prsmd.domain.access import Permission
from prsmd.domain.errors import EngineError, EngineUnreachableError, NotFoundError
from prsmd.domain.logs import LogLine
from prsmd.domain.replica import Replica
from prsmd.runtime.base import LogQuery, Runtime
from prsmd.service.caller import Caller
from prsmd.service.deployments import find_deployment
from prsmd.store import replicas
from prsmd.store.db import Database
from prsmd.store.logs import LogArchive

_LOOK_BACK = 20  # replicas of a deployment whose logs are put together
_WAITING_LINES = 1000  # a follower that does not read holds the containers' readers back here


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaLine:
    """A line and the replica that wrote it."""

    replica_id: str
    line: LogLine


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogRequest:
    """Which lines: the last `tail` since `since` (epoch seconds), of one replica or of all."""

    replica_id: str | None = None
    tail: int = 100
    since: float | None = None


class Logs:
    """Use cases on container output."""

    def __init__(self, database: Database, runtime: Runtime, archive: LogArchive) -> None:
        self._database = database
        self._runtime = runtime
        self._archive = archive

    async def read(self, caller: Caller, reference: str, request: LogRequest) -> list[ReplicaLine]:
        """Return the last lines of all chosen replicas, oldest first."""
        chosen = await self._replicas(caller, reference, request.replica_id)
        found: list[ReplicaLine] = []
        for replica in chosen:
            lines = await self._lines(replica, request)
            found += [ReplicaLine(replica.id, line) for line in lines]
        found.sort(key=lambda item: item.line.at)
        return found[-request.tail :] if request.tail else []

    async def follow(
        self, caller: Caller, reference: str, request: LogRequest
    ) -> AsyncGenerator[ReplicaLine, None]:
        """Yield the last lines, then new ones as they come, until the replicas' containers end."""
        chosen = await self._replicas(caller, reference, request.replica_id)
        running = [r for r in chosen if r.active and r.container_id is not None]
        for item in await self.read(caller, reference, request):
            if item.replica_id not in {replica.id for replica in running}:
                yield item
        queue: asyncio.Queue[ReplicaLine | Exception | None] = asyncio.Queue(_WAITING_LINES)
        tasks = [
            asyncio.create_task(self._pump(replica, request, queue), name=f"logs:{replica.id}")
            for replica in running
        ]
        try:
            ended = 0
            while ended < len(tasks):
                arrived = await queue.get()
                if arrived is None:
                    ended += 1
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
        except EngineUnreachableError as error:
            ended = error
        except EngineError:  # a container that went ends its log
            pass
        except Exception as error:  # noqa: BLE001 - the follower is told, whatever it is
            ended = error
        await queue.put(ended)

    async def _lines(self, replica: Replica, request: LogRequest) -> list[LogLine]:
        if replica.active and replica.container_id is not None:
            query = LogQuery(tail=request.tail, since=request.since)
            try:
                async with contextlib.aclosing(
                    self._runtime.logs(replica.container_id, query)
                ) as found:
                    return [line async for line in found]
            except EngineUnreachableError:
                raise
            except EngineError:  # it ended since its row was read: what was kept of it, then
                pass
        kept = await self._archive.read(replica.id)
        return [line for line in kept if request.since is None or line.at >= request.since]

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
