"""Keeps what a container wrote before it goes. Losing it never keeps a container from ending."""

import asyncio
import contextlib
import dataclasses
import logging

from prsmd.core.ring_buffer import RingBuffer
from prsmd.domain.errors import PrsmdError
from prsmd.domain.logs import LogLine
from prsmd.domain.replica import Replica
from prsmd.runtime.base import LogQuery, Runtime
from prsmd.store.logs import LogArchive

log = logging.getLogger(__name__)
KEPT_LINES = 2000
KEPT_CHARACTERS = 1_000_000  # of a replica's output, from its end
_LONGEST_LINE = 16_384
_READ_SECONDS = 5.0
_AT_ONCE = 4  # captures: all replicas of the machine may end together


class LogCapture:
    """Moves the output of ending replicas from the engine to the archive, within bounds.

    At most four are at it at the same time; the others wait for their turn.
    """

    def __init__(self, runtime: Runtime, archive: LogArchive) -> None:
        self._runtime = runtime
        self._archive = archive
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def take(self, replica: Replica) -> list[LogLine]:
        """Return the last lines of a replica and keep them.

        When its container is gone already, what was kept by an earlier attempt is returned.
        """
        if replica.container_id is None:
            return []
        async with self._turn:
            return await self._move(replica.id, replica.container_id)

    async def _move(self, replica_id: str, container_id: str) -> list[LogLine]:
        lines = await self._read(replica_id, container_id)
        try:
            if not lines:
                return await self._archive.read(replica_id)
            await self._archive.save(replica_id, lines)
        except Exception as error:  # noqa: BLE001 - whatever it is, the container has to end
            log.warning("logs not kept: %s", error, extra={"replica": replica_id})
        return lines

    async def _read(self, replica_id: str, container_id: str) -> list[LogLine]:
        newest = RingBuffer(KEPT_LINES, KEPT_CHARACTERS, _characters)
        query = LogQuery(tail=KEPT_LINES)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                async with contextlib.aclosing(self._runtime.logs(container_id, query)) as found:
                    async for line in found:
                        newest.add(_cut(line))
        except (PrsmdError, TimeoutError) as error:
            log.info("logs not read to their end: %s", error, extra={"replica": replica_id})
        return [*newest.items]


def _cut(line: LogLine) -> LogLine:
    if len(line.text) <= _LONGEST_LINE:
        return line
    return dataclasses.replace(line, text=line.text[:_LONGEST_LINE] + "…")


def _characters(line: LogLine) -> int:
    return len(line.text)
