"""Restarts background loops: an unforeseen error costs one of them a turn, and not the daemon."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)
_PAUSE_SECONDS = 10.0


async def restarted(
    name: str, run: Callable[[], Awaitable[None]], pause_seconds: float = _PAUSE_SECONDS
) -> None:
    """Run a loop for ever; after an error that it did not foresee, begin it anew a while later.

    Each kind of error, by its type and place, is logged once with its traceback.
    """
    told: set[tuple[object, ...]] = set()
    while True:
        try:
            await run()
        except Exception as error:
            if (kind := _kind(error)) not in told:
                log.exception("the loop %s failed unexpectedly; it goes on at its next turn", name)
            told.add(kind)
        await asyncio.sleep(pause_seconds)


def _kind(error: Exception) -> tuple[object, ...]:
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return type(error), frame.f_code.co_filename, line
