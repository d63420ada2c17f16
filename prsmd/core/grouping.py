"""Groups values by a key, so that looking for those of one key costs what there is of it."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def grouped(values: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """Return the values of each key, in their order."""
    found: dict[str, list[T]] = {}
    for value in values:
        found.setdefault(key(value), []).append(value)
    return found
