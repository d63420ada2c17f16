"""An audit log: written in the transaction of what it records, each record chained to the last.

The control state has one of the changes and one of the denials, the usage file one of the
inferences; all look alike. A log's tables are named by its `table`, `audit` or `denials`.
"""

import json
import secrets
import sqlite3
from collections.abc import Sequence
from typing import Any, Literal

from prsmd.core.apikey import without_secrets
from prsmd.core.chain import Head, canonical, content_of, digest_of, link
from prsmd.domain.events import AuditFilter, AuditRecord

from .audit_query import COUNTED, count, select
from .connection import Tx
from .rows import change, many, sole

_SALT_BYTES = 16
Table = Literal["audit", "denials"]
_COLUMNS = (
    "sequence", "at", "principal", "organization", "action", "subject", "outcome", "request_id",
    "details", "salt", "hash", "size", "address",
)  # fmt: skip


async def append(tx: Tx, record: AuditRecord, table: Table = "audit") -> None:
    """Store a record. Its details must be what JSON can hold."""
    await append_all(tx, (record,), table)


async def append_all(
    tx: Tx, records: Sequence[AuditRecord], table: Table = "audit", *, addresses: bool = True
) -> None:
    """Store records in this order. `addresses` False: the table has no column for them yet."""
    row = await sole(tx, f"{table}_chain")
    rows, at, size = [], Head(row["sequence"], row["hash"]), 0
    names = _COLUMNS if addresses else _COLUMNS[:-1]
    for record in records:
        chained = _chained(row["log"], at, record)
        rows.append(tuple(chained[name] for name in names))
        at, size = Head(at.sequence + 1, chained["hash"]), size + chained["size"]
    marks = ", ".join("?" * len(names))
    await tx.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)  # noqa: S608 - names from this file
    await change(
        tx,
        f"UPDATE {table}_chain SET sequence = ?, hash = ?, size = size + ?",  # noqa: S608 - as above
        (at.sequence, at.hash, size),
    )


async def page(
    tx: Tx, wanted: AuditFilter | None, limit: int, offset: int, table: Table = "audit"
) -> tuple[list[AuditRecord], int]:
    """Return records, newest first, and how many there are: exactly up to `COUNTED` beyond them."""
    found = await select(tx, wanted, table)
    rows = await many(
        tx,
        f"SELECT * FROM {found.source} {found.where} "  # noqa: S608 - names from this file
        "ORDER BY sequence DESC LIMIT ? OFFSET ?",
        (*found.values, limit, offset),
    )
    total = await count(tx, found, offset + COUNTED)
    return [_from_row(row) for row in rows], total


async def after(
    tx: Tx,
    sequence: int,
    limit: int,
    wanted: AuditFilter | None = None,
    table: Table = "audit",
) -> list[AuditRecord]:
    """Return the first `limit` records after this one, oldest first."""
    found = await select(tx, wanted, table)
    both = f"{found.where} AND sequence > ?" if found.where else "WHERE sequence > ?"
    rows = await many(
        tx,
        f"SELECT * FROM {found.source} {both} ORDER BY sequence LIMIT ?",  # noqa: S608 - names from this file
        (*found.values, sequence, limit),
    )
    return [_from_row(row) for row in rows]


def _chained(log: str, last: Head, record: AuditRecord) -> dict[str, Any]:
    """Return the row of the record, without the secret of any key, as the next one of the chain."""
    sequence, at = last.sequence + 1, float(record.at)  # as it will be read again
    content = content_of(record)
    content |= {"sequence": sequence, "at": at, "salt": secrets.token_hex(_SALT_BYTES)}
    written = canonical(content).decode()
    kept = without_secrets(written)
    if kept != written:
        content = json.loads(kept)
    text = kept.encode()
    return {
        **content,
        "address": record.address,
        "details": canonical(content["details"]).decode(),
        "hash": link(log, sequence, last.hash, digest_of(text)),
        "size": len(text),
    }


def _from_row(row: sqlite3.Row) -> AuditRecord:
    return AuditRecord(
        sequence=row["sequence"],
        at=row["at"],
        principal=row["principal"],
        organization=row["organization"],
        action=row["action"],
        subject=row["subject"],
        outcome=row["outcome"],
        request_id=row["request_id"],
        details=_details(row["details"]),
        address=row["address"],
        salt=row["salt"],
        hash=row["hash"],
        size=row["size"],
    )


def _details(text: str) -> dict[str, Any]:
    """Return stored details; what is not in the form that was written is shown as it is.

    JSON has many texts for one value, and of a name that is there twice each reader takes another.
    """
    try:
        found = json.loads(text)
        written = isinstance(found, dict) and canonical(found).decode() == text
    except (ValueError, RecursionError):
        written = False
    return found if written else {"unreadable": text}
