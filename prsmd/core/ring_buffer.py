"""Keeps the newest of what comes, within a number of items and a sum of their sizes."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RingBuffer(Generic[Item]):
    """The newest of the items that are added: so many, of such a size in all, at most.

    `size_of` returns the size of one item; what it counts is the caller's choice. No more than the
    bounds and one item is ever held.
    """

    def __init__(self, most_items: int, most_size: int, size_of: Callable[[Item], int]) -> None:
        self.items: deque[Item] = deque()
        self._most_items = most_items
        self._room = most_size
        self._size_of = size_of

    def add(self, item: Item) -> None:
        """Add an item that is newer than those before."""
        self.items.append(item)
        self._room -= self._size_of(item)
        while len(self.items) > self._most_items or self._room < 0:
            self._room += self._size_of(self.items.popleft())
