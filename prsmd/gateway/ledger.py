"""What became of the inferences: rolling performance and running totals per deployment.

Totals are kept by revision; those of a deployment are the sums.

In memory only; it never waits for anything. Whoever keeps it durably reads the totals.
"""

import dataclasses
import enum
from collections.abc import Iterable, Mapping

from prsmd.core.window import LATENCY_BOUNDS_SECONDS, Buckets, Histogram


class Outcome(enum.StrEnum):
    """How an inference ended; also the label of the metric."""

    OK = "ok"
    PROVIDER_ERROR = "provider_error"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    QUEUE_FULL = "queue_full"
    INVALID = "invalid"
    CANCELLED = "cancelled"
    LIMITED = "limited"
    STALLED = "stalled"


FAILURES = frozenset({Outcome.PROVIDER_ERROR, Outcome.TIMEOUT, Outcome.UNAVAILABLE})
"""What the model or the appliance did wrong. Refusing more than the queue or a limit holds,
refusing wrong inputs, clients that go away, and what the daemon itself was late for are counted,
but are no errors of the model."""

_REVISIONS_KEPT = 8  # beyond the newest ones, what was counted is only in the deployment's totals


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Everything since the daemon started. `latency_counts` are per bucket, not cumulative."""

    requests: Mapping[Outcome, int]
    latency_bounds_seconds: tuple[float, ...]
    latency_counts: tuple[int, ...]
    latency_sum_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """The last minute of one deployment. Latencies are of answered inferences, queue included.

    None: nothing to measure. `error_rate` is failures by requests, 0..1, and 0 without requests.
    """

    requests_per_second: float
    error_rate: float
    avg_latency_ms: float | None
    p95_latency_ms: float | None
    totals: Totals


class _Counts:
    """Outcomes and latencies of one deployment over one span of time."""

    __slots__ = ("latency", "requests")

    def __init__(self) -> None:
        self.requests: dict[Outcome, int] = {}
        self.latency = Histogram()

    def record(self, outcome: Outcome, seconds: float) -> None:
        self.requests[outcome] = self.requests.get(outcome, 0) + 1
        if outcome is Outcome.OK:
            self.latency.observe(seconds)

    def add(self, other: "_Counts") -> None:
        for outcome, count in other.requests.items():
            self.requests[outcome] = self.requests.get(outcome, 0) + count
        self.latency.add(other.latency)


class _Account:
    __slots__ = ("earlier", "opened_at", "recent", "revisions")

    def __init__(self, span_seconds: float, width_seconds: float, now: float) -> None:
        self.opened_at = now
        self.earlier = _Counts()
        self.revisions: dict[int, _Counts] = {}
        self.recent = Buckets(span_seconds, width_seconds, _Counts)

    def total(self) -> _Counts:
        return _sum((self.earlier, *self.revisions.values()))

    def of(self, revision: int) -> _Counts:
        counts = self.revisions.get(revision)
        if counts is None:
            counts = self.revisions[revision] = _Counts()
            if len(self.revisions) > _REVISIONS_KEPT:
                self.earlier.add(self.revisions.pop(min(self.revisions)))
        return counts


class Ledger:
    """Records how inferences ended. `now` is in seconds since the epoch."""

    def __init__(self, span_seconds: float = 60.0, width_seconds: float = 5.0) -> None:
        self._span = span_seconds
        self._width = width_seconds
        self._accounts: dict[str, _Account] = {}

    def record(
        self, deployment_id: str, outcome: Outcome, seconds: float, now: float, revision: int = 0
    ) -> None:
        """Note that an inference ended so after `seconds`, its time in the queue included.

        `revision` is the one that answered or should have.
        """
        account = self._accounts.get(deployment_id)
        if account is None:
            account = _Account(self._span, self._width, now)
            self._accounts[deployment_id] = account
        account.of(revision).record(outcome, seconds)
        account.recent.current(now).record(outcome, seconds)

    def performance(self, deployment_id: str, now: float) -> Performance:
        """Return the last minute and the totals of a deployment; zeros for one never used."""
        account = self._accounts.get(deployment_id) or _Account(self._span, self._width, now)
        recent = _sum(account.recent.recent(now))
        requests = sum(recent.requests.values())
        failures = sum(recent.requests.get(outcome, 0) for outcome in FAILURES)
        seconds = min(max(now - account.opened_at, self._width), self._span)
        return Performance(
            requests_per_second=requests / seconds,
            error_rate=failures / requests if requests else 0.0,
            avg_latency_ms=_ms(recent.latency.mean()),
            p95_latency_ms=_ms(recent.latency.quantile(0.95)),
            totals=_totals(account.total()),
        )

    def totals(self) -> dict[str, Totals]:
        """Return the totals of every deployment that was used, by its id."""
        return {name: _totals(account.total()) for name, account in self._accounts.items()}

    def revision_totals(self) -> dict[str, dict[int, Totals]]:
        """Return the totals of each of the newest revisions, by deployment id."""
        return {
            name: {number: _totals(counts) for number, counts in account.revisions.items()}
            for name, account in self._accounts.items()
        }

    def forget(self, deployment_id: str) -> None:
        """Drop everything about a deployment that is gone."""
        self._accounts.pop(deployment_id, None)


def _sum(parts: Iterable[_Counts]) -> _Counts:
    total = _Counts()
    for counts in parts:
        total.add(counts)
    return total


def _totals(counts: _Counts) -> Totals:
    return Totals(
        requests=dict(counts.requests),
        latency_bounds_seconds=LATENCY_BOUNDS_SECONDS,
        latency_counts=tuple(counts.latency.counts),
        latency_sum_seconds=counts.latency.total,
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
