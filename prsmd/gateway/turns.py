"""Long work on the event loop, done step by step: others have their turn between two steps.

Of all such work one step is done at a time, in turn, so that ten pieces of it hold up nobody longer
than one does.
"""

import asyncio
from typing import TypeVar

from prsmd.protocols.json_members import Steps

T = TypeVar("T")


class Turns:
    """Who works step by step, in order of arrival. Made in the loop that it serves, or before."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, steps: Steps[T]) -> T:
        """Do all the steps and return what they come to; what is small is done at once."""
        try:
            next(steps)
            while True:
                async with self._lock:
                    await asyncio.sleep(0)
                    next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            steps.close()
