"""Leases blocks of limits from the store, before they are spent, and gives back what is left.

The only writer of leases. What it has set aside durably may be spent in memory; how much that is,
core/meter.py decides.
"""

import dataclasses
import logging
import time
from collections.abc import Callable

from prsmd.core.meter import DAY_SECONDS, Ask, Meter, Window
from prsmd.domain.errors import PrsmdError
from prsmd.gateway.meters import Meters
from prsmd.store import leases
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Wish:
    window: Window
    ask: Ask


class Lessor:
    """Serves the meters. Made by `begin`; `close` it after the last request, for a clean stop."""

    def __init__(self, database: Database, meters: Meters, clock: Callable[[], float]) -> None:
        self.meters = meters
        self._database = database
        self._clock = clock
        self._today = int(clock() // DAY_SECONDS)

    @classmethod
    async def begin(cls, database: Database, clock: Callable[[], float] = time.time) -> "Lessor":
        """Begin to count where the store says. Only `close` makes the next stop a clean one."""
        today = int(clock() // DAY_SECONDS)
        paces = await database.write(lambda tx: leases.begin(tx, today))
        return cls(database, Meters(paces, clock), clock)

    async def run(self) -> None:
        """Lease whatever is due, all of it in one transaction, again and again."""
        while True:
            await self.meters.wanted.wait()
            await self.serve()

    async def serve(self) -> None:
        """Lease what is due now."""
        due = self.meters.collect()
        try:
            await self._lease(due)
        except PrsmdError as error:
            log.warning("limits could not be leased: %s", error.message)
            self.meters.answered(due, error)
        except BaseException:
            self.meters.answered(due, PrsmdError("the daemon is stopping"))
            raise
        else:
            self.meters.answered(due)

    async def close(self) -> None:
        """Give back what was set aside and not spent. Nothing may be spent from here on."""
        used, paces = self.meters.used(), self.meters.paces()
        try:
            await self._database.write(lambda tx: leases.settle(tx, used, paces))
        except PrsmdError as error:
            log.warning("what is left of limits is forfeited, as in a crash: %s", error.message)

    async def _lease(self, due: list[Meter]) -> None:
        wishes = [
            _Wish(window, window.ask(meter.account)) for meter in due for window in meter.windows
        ]
        today = int(self._clock() // DAY_SECONDS)

        async def write(tx: Tx) -> list[tuple[int, int]]:
            if today > self._today:
                await leases.forget_before(tx, today)
            return [await leases.grant(tx, wish.ask) for wish in wishes]

        granted = await self._database.write(write)
        self._today = max(today, self._today)
        for wish, (before, after) in zip(wishes, granted, strict=True):
            wish.window.learn(before, after)
