"""A map that is a value: a change returns another one and copies only what it touches.

Keys are spread over buckets by their hash, and the buckets that did not change are the same
objects in both. It is a hash trie (Bagwell, 2001) of two fixed levels.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_WIDTH = 256


class PersistentMap(Generic[K, V]):
    """Values by key. None is no value."""

    __slots__ = ("_rows",)

    def __init__(self, items: Mapping[K, V] | None = None) -> None:
        empty: list[dict[K, V]] = [{}] * _WIDTH
        self._rows = _changed([empty] * _WIDTH, items or {})

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None."""
        at = hash(key)
        return self._rows[at % _WIDTH][at // _WIDTH % _WIDTH].get(key)

    def changed(self, changes: Mapping[K, V | None]) -> "PersistentMap[K, V]":
        """Return this map with other values for some keys; None: the key has none any more."""
        made: PersistentMap[K, V] = PersistentMap.__new__(PersistentMap)
        made._rows = _changed(self._rows, changes)
        return made


def _changed(rows: list[list[dict[K, V]]], changes: Mapping[K, V | None]) -> list[list[dict[K, V]]]:
    """Return rows of buckets with other values for some keys. What is touched is copied once."""
    rows = rows.copy()
    copied: set[tuple[int, int]] = set()
    own: set[int] = set()
    for key, value in changes.items():
        at = hash(key)
        row, column = at % _WIDTH, at // _WIDTH % _WIDTH
        if row not in own:
            rows[row] = rows[row].copy()
            own.add(row)
        if (row, column) not in copied:
            rows[row][column] = rows[row][column].copy()
            copied.add((row, column))
        if value is None:
            rows[row][column].pop(key, None)
        else:
            rows[row][column][key] = value
    return rows
