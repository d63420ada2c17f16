"""Moves what the data path keeps in memory to the disk, every so often and once more at the end.

Knows nothing of what is flushed: whoever has something says how.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from prsmd.domain.errors import PrsmdError

log = logging.getLogger(__name__)


class Flushable(Protocol):
    """What is kept in memory for a while. `name` is for the log."""

    name: str

    async def flush(self, *, everything: bool) -> None:
        """Move what is due to the disk; `everything`: what is not due yet as well.

        What could not be moved is kept, within its bounds, for the next time. PrsmdError says why.
        """


class Flusher:
    """The one task that flushes. A crash loses what was noted since the last time."""

    def __init__(self, sources: Sequence[Flushable], interval_seconds: float) -> None:
        self._sources = sources
        self._interval = interval_seconds
        self._failing: set[str] = set()

    async def run(self) -> None:
        """Flush every interval; for ever."""
        while True:
            await asyncio.sleep(self._interval)
            await self.flush(everything=False)

    async def flush(self, *, everything: bool = True) -> None:
        """Flush every source. One that fails holds up no other, and says so once."""
        for source in self._sources:
            try:
                await source.flush(everything=everything)
            except PrsmdError as error:
                if source.name not in self._failing:
                    log.error("%s cannot be flushed: %s", source.name, error.message)  # noqa: TRY400
                self._failing.add(source.name)
            else:
                self._failing.discard(source.name)
