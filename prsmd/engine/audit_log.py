"""A chained log where it is stored, and the walk along it that finds what is not as it was written.

Works in slices of a few milliseconds and gives the loop away in between. Signs and writes nothing.
"""

import asyncio
import dataclasses
from collections.abc import Sequence

from prsmd.core.chain import Head, Walk
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import AuditRecord
from prsmd.store import attestations, audit
from prsmd.store.db import Database

_SLICE = 100  # records hashed in one go: one or two milliseconds of the loop


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """One chained log: its name, the file and tables that it is in, how long it is kept."""

    name: str
    database: Database
    keep_seconds: float
    keep_bytes: int
    table: audit.Table = "audit"


async def refuse_broken(audited: AuditLog, start: Head, last: Head) -> int:
    """Return the bytes of the records from `start` to `last`.

    PrsmdError unless they are as they were written.
    """
    walk = Walk(audited.name, start)
    while walk.at.sequence < last.sequence:
        count = min(_SLICE, last.sequence - walk.at.sequence)
        async with audited.database.read() as tx:
            records = await audit.after(tx, walk.at.sequence, count, table=audited.table)
        _take(walk, records)
        if not records:
            raise PrsmdError(f"record {walk.at.sequence + 1} is missing")
        await asyncio.sleep(0)
    if walk.at != last:
        raise PrsmdError(f"record {last.sequence} was altered")
    return walk.size


async def walk_to_end(audited: AuditLog, walk: Walk) -> attestations.Chain:
    """Walk on to the end of the log; return what its chain notes there.

    PrsmdError unless the records are as they were written, and end where the chain does.
    """
    more = True
    while more:
        async with audited.database.read() as tx:
            chain = await attestations.chain(tx, audited.table)
            records = await audit.after(tx, walk.at.sequence, _SLICE, table=audited.table)
        _take(walk, records)
        more = len(records) == _SLICE
        await asyncio.sleep(0)
    if walk.at != chain.head:
        raise PrsmdError(f"the log ends at {walk.at.sequence}, where its note of the end differs")
    return chain


def _take(walk: Walk, records: Sequence[AuditRecord]) -> None:
    """Go on to the records. PrsmdError at the first that is not as it was written."""
    for record in records:
        problem = walk.take(record)
        if problem is not None:
            raise PrsmdError(problem.message)
