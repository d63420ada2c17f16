"""The loop ends when it is told to, whatever else happens in that moment."""

import asyncio
from typing import Any

import pytest

from prsmd.core.policy import Policy
from prsmd.engine.reconciler import Reconciler


class QuietReconciler(Reconciler):
    """Finds nothing to do."""

    async def tick(self, parts: Any) -> bool:
        return False


@pytest.mark.parametrize("steps", range(5))
async def test_a_loop_that_is_woken_and_cancelled_at_about_the_same_time_ends(steps):
    reconciler = QuietReconciler(Policy(), tick_seconds=3600)
    nothing: Any = None
    loop = asyncio.create_task(reconciler.run(nothing), name="reconciler")
    for _ in range(5):
        await asyncio.sleep(0)  # until it waits

    reconciler.wake()
    for _ in range(steps):
        await asyncio.sleep(0)
    loop.cancel()

    _, pending = await asyncio.wait({loop}, timeout=2)
    loop.cancel()
    assert not pending, "the cancellation was swallowed"
