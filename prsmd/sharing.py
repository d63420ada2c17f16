"""Makes the parts of sharing, limits and usage and connects them. Starts nothing."""

import dataclasses
from collections.abc import Callable

from prsmd.engine.bookkeeper import Bookkeeper
from prsmd.engine.flusher import Flusher
from prsmd.engine.lessor import Lessor
from prsmd.engine.recorder import Recorder
from prsmd.gateway.tape import NoteTaker
from prsmd.gateway.uses import Uses
from prsmd.service.lending import Lendings
from prsmd.service.shares import Shares
from prsmd.service.usage import Usage
from prsmd.store import shares
from prsmd.store.db import Database

_FLUSH_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What lends, limits and counts.

    `notes` is where the gateway tells of inferences; `books` the usage file (None: use is not
    kept).
    """

    database: Database
    books: Database | None
    lessor: Lessor
    lendings: Lendings
    notes: Uses
    flusher: Flusher

    def shares(self, recorder: Recorder) -> Shares:
        """Return the use cases on shares."""
        return Shares(self.database, recorder, self.lendings)

    def usage(self) -> Usage:
        """Return the use cases on use."""
        return Usage(self.database, self.books, self.flusher)

    async def settle(self) -> None:
        """Write what is only in memory yet. No inference may come after this."""
        await self.flusher.flush()
        await self.lessor.close()


async def sharing_of(
    database: Database,
    books: Database | None,
    audit: NoteTaker | None,
    clock: Callable[[], float],
) -> Sharing:
    """Return the parts; from now on limits count. `audit` hears of inferences too."""
    lessor = await Lessor.begin(database, clock)
    async with database.read() as tx:
        known = await shares.list_all(tx)
    uses = Uses(audit)
    sources = () if books is None else (Bookkeeper(uses, books, clock),)
    return Sharing(
        database=database,
        books=books,
        lessor=lessor,
        lendings=Lendings(lessor.meters, known, clock),
        notes=uses,
        flusher=Flusher(sources, _FLUSH_SECONDS),
    )
