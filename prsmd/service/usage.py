"""Who used a model, and how much: the owner sees all of it, a borrower its own."""

import time
from collections.abc import AsyncGenerator, Sequence

from prsmd.core.meter import DAY_SECONDS
from prsmd.domain.access import Permission
from prsmd.domain.quota import Use
from prsmd.engine.flusher import Flusher
from prsmd.service.caller import Caller
from prsmd.service.deployments import find_model
from prsmd.service.status import Page
from prsmd.store import usage
from prsmd.store.db import Database

DEFAULT_DAYS = 30
_AT_ONCE = 200  # rows of an export that are read, and then told, in one piece


class Usage:
    """Use cases on use. `books` None: nothing is kept here."""

    def __init__(self, database: Database, books: Database | None, flusher: Flusher) -> None:
        self._database = database
        self._books = books
        self._flusher = flusher

    async def page(
        self, caller: Caller, model: str, days: tuple[int | None, int | None], page: Page
    ) -> tuple[Sequence[Use], int]:
        """Return the use of a model by day and principal, newest first, and how many rows.

        `days` are the first and the last, in days since the epoch; by default the last 30.
        """
        asked = await self._asked(caller, model, days)
        if self._books is None:
            return (), 0
        await self._flusher.flush(everything=False)
        async with self._books.read() as tx:
            return await usage.page(tx, *asked, (page.limit, page.offset))

    async def export(
        self, caller: Caller, model: str, days: tuple[int | None, int | None]
    ) -> AsyncGenerator[Sequence[Use], None]:
        """Yield all of what `page` tells, some rows at a time; none at once where there are none.

        Each time goes on behind the last row that was told, so that none comes twice or is left
        out, whatever is added meanwhile, and nothing is kept open in between.
        """
        asked = await self._asked(caller, model, days)
        if self._books is None:
            yield ()
            return
        await self._flusher.flush(everything=False)
        last: Use | None = None
        while True:
            async with self._books.read() as tx:
                found = await usage.after(tx, *asked, last, _AT_ONCE)
            if found or last is None:
                yield found
            if len(found) < _AT_ONCE:
                return
            last = found[-1]

    async def _asked(
        self, caller: Caller, model: str, days: tuple[int | None, int | None]
    ) -> tuple[str, tuple[int, int], str | None]:
        """Return of which deployment, of which days and of whom (None: all) the caller is told."""
        async with self._database.read() as tx:
            found = await find_model(tx, caller, model, Permission.USAGE_READ)
        own = found.organization == caller.principal.organization
        everyone = own or caller.principal.appliance_wide
        last = int(time.time() // DAY_SECONDS) if days[1] is None else days[1]
        first = last - DEFAULT_DAYS + 1 if days[0] is None else days[0]
        return found.id, (first, last), None if everyone else caller.principal.organization
