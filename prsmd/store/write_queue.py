"""What waits to be written, in the order in which it is.

The daemon's own comes first. Callers share what is left in turn (`core/fair_queue.py`), as they
share the readers; what one principal asks for is written in its order.
"""

import collections
from typing import Generic, TypeVar

from prsmd.core.fair_queue import Asker, FairQueue, Slots
from prsmd.domain.errors import ResourceUnavailableError

Job = TypeVar("Job")


class WriteQueue(Generic[Job]):
    """Jobs that wait; at most `waiting` of one principal."""

    def __init__(self, waiting: int) -> None:
        self._waiting = waiting
        self._own: collections.deque[Job] = collections.deque()
        self._callers: FairQueue[Job] = FairQueue(
            Slots(total=1, per_organization=1, waiting=waiting)
        )
        self._of_callers = 0

    def __len__(self) -> int:
        return len(self._own) + self._of_callers

    def push(self, who: Asker | None, job: Job) -> None:
        """Let a job wait; None: it is the daemon's own.

        Raises:
            ResourceUnavailableError: the principal has as many waiting as it may.
        """
        if who is None:
            self._own.append(job)
        elif self._callers.enter(who, job):
            self._of_callers += 1
        else:
            raise ResourceUnavailableError(
                f"{self._waiting} of your changes wait to be written already; wait for them.",
                resource_type="writer",
                reason="too many changes of one caller wait to be written",
            )

    def pop(self) -> Job | None:
        """Return the next job, None where there is none."""
        if self._own:
            return self._own.popleft()
        taken = self._callers.take()
        if taken is None:
            return None
        who, job = taken
        self._callers.give_back(who)  # there is one writer: it has no job but this
        self._of_callers -= 1
        return job
