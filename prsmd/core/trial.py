"""Trials: how traffic divides between a stable revision and one on trial, and how it is judged.

The data path counts and asks `takes_trial`; the loop asks `judge`. Neither is told who asked.
"""

import dataclasses
import zlib
from collections.abc import Mapping

from prsmd.domain.rollout import Gate, HeaderRule

WHOLE = 100  # percent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How the data path divides the traffic of one model. Percents are whole, 0 to 100.

    `key` names what is measured: counts start anew when it changes. `weight` is the part of the
    requests that goes to the revision on trial, `shadow_percent` the part that is copied to it.
    """

    key: str
    weight: int = 0
    shadow_percent: int = 0
    header: HeaderRule | None = None
    sticky: bool = False

    @property
    def compares_only(self) -> bool:
        """True when the revision on trial gets copies and must never answer in another's place."""
        return not self.weight and bool(self.shadow_percent)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was measured of one side: answers, how many of them failed, their mean latency."""

    requests: int = 0
    errors: int = 0
    mean_ms: float | None = None

    @property
    def error_rate(self) -> float:
        """The failed fraction; 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialReading:
    """What was measured since `key` began. `differing` of the copied requests' answers differed.

    `dropped` copies were never made because the revision on trial was too busy.
    """

    key: str
    stable: Reading = Reading()
    trial: Reading = Reading()
    compared: int = 0
    differing: int = 0
    dropped: int = 0


def takes_trial(trial: Trial, turn: int, client: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a request goes to the revision on trial.

    `turn` counts the model's requests: of any hundred in a row exactly `weight` go, spread evenly.
    With `sticky` the client decides instead, so that one client always sees the same side; a client
    that was on the side on trial stays there when the weight grows. `headers` has lower-case names.
    """
    rule = trial.header
    if rule is not None and headers.get(rule.name.lower()) == rule.value:
        return True
    if trial.sticky and client:
        return zlib.crc32(client.encode()) % WHOLE < trial.weight
    return _falls_to(trial.weight, turn)


def takes_copy(trial: Trial, turn: int) -> bool:
    """Tell whether an answered request is copied to the revision on trial.

    `turn` counts the requests that the stable revision answered.
    """
    return _falls_to(trial.shadow_percent, turn)


def places(trial: Trial, depth: int) -> int:
    """Return how many of a queue's places may wait for the revision on trial.

    Half of them, or its part of the traffic where that is more: a trial that is too slow must not
    fill the queue, and cost the others their places. One place is always its own.
    """
    return max(1, depth // 2, depth * trial.weight // WHOLE)


@dataclasses.dataclass(frozen=True, slots=True)
class Passed:
    """The gate holds. `evidence` are the measured values in words."""

    evidence: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Broken:
    """The gate does not hold, and why."""

    reason: str
    evidence: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class TooFew:
    """Not enough was answered to judge by, in words."""

    reason: str


def judge(gate: Gate, reading: TrialReading) -> Passed | Broken | TooFew:
    """Return whether the revision on trial holds its gate by what was measured so far.

    Errors that the stable revision gives as often are the requests', not the revision's.
    """
    trial, stable = reading.trial, reading.stable
    if trial.requests < gate.min_requests:
        return TooFew(f"{trial.requests} of {gate.min_requests} requests to judge by were answered")
    evidence = measured_words(reading)
    if trial.error_rate > max(gate.max_error_rate, stable.error_rate):
        return Broken(
            f"its error rate of {trial.error_rate:.2%} is over the gate's"
            f" {gate.max_error_rate:.2%} ({trial.errors} of {trial.requests})",
            evidence,
        )
    if trial.mean_ms is not None and stable.mean_ms and stable.requests >= gate.min_requests:
        ratio = trial.mean_ms / stable.mean_ms
        if ratio > gate.max_latency_ratio:
            return Broken(
                f"its mean latency of {trial.mean_ms:.1f} ms is {ratio:.2f} times the stable"
                f" {stable.mean_ms:.1f} ms; the gate allows {gate.max_latency_ratio:g}",
                evidence,
            )
    return Passed(evidence)


def measured_words(reading: TrialReading) -> tuple[str, ...]:
    """Return what was measured in words, a line for each side, and one for copies if any."""
    lines = [_words("on trial", reading.trial), _words("stable", reading.stable)]
    if reading.compared or reading.dropped:
        lines.append(
            f"copies: {reading.compared} answers compared, {reading.differing} of them differ,"
            f" {reading.dropped} copies not made"
        )
    return tuple(lines)


def _words(side: str, reading: Reading) -> str:
    mean = "no latency" if reading.mean_ms is None else f"mean {reading.mean_ms:.1f} ms"
    return f"{side}: {reading.requests} requests, {reading.errors} errors, {mean}"


def _falls_to(percent: int, turn: int) -> bool:
    return (turn + 1) * percent // WHOLE > turn * percent // WHOLE
