"""Judges missed deadlines: could the answer have been heard, or did the daemon itself stand still?

A deadline that passes while the event loop ran late, or while the machine or the container engine
stood still, says nothing about who was asked. Measures nothing: `engine/loop_lag.py` does.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Protocol

FAIR_PART = 0.1  # of a span: who lost less of it than this is not the reason for a missed deadline
LEAST_SECONDS = 0.02  # less than this is the ordinary work of a loop


class StallKind(enum.StrEnum):
    """What stood still. A clock that was set ahead is time that nobody lived through."""

    LOOP = "loop"
    SUSPENDED = "suspended"
    CLOCK = "clock"
    ENGINE = "engine"


OWN = frozenset({StallKind.LOOP})
"""Stalls in which this process could not hear what was said to it."""
ANY = frozenset({StallKind.LOOP, StallKind.ENGINE})
"""Stalls in which an answer may have been late for reasons that are not those of who was asked."""
SKIPS = frozenset({StallKind.SUSPENDED, StallKind.CLOCK})
"""Stalls in which the wall clock went on and nobody lived through it."""
_WORDS = {
    StallKind.LOOP: "this daemon itself stood still",
    StallKind.SUSPENDED: "this machine was suspended",
    StallKind.CLOCK: "the clock was set ahead",
    StallKind.ENGINE: "the container engine did not answer",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A span of monotonic seconds of which `lost` were lost, and when it ended (epoch seconds).

    While a machine is suspended, and where its clock is set ahead, no monotonic time passes: such
    a span is empty, and `lost` is what the wall clock went on.
    """

    kind: StallKind
    began: float
    ended: float
    lost: float
    at: float

    def lost_within(self, began: float, ended: float) -> float:
        """Return the seconds lost of a span of monotonic time."""
        overlap = min(ended, self.ended) - max(began, self.began)
        if overlap <= 0:
            return 0.0
        return min(overlap, self.lost * overlap / (self.ended - self.began))

    def lost_on_clock(self, since: float, until: float) -> float:
        """Return the seconds lost of a span of epoch seconds."""
        length = max(self.ended - self.began, self.lost)
        overlap = min(until, self.at) - max(since, self.at - length)
        return 0.0 if overlap <= 0 or not length else min(overlap, self.lost * overlap / length)


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """Why a missed deadline is no evidence: how much of it was lost, and to what, in words."""

    lost: float
    reason: str


def judge_deadline(
    stalls: Sequence[Stall],
    began: float,
    ended: float,
    kinds: frozenset[StallKind] = ANY,
    part: float = FAIR_PART,
) -> Unknown | None:
    """Return why what was not heard between two monotonic moments says nothing; None: it does."""
    counted = [(one.lost_within(began, ended), one.kind) for one in stalls if one.kind in kinds]
    lost = min(sum(seconds for seconds, _ in counted), max(0.0, ended - began))
    if lost < max(LEAST_SECONDS, part * (ended - began)):
        return None
    _, kind = max(counted)
    return Unknown(lost, f"{_WORDS[kind]} for {lost:.2g} s of it")


def lost_on_clock(stalls: Sequence[Stall], since: float, until: float) -> float:
    """Return how many of the seconds between two moments of the wall clock nobody could look."""
    lost = sum(one.lost_on_clock(since, until) for one in stalls)
    return min(lost, max(0.0, until - since))


class DeadlineJudge(Protocol):
    """Whom to ask before a missed deadline is held against anyone."""

    def now(self) -> float:
        """Return the monotonic seconds from which `unknown` judges."""

    def unknown(self, began: float, kinds: frozenset[StallKind] = ANY) -> Unknown | None:
        """Return why what was not heard since `began` says nothing about who was asked."""


@dataclasses.dataclass(frozen=True, slots=True)
class AlwaysOnTime:
    """The judge where nothing measures: every missed deadline counts."""

    def now(self) -> float:
        """Return 0: it is never compared."""
        return 0.0

    def unknown(
        self,
        began: float,  # noqa: ARG002 - see `DeadlineJudge`
        kinds: frozenset[StallKind] = ANY,  # noqa: ARG002
    ) -> Unknown | None:
        """Return None."""
        return None
