"""Who used which model how much: sums by day in memory, until they are taken.

Hears of every inference that ended, and lets the audit's notes hear of it too.
"""

import itertools
from collections.abc import Iterable

from prsmd.core.meter import DAY_SECONDS
from prsmd.domain.quota import Use

from .ledger import FAILURES
from .tape import InferenceNote, NoteTaker

_FAILED = frozenset(outcome.value for outcome in FAILURES)
_CAPACITY = 50_000
_Key = tuple[int, str, str, str]


class _Sum:
    __slots__ = (
        "answer_bytes",
        "errors",
        "model_id",
        "owner",
        "refused",
        "request_bytes",
        "requests",
        "seconds",
    )

    def __init__(self, owner: str, model_id: str) -> None:
        self.owner = owner
        self.model_id = model_id
        self.requests = self.errors = self.refused = 0
        self.request_bytes = self.answer_bytes = 0
        self.seconds = 0.0


class Uses:
    """Sums of use, at most `capacity`. `lost` inferences had no room. `audit` hears all notes."""

    def __init__(self, audit: NoteTaker | None = None, capacity: int = _CAPACITY) -> None:
        self.lost = 0
        self._audit = audit
        self._capacity = capacity
        self._sums: dict[_Key, _Sum] = {}

    def note(self, note: InferenceNote) -> None:
        """Add an inference to the sum of its day, model and principal. Without a model, to none."""
        if self._audit is not None:
            self._audit.note(note)
        if note.deployment_id:
            self._add(note)

    def take(self, limit: int) -> list[Use]:
        """Return the oldest sums, at most so many, and begin them anew."""
        keys = list(itertools.islice(self._sums, limit))
        return [_use(key, self._sums.pop(key)) for key in keys]

    def __len__(self) -> int:
        """Return how many sums there are."""
        return len(self._sums)

    def put_back(self, uses: Iterable[Use]) -> None:
        """Add what could not be stored to what was noted since."""
        for use in uses:
            found = self._sum((use.day, use.deployment_id, use.organization, use.principal), use)
            if found is None:
                self.lost += use.requests
                continue
            found.requests += use.requests
            found.errors += use.errors
            found.refused += use.refused
            found.seconds += use.seconds
            found.request_bytes += use.request_bytes
            found.answer_bytes += use.answer_bytes

    def _add(self, note: InferenceNote) -> None:
        key = (int(note.at // DAY_SECONDS), note.deployment_id, note.organization, note.principal)
        found = self._sum(key, note)
        if found is None:
            self.lost += 1
            return
        if not note.reached:
            found.refused += 1
            return
        found.requests += 1
        found.seconds += note.seconds
        found.request_bytes += note.request_bytes
        found.answer_bytes += note.answer_bytes
        if note.outcome in _FAILED:
            found.errors += 1

    def _sum(self, key: _Key, of: InferenceNote | Use) -> _Sum | None:
        found = self._sums.get(key)
        if found is None and len(self._sums) < self._capacity:
            found = self._sums[key] = _Sum(of.owner, of.model_id)
        return found


def _use(key: _Key, found: _Sum) -> Use:
    day, deployment_id, organization, principal = key
    sums = {name: getattr(found, name) for name in _Sum.__slots__}
    return Use(
        day=day,
        deployment_id=deployment_id,
        organization=organization,
        principal=principal,
        **sums,
    )
