"""Sliding windows over time: counts, averages and histograms of the last seconds.

Time is always passed in, in seconds, and only has to be roughly monotonic: a clock that steps back
keeps writing to the newest bucket, one that is set by more than the window, ahead or back, empties
it.
"""

import bisect
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Bucket = TypeVar("Bucket")

LATENCY_BOUNDS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip


class Histogram:
    """Counts of values by upper bound (inclusive), with one more count for what lies above all."""

    __slots__ = ("bounds", "counts", "largest", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.largest = 0.0

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value
        self.largest = max(self.largest, value)

    def add(self, other: "Histogram") -> None:
        """Count everything that `other` counted; both must have the same bounds."""
        self.counts = [
            mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.total += other.total
        self.largest = max(self.largest, other.largest)

    def mean(self) -> float | None:
        """Return the mean of all values; None without any."""
        count = self.count
        return self.total / count if count else None

    def quantile(self, fraction: float) -> float | None:
        """Estimate a quantile by linear interpolation inside its bucket, never above the largest.

        As Prometheus' histogram_quantile, but the topmost bucket ends at the largest value seen.
        """
        count = self.count
        if not count:
            return None
        rank, below, lower = fraction * count, 0, 0.0
        for bound, inside in zip((*self.bounds, self.largest), self.counts, strict=True):
            if inside and below + inside >= rank:
                upper = min(bound, self.largest)
                return lower + (max(upper, lower) - lower) * (rank - below) / inside
            below, lower = below + inside, bound
        return self.largest


class Buckets(Generic[Bucket]):
    """The buckets of the last `span_seconds`, each `width_seconds` wide; older ones are dropped."""

    __slots__ = ("_buckets", "_keep", "_make", "_width")

    def __init__(
        self, span_seconds: float, width_seconds: float, make: Callable[[], Bucket]
    ) -> None:
        self._width = width_seconds
        self._keep = max(1, round(span_seconds / width_seconds))
        self._make = make
        self._buckets: deque[tuple[int, Bucket]] = deque()

    def current(self, now: float) -> Bucket:
        """Return the bucket that `now` falls into, made if need be."""
        index = int(now // self._width)
        self._drop_later(index)
        if not self._buckets or self._buckets[-1][0] < index:
            self._buckets.append((index, self._make()))
            self._drop_older(index)
        return self._buckets[-1][1]

    def recent(self, now: float) -> list[Bucket]:
        """Return the buckets inside the window that ends at `now`, oldest first."""
        index = int(now // self._width)
        self._drop_later(index)
        self._drop_older(index)
        return [bucket for _, bucket in self._buckets]

    def _drop_later(self, index: int) -> None:
        """Begin anew where the clock was set far back: what is here would not grow old."""
        if self._buckets and self._buckets[-1][0] > index + self._keep:
            self._buckets.clear()

    def _drop_older(self, index: int) -> None:
        while self._buckets and self._buckets[0][0] <= index - self._keep:
            self._buckets.popleft()


class _Area:
    """How much of value times seconds fell into one bucket, and how many seconds that covers."""

    __slots__ = ("area", "seconds")

    def __init__(self) -> None:
        self.area = 0.0
        self.seconds = 0.0


class Gauge:
    """The time-weighted average of a value that changes in steps (requests in flight)."""

    __slots__ = ("_areas", "_keep_seconds", "_since", "_width", "value")

    def __init__(self, span_seconds: float, width_seconds: float, now: float) -> None:
        self.value = 0.0
        self._areas: Buckets[_Area] = Buckets(span_seconds, width_seconds, _Area)
        self._keep_seconds = span_seconds
        self._width = width_seconds
        self._since = now

    def set(self, value: float, now: float) -> None:
        """Note that the value is `value` from `now` on."""
        self._advance(now)
        self.value = value

    def average(self, now: float) -> float:
        """Return the average over the window that ends at `now` (or since the start, if later)."""
        self._advance(now)
        areas = self._areas.recent(now)
        seconds = sum(area.seconds for area in areas)
        return sum(area.area for area in areas) / seconds if seconds > 0 else self.value

    def _advance(self, now: float) -> None:
        start = max(self._since, now - self._keep_seconds)
        while start < now:
            end = min(now, (start // self._width + 1) * self._width)
            if end <= start:  # a float step too small to move: the rest is one bucket's
                end = now
            area = self._areas.current(start)
            area.area += self.value * (end - start)
            area.seconds += end - start
            start = end
        self._since = now
