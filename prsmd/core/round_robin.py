"""Decides whose turn it is among those with the same claim: each source once, then again.

A source with a thousand items that wait holds up another one's only item by one item of its own.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RoundRobin(Generic[Item]):
    """Items that wait, by source. Those of one source come out in the order they came in."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def push(self, source: str, item: Item) -> None:
        """Let an item wait; a source that had none is the last in turn."""
        self._waiting.setdefault(source, deque()).append(item)

    def pop(self) -> tuple[str, Item]:
        """Return the next item, whose source is the last in turn from now on. There must be one."""
        source, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[source] = items
        return source, item
