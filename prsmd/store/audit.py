"""The audit log: written in the transaction of the mutation that it records, never changed."""

import json
import sqlite3

from prsmd.domain.events import AuditRecord

from .connection import Tx
from .rows import change, many


async def append(tx: Tx, record: AuditRecord) -> None:
    """Store a record. Its details must be what JSON can hold."""
    await change(
        tx,
        "INSERT INTO audit (at, principal, organization, action, subject, outcome, request_id, "
        "details) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.at,
            record.principal,
            record.organization,
            record.action,
            record.subject,
            record.outcome,
            record.request_id,
            json.dumps(dict(record.details), allow_nan=False),
        ),
    )


async def page(
    tx: Tx, organization: str | None, limit: int, offset: int
) -> tuple[list[AuditRecord], int]:
    """Return an organization's records (None: all), newest first, and how many there are."""
    of = {"organization": organization, "limit": limit, "offset": offset}
    rows = await many(
        tx,
        "SELECT * FROM audit WHERE :organization IS NULL OR organization = :organization "
        "ORDER BY sequence DESC LIMIT :limit OFFSET :offset",
        of,
    )
    [[total]] = await many(
        tx,
        "SELECT count(*) FROM audit WHERE :organization IS NULL OR organization = :organization",
        of,
    )
    return [_from_row(row) for row in rows], total


def _from_row(row: sqlite3.Row) -> AuditRecord:
    return AuditRecord(
        at=row["at"],
        principal=row["principal"],
        organization=row["organization"],
        action=row["action"],
        subject=row["subject"],
        outcome=row["outcome"],
        request_id=row["request_id"],
        details=json.loads(row["details"]),
    )
