"""What the data path tells the audit: how each inference ended, kept in memory until it is taken.

Nothing here waits or writes. What does not fit is counted, so that a loss never goes unsaid.
"""

import collections
import itertools
from typing import NamedTuple, Protocol

_CAPACITY = 50_000


class InferenceNote(NamedTuple):
    """One inference that ended, or `requests` alike. Never its payload.

    `at` is seconds since the epoch; `organization` is the asker's, `owner` the model's (empty where
    none was found). Sizes are those of the bodies that the container was sent and gave; `reached`
    says whether it may have seen the request at all. `last_at` is the time of the last one where
    it is noted (0: it is not).
    """

    at: float
    principal: str
    organization: str
    owner: str
    model_id: str
    deployment_id: str
    revision: int
    outcome: str
    seconds: float
    request_bytes: int
    answer_bytes: int
    request_id: str
    requests: int = 1
    reached: bool = False
    address: str = ""
    last_at: float = 0.0


class NoteTaker(Protocol):
    """Where the gateway notes."""

    def note(self, note: InferenceNote) -> None:
        """Keep a note."""


class Notes(NoteTaker, Protocol):
    """Where the flusher takes what was noted. `lost` were noted and had no room."""

    lost: int

    def take(self, limit: int) -> list[InferenceNote]:
        """Return the oldest notes, at most so many, and keep them no more."""

    def finish(self) -> None:
        """Have all that is kept ready to be taken, also what more of its kind might come for."""

    def __len__(self) -> int:
        """Return how many notes there are."""


class Tape:
    """Keeps each note, at most `capacity`."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self.lost = 0
        self._capacity = capacity
        self._notes: collections.deque[InferenceNote] = collections.deque()

    def __len__(self) -> int:
        return len(self._notes)

    def note(self, note: InferenceNote) -> None:
        """Keep a note while there is room."""
        if len(self._notes) < self._capacity:
            self._notes.append(note)
        else:
            self.lost += 1

    def take(self, limit: int) -> list[InferenceNote]:
        """Return the oldest notes, at most so many, and keep them no more."""
        return [self._notes.popleft() for _ in range(min(limit, len(self._notes)))]

    def finish(self) -> None:
        """Have all ready to be taken: it always is."""


class Tally:
    """Adds up notes of the same asker, model, revision and outcome; at most `capacity` sums.

    A sum has an address only where all that it counts came from there.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self.lost = 0
        self._capacity = capacity
        self._sums: dict[tuple[object, ...], InferenceNote] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def note(self, note: InferenceNote) -> None:
        """Add a note to the sum of those like it. A sum has the time of its first note."""
        key = note[1:8]
        found = self._sums.get(key)
        if found is not None:
            self._sums[key] = found._replace(
                seconds=found.seconds + note.seconds,
                request_bytes=found.request_bytes + note.request_bytes,
                answer_bytes=found.answer_bytes + note.answer_bytes,
                requests=found.requests + note.requests,
                address=note.address if note.address == found.address else "",
            )
        elif len(self._sums) < self._capacity:
            self._sums[key] = note._replace(request_id="")
        else:
            self.lost += note.requests

    def take(self, limit: int) -> list[InferenceNote]:
        """Return the oldest sums, at most so many, and begin them anew."""
        keys = list(itertools.islice(self._sums, limit))
        return [self._sums.pop(key) for key in keys]

    def finish(self) -> None:
        """Have all ready to be taken: it always is."""
