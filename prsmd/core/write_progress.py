"""Whether a client takes its answer, and fast enough: else it holds memory and a model for nothing.

Time is counted in the pieces that the caller measured, so that a process that stood still itself
finds nobody slow.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class WriteLimits:
    """In each `timeout_seconds` a client takes all that waited, or `bytes_per_second`."""

    timeout_seconds: float
    bytes_per_second: int

    @property
    def bytes_each_time(self) -> int:
        """How much of what waits has to be taken in the time."""
        return int(self.bytes_per_second * self.timeout_seconds)


class WriteProgress:
    """One connection's. What is counted is what left this process's buffer."""

    __slots__ = ("_limits", "_needed", "_seconds", "_taken_before")

    def __init__(self, limits: WriteLimits) -> None:
        self._limits = limits
        self._seconds: float | None = None  # of this period; None: nothing waits
        self._taken_before = 0
        self._needed = 0

    def too_slow(self, seconds: float, taken: int, waiting: int) -> bool:
        """Tell whether a period ended in which too little was taken.

        `seconds` passed since the last call; `taken` is what the client took since it connected,
        and `waiting` what it has not.
        """
        if not waiting:
            self._seconds = None
            return False
        if self._seconds is None:
            self._begin(taken, waiting)
            return False
        self._seconds += seconds
        if self._seconds < self._limits.timeout_seconds:
            return False
        if taken - self._taken_before < self._needed:
            return True
        self._begin(taken, waiting)
        return False

    def _begin(self, taken: int, waiting: int) -> None:
        self._seconds = 0.0
        self._taken_before = taken
        self._needed = min(
            waiting, int(self._limits.bytes_per_second * self._limits.timeout_seconds)
        )
