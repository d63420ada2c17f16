"""Writes the audit of what was denied: the first of a kind as they are, the rest as counts.

So nobody can fill the log by being denied; a count has the first and last time. Whoever could not
even say who they are is on record by the address. Of addresses anybody has many: they have room of
their own, so that they take none from callers who are known.
"""

import dataclasses
import time
from collections.abc import Callable, Hashable, Sequence

from prsmd.core.coalesce import Coalescer, Shares, Sum
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import OWN_PRINCIPAL, AuditRecord
from prsmd.store import audit
from prsmd.store.db import Database

TABLE: audit.Table = "denials"
SEVERAL = "audit.denied"
_BATCH = 64


class Denials:
    """The log of denials. `organization` is the appliance's: it is told of what had no room."""

    name = "the audit of denials"

    def __init__(
        self,
        database: Database,
        organization: str,
        shares: Shares | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.organization = organization
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._denied: Coalescer[AuditRecord] = Coalescer(shares)  # of callers who are known
        self._unproven: Coalescer[AuditRecord] = Coalescer(shares)  # of networks

    async def record(self, record: AuditRecord, network: str | None = None) -> bool:
        """Have a denial on record; tell whether as itself.

        `network`: whose share it counts in where nobody knows who it was; None: its principal's.
        PrsmdError where it cannot be written; then it is counted.
        """
        counts = self._denied if network is None else self._unproven
        who = record.principal if network is None else f"address {network}"
        kind, now = _kind(record), self._monotonic()
        if not counts.take(who, kind, record, record.at, now):
            return False
        try:
            await self._database.write(lambda tx: audit.append(tx, record, TABLE))
        except PrsmdError:
            counts.count(who, kind, record, record.at, now)
            raise
        return True

    async def flush(self, *, everything: bool) -> None:
        """Write the counts that are due. PrsmdError: they are kept for the next time."""
        for counts in (self._denied, self._unproven):
            due = counts.due(self._monotonic(), everything=everything)
            while due:
                batch, due = due[:_BATCH], due[_BATCH:]
                try:
                    await self._write([self._record_of(each) for each in batch])
                except PrsmdError:
                    counts.put_back([*batch, *due])
                    raise

    async def _write(self, records: Sequence[AuditRecord]) -> None:
        await self._database.write(lambda tx: audit.append_all(tx, records, TABLE))

    def _record_of(self, denied: Sum[AuditRecord]) -> AuditRecord:
        """Return the record of a count: of several kinds or callers it names none of them."""
        last = denied.item
        counted = {
            "requests": denied.count,
            "first_at": denied.first_at,
            "last_at": denied.last_at,
        }
        record = dataclasses.replace(
            last, at=self._clock(), request_id="", details={**last.details, **counted}
        )
        if denied.kind is None:
            record = dataclasses.replace(record, action=SEVERAL, subject="", details=counted)
            if denied.caller != last.principal:  # an address that tried keys of several
                record = dataclasses.replace(record, organization=self.organization)
        if denied.caller is None:
            record = dataclasses.replace(
                record, principal=OWN_PRINCIPAL, organization=self.organization, address=""
            )
        return record


def _kind(record: AuditRecord) -> Hashable:
    return record.organization, record.action, str(record.details.get("code", ""))
