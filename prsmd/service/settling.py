"""Waits for deployments to settle: each is looked at once for all who wait for it.

Tells only that it is time to look again: what a caller may see is asked for each caller.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from prsmd.domain.errors import PrsmdError
from prsmd.engine.fan_out import wake_in_turn
from prsmd.store.asking import for_nobody

_LOOK_SECONDS = 1.0  # what changes a status is not always recorded as an event


class Settling:
    """Who waits for which deployment.

    `settled` tells whether a deployment has settled or is gone; `changed` returns what is set when
    something of it is recorded.
    """

    def __init__(
        self,
        settled: Callable[[str], Awaitable[bool]],
        changed: Callable[[str], asyncio.Event],
    ) -> None:
        self._settled = settled
        self._changed = changed
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def wait(self, deployment_id: str, seconds: float) -> None:
        """Return when the deployment has settled or is gone, or so many seconds are over."""
        woken = asyncio.Event()
        self._waiting.setdefault(deployment_id, set()).add(woken)
        if deployment_id not in self._looking:
            work = self._look(deployment_id)
            self._looking[deployment_id] = asyncio.create_task(
                work, name=f"settle:{deployment_id}", context=for_nobody()
            )
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await woken.wait()
        finally:
            self._leave(deployment_id, woken)

    def _leave(self, deployment_id: str, woken: asyncio.Event) -> None:
        waiting = self._waiting.get(deployment_id, set())
        waiting.discard(woken)
        if not waiting:
            self._waiting.pop(deployment_id, None)
            task = self._looking.pop(deployment_id, None)
            if task is not None:
                task.cancel()

    async def _look(self, deployment_id: str) -> None:
        """Look whenever something of it has changed, and wake all when it has settled."""
        while True:
            changed = self._changed(deployment_id)
            with contextlib.suppress(PrsmdError):  # the store is away, say: looked at again soon
                if await self._settled(deployment_id):
                    break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await changed.wait()
        self._looking.pop(deployment_id, None)
        await wake_in_turn(self._waiting.pop(deployment_id, set()))
