"""Looks at the files of the state while the daemon runs, to tell of damage before the next start.

Reads a part at a time; mends nothing. Readiness has what is wrong with control.db from
`Database.damage` and `writable`, and with what is beside it from `Beside.problems`.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import own_record
from prsmd.store import audit
from prsmd.store.beside import Files
from prsmd.store.db import Database
from prsmd.store.examination import tables_of
from prsmd.store.recovering import RecoveringDatabase

log = logging.getLogger(__name__)
_LOOK_SECONDS = 5.0
_LARGEST_BYTES = 64 * 1024**2  # of a file whose tables are read again and again


class StateWatch:
    """Looks at both databases and at the files beside them.

    What happens to the usage file is on record in the audit of changes, as of `organization`.
    """

    def __init__(
        self,
        files: Files,
        organization: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._control = files.control
        self._usage = files.usage
        self._beside = files.beside
        self._organization = organization
        self._clock = clock
        self._recorded = 0
        self._rounds: dict[str, Iterator[str]] = {}
        self._told_beside: dict[str, str] = {}
        self._told: dict[str, str | None] = {}

    async def run(self) -> None:
        """Look, again and again; for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Look once: at where the files are, and at the next part of each database."""
        await self._look_beside()
        for database in (self._control, self._usage):
            if database is not None:
                await self._examine(database)
        await self._record_losses()

    async def _look_beside(self) -> None:
        await asyncio.to_thread(self._beside.look)
        for name in {*self._told_beside, *self._beside.problems}:
            problem = self._beside.problems.get(name)
            if problem == self._told_beside.get(name):
                continue
            if problem is None:
                log.warning("%s is as it was again", name)
            else:
                log.error("%s: put it back before the next start", problem)
        self._told_beside = dict(self._beside.problems)

    async def _examine(self, database: Database) -> None:
        problem = await self._problem(database)
        if database is self._usage:
            with contextlib.suppress(PrsmdError):
                await database.ping()  # opens it anew where it is away or damaged
        name = str(database.path)
        if problem is not None and problem != self._told.get(name):
            log.critical("%s", problem)
        self._told[name] = problem

    async def _problem(self, database: Database) -> str | None:
        """Return what is wrong with the file, or with its next part."""
        if database is self._control and not database.in_place():
            return f"{database.path} or its -wal was removed or replaced while prsmd has it open"
        try:
            await database.examine(await self._next_table(database))
        except PrsmdError as error:
            return error.message
        return database.damage

    async def _next_table(self, database: Database) -> str | None:
        name = str(database.path)
        if name not in self._rounds:
            async with database.read() as tx:
                tables = await tables_of(tx)
            self._rounds[name] = itertools.cycle(tables)
        table = next(self._rounds[name])
        if table == "audit" and await asyncio.to_thread(_is_large, database.path):
            return next(self._rounds[name])
        return table

    async def _record_losses(self) -> None:
        losses = self._usage.losses if isinstance(self._usage, RecoveringDatabase) else []
        for words in losses[self._recorded :]:
            details = {"message": words}
            record = own_record(
                self._clock(), self._organization, "usage.lost", "usage.db", details
            )
            try:
                await self._control.write(functools.partial(audit.append, record=record))
            except PrsmdError as error:
                log.warning("the loss of usage.db is not on record yet: %s", error.message)
                return
            self._recorded += 1


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size > _LARGEST_BYTES
    except OSError:
        return False
