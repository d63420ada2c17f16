"""Chains the audit records of a state from before the chain; part of migration 4."""

import json
import sqlite3

from prsmd.domain.events import AuditRecord

from . import audit
from .connection import Tx
from .decoding import decodes
from .rows import many

_AT_ONCE = 500


async def chain_existing(tx: Tx) -> None:
    """Move the records of audit_before_chain into the chain, in their order, and drop it."""
    last = 0
    while rows := await many(
        tx,
        "SELECT * FROM audit_before_chain WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (last, _AT_ONCE),
    ):
        last = rows[-1]["sequence"]
        await audit.append_all(tx, [_from_row(row) for row in rows], addresses=False)
    await tx.execute_fetchall("DROP TABLE audit_before_chain")


@decodes("audit_before_chain")
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
