"""Who used a model, and how much: the owner sees all of it, a borrower its own."""

import time
from collections.abc import Sequence

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


class Usage:
    """Use cases on use. `books` None: nothing is kept here."""

    def __init__(self, database: Database, books: Database | None, flusher: Flusher) -> None:
        self._database = database
        self._books = books
        self._flusher = flusher

    async def of(
        self, caller: Caller, model: str, days: tuple[int | None, int | None], page: Page | None
    ) -> tuple[Sequence[Use], int]:
        """Return the use of a model by day and principal, newest first, and how many rows.

        `days` are the first and the last, in days since the epoch; by default the last 30. `page`
        None: all rows.
        """
        async with self._database.read() as tx:
            found = await find_model(tx, caller, model, Permission.USAGE_READ)
        if self._books is None:
            return (), 0
        own = found.organization == caller.principal.organization
        everyone = own or caller.principal.appliance_wide
        organization = None if everyone else caller.principal.organization
        last = int(time.time() // DAY_SECONDS) if days[1] is None else days[1]
        first = last - DEFAULT_DAYS + 1 if days[0] is None else days[0]
        part = (-1, 0) if page is None else (page.limit, page.offset)
        await self._flusher.flush(everything=False)
        async with self._books.read() as tx:
            return await usage.page(tx, found.id, (first, last), organization, part)
