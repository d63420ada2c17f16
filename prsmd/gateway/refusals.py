"""Inferences that reached no container: the first of a kind are noted whole, the rest in sums.

So a caller that is denied or limited a thousand times a second does not push others' inferences out
of the audit.
"""

import time
from collections.abc import Callable

from prsmd.core.coalesce import Coalescer, Shares, Sum

from .tape import InferenceNote, Notes


class Refusals:
    """Notes on their way to the tape. `lost` and the length are those of all that is kept."""

    def __init__(
        self,
        notes: Notes,
        shares: Shares | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notes = notes
        self.lost = 0
        self._monotonic = monotonic
        self._refused: Coalescer[InferenceNote] = Coalescer(shares or Shares(each=20))

    def __len__(self) -> int:
        return len(self._notes) + len(self._refused)

    def note(self, note: InferenceNote) -> None:
        """Keep a note, or count it."""
        if not note.reached:
            kind = (note.outcome, note.deployment_id)
            if not self._refused.take(note.principal, kind, note, note.at, self._monotonic()):
                return
        self._note(note)

    def take(self, limit: int) -> list[InferenceNote]:
        """Return the oldest notes, at most so many, with the sums that are due behind them."""
        for each in self._refused.due(self._monotonic()):
            self._note(_note_of(each))
        return self._notes.take(limit)

    def finish(self) -> None:
        """Have all sums on the tape: nothing more comes."""
        for each in self._refused.due(self._monotonic(), everything=True):
            self._note(_note_of(each))

    def _note(self, note: InferenceNote) -> None:
        self._notes.note(note)
        self.lost = self._notes.lost


def _note_of(refused: Sum[InferenceNote]) -> InferenceNote:
    note = refused.item._replace(
        at=refused.first_at,
        last_at=refused.last_at,
        requests=refused.count,
        seconds=0.0,
        request_id="",
    )
    if refused.kind is None:
        note = note._replace(owner="", model_id="", deployment_id="", revision=0, outcome="refused")
    if refused.caller is None:
        note = note._replace(principal="prsmd", organization="", address="")
    return note
