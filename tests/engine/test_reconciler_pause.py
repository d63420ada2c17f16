"""The loop sleeps until its next tick, and no longer than a hold lasts that time alone ends."""

import asyncio
import time
from typing import cast

from prsmd.core.plan import Hold
from prsmd.core.reconcile import Policy
from prsmd.engine.reconciler import Parts, Reconciler


class HoldingReconciler(Reconciler):
    """Ticks without a world: the first tick holds a slot for a moment."""

    def __init__(self) -> None:
        super().__init__(Policy(), tick_seconds=3600)
        self.ticks = 0
        self.again = asyncio.Event()

    async def tick(self, parts: Parts) -> bool:
        self.ticks += 1
        if self.ticks == 2:
            self.again.set()
        until = time.time() + 0.01 if self.ticks == 1 else None
        self.holds = (Hold(deployment_id="d", slot=0, kind="backoff", reason="so", until=until),)
        return False


async def test_a_hold_that_time_ends_is_looked_at_when_it_ends_and_not_a_tick_later() -> None:
    reconciler = HoldingReconciler()
    loop = asyncio.create_task(reconciler.run(cast("Parts", None)), name="reconciler")
    await asyncio.wait_for(reconciler.again.wait(), 30)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert reconciler.ticks == 2
