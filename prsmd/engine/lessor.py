"""Leases blocks of limits from the store, before they are spent, and gives back what is left.

The only writer of leases. What it has set aside durably may be spent in memory; how much that is,
core/blocks.py decides. What is left to those who use nothing any more is given back too, so that
memory holds only the meters in use, and a crash costs the others nothing.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence

from prsmd.core.blocks import Ask, Window
from prsmd.core.meter import DAY_SECONDS
from prsmd.domain.errors import PrsmdError, StorageFullError
from prsmd.gateway.meters import Meters
from prsmd.store import leases
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)
_TIDY_SECONDS = 120.0
_DAYS_KEPT = 7  # for a clock that is set back


@dataclasses.dataclass(frozen=True, slots=True)
class _Wish:
    window: Window
    ask: Ask


class Lessor:
    """Serves the meters. Made by `begin`; `close` it after the last request, for a clean stop.

    Meters that nobody has used for `tidy_seconds`, or somewhat longer, are put away.
    """

    def __init__(
        self, database: Database, meters: Meters, clock: Callable[[], float], *, begun: bool
    ) -> None:
        self.meters = meters
        self.tidy_seconds = _TIDY_SECONDS
        self._database = database
        self._clock = clock
        self._failing = ""
        self._begun = begun
        self._today = int(clock() // DAY_SECONDS)

    @classmethod
    async def begin(cls, database: Database, clock: Callable[[], float] = time.time) -> "Lessor":
        """Begin to count where the store says. Only `close` makes the next stop a clean one.

        Where the disk is full, limits count as after a crash, and that they do is written later.
        """
        today = int(clock() // DAY_SECONDS)
        try:
            paces = await database.write(lambda tx: leases.begin(tx, today - _DAYS_KEPT))
        except StorageFullError as error:
            log.error("limits count as after a crash: %s", error.message)  # noqa: TRY400
            return cls(database, Meters(None, clock), clock, begun=False)
        return cls(database, Meters(paces, clock), clock, begun=True)

    async def run(self) -> None:
        """Lease whatever is due, all of it in one transaction, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            tidy_at = loop.time() + self.tidy_seconds
            with contextlib.suppress(TimeoutError):
                while loop.time() < tidy_at:
                    async with asyncio.timeout_at(tidy_at):
                        await self.meters.wanted.wait()
                    await self.serve()
            await self.tidy()

    async def serve(self) -> None:
        """Lease what is due now."""
        due = self.meters.collect()
        wishes = [
            _Wish(window, window.ask(meter.account)) for meter in due for window in meter.windows
        ]
        try:
            await self._carry_out(wishes)
        except PrsmdError as error:
            if error.message != self._failing:
                log.warning("limits could not be leased: %s", error.message)
            self._failing = error.message
            self.meters.answered(due, error)
        except BaseException:
            self.meters.answered(due, PrsmdError("the daemon is stopping"))
            raise
        else:
            self._failing = ""
            self.meters.answered(due)

    async def tidy(self) -> None:
        """Put away the meters that nobody has used since this was last done."""
        idle = self.meters.idle()
        wishes = [
            _Wish(window, window.ask(meter.account, closing=True))
            for meter in idle
            for window in meter.kept()
            if window.ahead
        ]
        try:
            if wishes or not self._begun:
                await self._carry_out(wishes)
        except PrsmdError as error:
            log.warning("limits could not be given back: %s", error.message)
        self.meters.put_away(idle)

    async def close(self) -> None:
        """Give back what was set aside and not spent. Nothing may be spent from here on."""
        used, paces = self.meters.used(), self.meters.paces()

        async def write(tx: Tx) -> None:
            await self._begin_late(tx)
            await leases.settle(tx, used, paces)

        try:
            await self._database.write(write)
        except PrsmdError as error:
            log.warning("what is left of limits is forfeited, as in a crash: %s", error.message)

    async def _carry_out(self, wishes: Sequence[_Wish]) -> None:
        today = int(self._clock() // DAY_SECONDS)

        # A clock that was set a while ago, or only now, must not have the real days forgotten.
        forgets = today != self._today and self.meters.steady_for() >= DAY_SECONDS

        async def write(tx: Tx) -> list[tuple[int, int]]:
            await self._begin_late(tx)
            if forgets:
                await leases.forget(tx, today - _DAYS_KEPT, today + 1)
            return [await leases.grant(tx, wish.ask) for wish in wishes]

        try:
            granted = await self._database.write(write)
        except PrsmdError:
            for wish in wishes:
                wish.window.keep(wish.ask)
            raise
        self._begun = True
        if forgets:
            self._today = today
        for wish, (before, after) in zip(wishes, granted, strict=True):
            wish.window.learn(before, after)

    async def _begin_late(self, tx: Tx) -> None:
        """Write what could not be written at the start."""
        if not self._begun:
            await leases.begin(tx, self._today - _DAYS_KEPT)
