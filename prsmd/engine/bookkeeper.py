"""Writes the sums of use to the usage file, and forgets the days that are too old."""

import time
from collections.abc import Callable

from prsmd.core.clock_steps import ClockSteps
from prsmd.core.meter import DAY_SECONDS
from prsmd.domain.errors import PrsmdError
from prsmd.domain.quota import Use
from prsmd.gateway.meters import steady_seconds
from prsmd.gateway.uses import Uses
from prsmd.store import usage
from prsmd.store.db import Database

_AT_ONCE = 200  # sums in one go: a millisecond or two of the loop
KEPT_DAYS = 400  # a year and the month in which it is looked back on


class Bookkeeper:
    """One source of the flusher. A crash loses what was used since the last time."""

    name = "usage"

    def __init__(
        self, uses: Uses, database: Database, clock: Callable[[], float] = time.time
    ) -> None:
        self._uses = uses
        self._database = database
        self._clock = clock
        self._pruned_on = 0
        self._steps = ClockSteps(clock(), steady_seconds())

    async def flush(self, *, everything: bool) -> None:  # noqa: ARG002 - all of it is always due
        """Add what was used since the last time to the sums in the store, part by part."""
        for _ in range(0, len(self._uses), _AT_ONCE):
            await self._add(self._uses.take(_AT_ONCE))
        today = int(self._clock() // DAY_SECONDS)
        if today != self._pruned_on and self._trusts_the_clock():
            await self._database.write(lambda tx: usage.forget_before(tx, today - KEPT_DAYS))
            self._pruned_on = today

    def _trusts_the_clock(self) -> bool:
        """Tell whether nobody set it for a day: one that is far ahead has nothing forgotten."""
        steady = steady_seconds()
        self._steps.was_set(self._clock(), steady)
        return steady - self._steps.steady_since >= DAY_SECONDS

    async def _add(self, taken: list[Use]) -> None:
        try:
            await self._database.write(lambda tx: usage.add(tx, taken))
        except PrsmdError:
            self._uses.put_back(taken)
            raise
