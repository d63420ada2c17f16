"""Does at once what the daemon does step by step."""

from typing import TypeVar

from prsmd.protocols.json_members import Steps

T = TypeVar("T")


def done(steps: Steps[T]) -> T:
    """Return what all the steps come to."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            result: T = ended.value
            return result
