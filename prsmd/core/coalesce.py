"""What is noted whole, and what only in a count, so that no caller floods a log.

The first few of a kind in a window are noted whole; of the rest a count is kept, with the first and
last time. Every caller has a share of its own; what finds no room in memory is counted together.
"""

import dataclasses
import sys
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How much is noted whole in a window of so many seconds, and how much is kept in memory.

    `each` of a kind and `caller` of one caller are noted whole, `everybody` of all together. Counts
    are kept of `kinds` kinds a caller and of `callers` callers; the rest has common ones.
    """

    window: float = 60.0
    each: int = 5
    caller: int = 60
    everybody: int = 1200
    kinds: int = 16
    callers: int = 2000


@dataclasses.dataclass(frozen=True, slots=True)
class Sum(Generic[T]):
    """So many of a kind, from the first to the last time, both included. `item` is the last.

    `kind` None: of several kinds; `caller` None: of several callers. `alike` are the names of
    fields that all of them had in common, as `Coalescer` was told to look at.
    """

    caller: str | None
    kind: Hashable | None
    item: T
    count: int
    first_at: float
    last_at: float


@dataclasses.dataclass(slots=True)
class _Caller(Generic[T]):
    began: float
    whole: int = 0
    seen: dict[Hashable, int] = dataclasses.field(default_factory=dict)
    sums: dict[Hashable | None, Sum[T]] = dataclasses.field(default_factory=dict)


class Coalescer(Generic[T]):
    """Decides of each item whether it is noted whole, and keeps the counts of the others.

    `now` are seconds of any clock that only goes forward; times in sums are those of `at`.
    """

    def __init__(self, shares: Shares | None = None) -> None:
        self._shares = shares or Shares()
        self._callers: dict[str, _Caller[T]] = {}
        self._ended: list[Sum[T]] = []
        self._overflow: Sum[T] | None = None
        self._began, self._whole = 0.0, 0

    def take(self, caller: str, kind: Hashable, item: T, at: float, now: float) -> bool:
        """Tell whether the item is to be noted whole; else it is counted."""
        if now - self._began >= self._shares.window:
            self._began, self._whole = now, 0
        found = self._of(caller, now)
        if found is not None and self._room(found, kind):
            self._whole += 1
            found.whole += 1
            found.seen[kind] = found.seen.get(kind, 0) + 1
            return True
        self._count(caller, found, kind, Sum(caller, kind, item, 1, at, at))
        return False

    def count(self, caller: str, kind: Hashable, item: T, at: float, now: float) -> None:
        """Count an item that could not be noted whole."""
        self._count(caller, self._of(caller, now), kind, Sum(caller, kind, item, 1, at, at))

    def due(self, now: float, *, everything: bool = False, most: int = sys.maxsize) -> list[Sum[T]]:
        """Return the sums of windows that have ended, and keep them no more.

        Of more than `most` the oldest are returned, the rest with the next calls. The common sum of
        what had no room in memory comes in addition.
        """
        for caller, found in list(self._callers.items()):  # those that began first are first
            if len(self._ended) >= most or not (everything or self._is_over(found, now)):
                break
            self._end(caller)
        ended, self._ended = self._ended[:most], self._ended[most:]
        if self._overflow is not None and (everything or self._overflow_is_due(now)):
            ended.append(self._overflow)
            self._overflow = None
        return ended

    def put_back(self, sums: list[Sum[T]]) -> None:
        """Keep sums that could not be noted for the next time, as far as there is room."""
        for each in sums:
            self._keep(each)

    def __len__(self) -> int:
        """Return how many sums are kept."""
        return sum(1 for _ in self._all())

    def _all(self) -> Iterator[Sum[T]]:
        for found in self._callers.values():
            yield from found.sums.values()
        yield from self._ended
        if self._overflow is not None:
            yield self._overflow

    def _of(self, caller: str, now: float) -> _Caller[T] | None:
        found = self._callers.get(caller)
        if found is not None and self._is_over(found, now):
            self._end(caller)
            found = None
        if found is None and self._has_place(now):
            found = self._callers[caller] = _Caller(now)
        return found

    def _has_place(self, now: float) -> bool:
        """Tell whether one more caller has a place; the first one's is given up once it can be."""
        first = next(iter(self._callers.items()), None)
        if first is None or len(self._callers) < self._shares.callers:
            return self._shares.callers > 0
        if not self._is_over(first[1], now):
            return False
        self._end(first[0])
        return True

    def _is_over(self, found: _Caller[T], now: float) -> bool:
        return now - found.began >= self._shares.window

    def _room(self, found: _Caller[T], kind: Hashable) -> bool:
        shares = self._shares
        within = found.whole < shares.caller and self._whole < shares.everybody
        return within and found.seen.get(kind, 0) < shares.each

    def _count(self, caller: str, found: _Caller[T] | None, kind: Hashable, one: Sum[T]) -> None:
        if found is None:
            self._spill(one)
            return
        known = kind in found.sums or len(found.sums) < self._shares.kinds
        under = kind if known else None
        before = found.sums.get(under)
        found.sums[under] = dataclasses.replace(_added(before, one), caller=caller, kind=under)

    def _end(self, caller: str) -> None:
        for each in self._callers.pop(caller).sums.values():
            self._keep(each)

    def _keep(self, each: Sum[T]) -> None:
        if len(self._ended) < self._shares.callers:
            self._ended.append(each)
        else:
            self._spill(each)

    def _spill(self, each: Sum[T]) -> None:
        self._overflow = dataclasses.replace(_added(self._overflow, each), caller=None, kind=None)

    def _overflow_is_due(self, now: float) -> bool:
        return now - self._began >= self._shares.window


def _added(before: Sum[T] | None, more: Sum[T]) -> Sum[T]:
    if before is None:
        return more
    return dataclasses.replace(
        more,
        count=before.count + more.count,
        first_at=min(before.first_at, more.first_at),
        last_at=max(before.last_at, more.last_at),
    )
