"""Tells a clock that was set from one that runs: by how far it moved against a steady one.

A clock that was set by moments is the same clock; what is counted by days goes on as it was.
"""

SET_SECONDS = 1800.0


class ClockSteps:
    """Compares the wall clock with a steady one, which goes on while the machine sleeps.

    `steady_since` is when, by the steady clock, the wall clock was last set, or first looked at.
    """

    def __init__(self, wall: float, steady: float) -> None:
        self.steady_since = steady
        self._ahead = wall - steady

    def was_set(self, wall: float, steady: float) -> bool:
        """Tell whether the wall clock was set since this was last asked."""
        ahead = wall - steady
        if abs(ahead - self._ahead) < SET_SECONDS:
            return False
        self._ahead, self.steady_since = ahead, steady
        return True
