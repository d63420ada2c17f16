"""What is measured of the two sides while a revision is on trial. In memory; judged elsewhere."""

from prsmd.core.trial import Reading, Trial, TrialReading, takes_copy


class Side:
    """Answers, failures and time of one side. Latency is of the answers that did not fail."""

    __slots__ = ("errors", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.seconds = 0.0

    def record(self, seconds: float, *, failed: bool) -> None:
        """Count one exchange with a container that took `seconds`."""
        self.requests += 1
        if failed:
            self.errors += 1
        else:
            self.seconds += seconds

    def reading(self) -> Reading:
        """Return what was measured so far."""
        answered = self.requests - self.errors
        return Reading(
            requests=self.requests,
            errors=self.errors,
            mean_ms=self.seconds / answered * 1000 if answered else None,
        )


class TrialMeter:
    """Measures one key of a trial. A changed key gets a meter of its own.

    Whoever began an exchange under a key records it with that key's meter, so that nothing of the
    time before is counted in the time after.
    """

    __slots__ = ("_answered", "compared", "differing", "dropped", "key", "stable", "trial")

    def __init__(self, key: str) -> None:
        self.key = key
        self.stable = Side()
        self.trial = Side()
        self.compared = 0
        self.differing = 0
        self.dropped = 0
        self._answered = 0

    def record(self, seconds: float, *, on_trial: bool, failed: bool) -> None:
        """Count one exchange, queueing not included."""
        (self.trial if on_trial else self.stable).record(seconds, failed=failed)

    def takes_copy(self, trial: Trial) -> bool:
        """Count an answer of the stable side; tell whether its request is to be copied."""
        self._answered += 1
        return takes_copy(trial, self._answered - 1)

    def reading(self) -> TrialReading:
        """Return what was measured since the key began."""
        return TrialReading(
            key=self.key,
            stable=self.stable.reading(),
            trial=self.trial.reading(),
            compared=self.compared,
            differing=self.differing,
            dropped=self.dropped,
        )
