"""Small periodic duties: hear the engine's hints, forget what is old."""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from prsmd.core.clock_steps import ClockSteps
from prsmd.domain.errors import PrsmdError
from prsmd.gateway.meters import steady_seconds
from prsmd.runtime.base import Runtime
from prsmd.store import events, history, idempotency, replicas
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)
_RESUBSCRIBE_SECONDS = 2.0
_PRUNE_SECONDS = 600.0
_KEPT_EVENTS = 1000
_KEPT_REPLICAS = 100


async def hear_hints(runtime: Runtime, wake: Callable[[], None]) -> None:
    """Wake the loop whenever the engine says that something may have changed; for ever.

    The stream may end at any time. Then it is subscribed anew, and looked at what was missed.
    """
    while True:
        try:
            async for _ in runtime.events():
                wake()
        except PrsmdError as error:
            log.debug("the engine's events ended: %s", error.message)
        except Exception:  # the loop looks by itself too: hints are worth no daemon
            log.exception("the engine's events failed unexpectedly")
        wake()
        await asyncio.sleep(_RESUBSCRIBE_SECONDS)


async def forget_old(database: Database) -> None:
    """Keep the tables of events, ended replicas, durations and answers bounded; for ever."""
    steps = ClockSteps(time.time(), steady_seconds())
    was_set_at = -math.inf

    async def prune(tx: Tx) -> None:
        nonlocal was_set_at
        now, steady = time.time(), steady_seconds()
        if steps.was_set(now, steady):
            was_set_at = steady
        if steady - was_set_at >= idempotency.KEPT_SECONDS:  # else they are not as old as it says
            await idempotency.prune(tx, now - idempotency.KEPT_SECONDS)
        await events.prune(tx, _KEPT_EVENTS)
        await replicas.prune(tx, _KEPT_REPLICAS)
        await history.prune(tx)

    while True:
        await asyncio.sleep(_PRUNE_SECONDS)
        try:
            await database.write(prune)
        except PrsmdError as error:
            log.warning("old rows not removed: %s", error.message)
