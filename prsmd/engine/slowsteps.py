"""Owns the tasks of slow steps: one for a replica at a time, slowed down while it keeps failing.

Knows nothing of what a step does.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from prsmd.domain.errors import PrsmdError

log = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 10.0

Work = Callable[[], Coroutine[Any, Any, None]]


class SlowSteps:
    """Named tasks by the id of the replica they work on. `ended` runs whenever one has ended.

    A step that failed stays `working` for a pause of `retry_seconds`, doubled with each further
    failure in a row: whoever plans it again and again does not spin on a broken engine or disk.
    """

    def __init__(self, ended: Callable[[], None], retry_seconds: float) -> None:
        self._ended = ended
        self._retry_seconds = retry_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, int] = {}

    def working(self) -> frozenset[str]:
        """Return the ids of the replicas on which a step is in progress."""
        return frozenset(self._tasks)

    def has_failed(self, replica_id: str) -> bool:
        """Tell whether the last step on the replica failed and has not been done since."""
        return replica_id in self._failures

    def forgive(self, replica_id: str) -> None:
        """Forget the failures of a replica that has moved on."""
        self._failures.pop(replica_id, None)

    def begin(self, step: str, replica_id: str, work: Work) -> None:
        """Start a step, unless another one is in progress on the replica."""
        if replica_id in self._tasks:
            return
        name = f"{step}:{replica_id}"
        task = asyncio.create_task(self._run(name, replica_id, work), name=name)
        self._tasks[replica_id] = task
        task.add_done_callback(lambda _: self._note_end(replica_id))

    async def cancel(self, replica_id: str) -> None:
        """Give up the step in progress on a replica, if any. Returns when it has ended."""
        task = self._tasks.get(replica_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.forgive(replica_id)

    async def close(self) -> None:
        """Give up all steps."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, name: str, replica_id: str, work: Work) -> None:
        try:
            await work()
        except PrsmdError as error:
            await self._put_off(name, replica_id, error.message)
        except Exception as error:
            log.exception("%s failed unexpectedly", name)
            await self._put_off(name, replica_id, repr(error))
        else:
            self.forgive(replica_id)

    async def _put_off(self, name: str, replica_id: str, why: str) -> None:
        failures = self._failures[replica_id] = self._failures.get(replica_id, 0) + 1
        pause = min(_LONGEST_PAUSE_SECONDS, self._retry_seconds * 2.0 ** min(failures - 1, 30))
        log.warning(
            "%s not done, again in %.3g s: %s", name, pause, why, extra={"replica": replica_id}
        )
        await asyncio.sleep(pause)

    def _note_end(self, replica_id: str) -> None:
        del self._tasks[replica_id]
        self._ended()
