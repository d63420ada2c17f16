"""Keeps what a container wrote before it goes. Losing it never keeps a container from ending."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Sequence

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


class LogCapture:
    """Moves the output of ending replicas from the engine to the archive, within bounds."""

    def __init__(self, runtime: Runtime, archive: LogArchive) -> None:
        self._runtime = runtime
        self._archive = archive

    async def take(self, replica: Replica) -> list[LogLine]:
        """Return the last lines of a replica and keep them.

        When its container is gone already, what was kept by an earlier attempt is returned.
        """
        if replica.container_id is None:
            return []
        lines = _bounded(await self._read(replica.id, replica.container_id))
        try:
            if not lines:
                return await self._archive.read(replica.id)
            await self._archive.save(replica.id, lines)
        except OSError as error:
            log.warning("logs not kept: %s", error, extra={"replica": replica.id})
        return lines

    async def _read(self, replica_id: str, container_id: str) -> list[LogLine]:
        lines: list[LogLine] = []
        query = LogQuery(tail=KEPT_LINES)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                async with contextlib.aclosing(self._runtime.logs(container_id, query)) as found:
                    async for line in found:
                        lines.append(_cut(line))  # noqa: PERF401 - what came first is kept
        except (PrsmdError, TimeoutError) as error:
            log.info("logs not read to their end: %s", error, extra={"replica": replica_id})
        return lines


def _cut(line: LogLine) -> LogLine:
    if len(line.text) <= _LONGEST_LINE:
        return line
    return dataclasses.replace(line, text=line.text[:_LONGEST_LINE] + "…")


def _bounded(lines: Sequence[LogLine]) -> list[LogLine]:
    """Return the newest lines that together stay within the bounds."""
    room = KEPT_CHARACTERS
    kept: list[LogLine] = []
    for line in reversed(lines[-KEPT_LINES:]):
        room -= len(line.text)
        if room < 0:
            break
        kept.append(line)
    return kept[::-1]
