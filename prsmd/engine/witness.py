"""Writes the audit of inferences: notes of the gateway become records of the second log.

Each batch is one transaction. What is lost for lack of room is on record as a number.
"""

import logging
import time
from collections.abc import Callable

from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import AuditRecord, own_record
from prsmd.gateway.tape import InferenceNote, Notes
from prsmd.store import audit
from prsmd.store.db import Database

log = logging.getLogger(__name__)
ACTION = "models.infer"
_BATCH = 64  # records hashed in one go: one or two milliseconds of the loop


class Witness:
    """Flushes notes into the log. `due_seconds` is how old a sum is at most (0: at once)."""

    name = "the audit of inferences"

    def __init__(
        self,
        notes: Notes,
        database: Database,
        due_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._notes = notes
        self._database = database
        self._due = due_seconds
        self._clock = clock
        self._flushed_at = clock()
        self._said_lost = 0
        self._kept: list[AuditRecord] = []  # what could not be written; the tape fills meanwhile

    async def flush(self, *, everything: bool) -> None:
        """Write what was noted. PrsmdError: the batch is kept for the next time."""
        if not everything and abs(self._clock() - self._flushed_at) < self._due:
            return
        self._flushed_at = self._clock()
        if everything:
            self._notes.finish()
        while batch := self._next_batch():
            self._kept = batch
            await self._write(batch)
            self._kept = []

    def _next_batch(self) -> list[AuditRecord]:
        if self._kept:
            return self._kept
        batch = [_record(note) for note in self._notes.take(_BATCH)]
        lost = self._notes.lost - self._said_lost
        if lost > 0:
            self._said_lost += lost
            batch.append(self._lost(lost))
            log.warning("%d inferences came too fast for the audit", lost)
        return batch

    async def _write(self, batch: list[AuditRecord]) -> None:
        try:
            await self._database.write(lambda tx: audit.append_all(tx, batch))
        except PrsmdError:
            raise
        except BaseException:
            # A cancelled caller only stops waiting: the writer carries it out all the same.
            self._kept = []
            raise

    def _lost(self, count: int) -> AuditRecord:
        details = {"requests": count}
        return own_record(self._clock(), "", "audit.lost", "audit:inferences", details, "lost")


def _record(note: InferenceNote) -> AuditRecord:
    details: dict[str, object] = {
        "seconds": round(note.seconds, 6),
        "request_bytes": note.request_bytes,
        "answer_bytes": note.answer_bytes,
    }
    if note.deployment_id:
        details |= {
            "owner": note.owner,
            "deployment_id": note.deployment_id,
            "revision": note.revision,
        }
    if note.requests != 1:
        details["requests"] = note.requests
    if note.last_at:
        details |= {"first_at": note.at, "last_at": note.last_at}
    return AuditRecord(
        at=note.at,
        principal=note.principal,
        organization=note.organization,
        action=ACTION,
        subject=note.model_id,
        outcome=note.outcome,
        request_id=note.request_id,
        details=details,
        address=note.address,
    )
