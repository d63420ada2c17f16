"""A semaphore that is fair among callers; `core/fair_queue.py` says who gets the next slot."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from prsmd.core.fair_queue import Asker, FairQueue, Slots
from prsmd.domain.errors import ResourceUnavailableError

_DAEMON = Asker("", "")


class FairSemaphore:
    """The slots of one kind of work. `resource` is what it is called where too many wait."""

    def __init__(self, slots: Slots, resource: str) -> None:
        self._slots = slots
        self._resource = resource
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(slots)

    @contextlib.asynccontextmanager
    async def slot(self, who: Asker | None) -> AsyncIterator[None]:
        """Have a slot inside, which may be waited for. None, the daemon itself, takes turns too.

        Raises:
            ResourceUnavailableError: the caller has too much waiting already.
        """
        who = who or _DAEMON
        await self._wait(who)
        try:
            yield
        finally:
            self._give_back(who)

    async def _wait(self, who: Asker) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._queue.enter(who, granted):
            raise ResourceUnavailableError(
                f"{self._slots.waiting} of your requests wait already; wait for them.",
                resource_type=self._resource,
                reason="too many requests of one caller wait for their turn",
            )
        self._serve()
        try:
            await granted
        except asyncio.CancelledError:
            if not self._queue.withdraw(who, granted) and not granted.cancelled():
                self._give_back(who)
            raise

    def _give_back(self, who: Asker) -> None:
        self._queue.give_back(who)
        self._serve()

    def _serve(self) -> None:
        while (taken := self._queue.take()) is not None:
            who, granted = taken
            if granted.done():  # it was cancelled, and has not heard of it yet
                self._queue.give_back(who)
            else:
                granted.set_result(None)
