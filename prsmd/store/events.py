"""Events: what happened to each deployment, numbered in the order in which it was stored."""

import dataclasses
import json
import sqlite3
from collections.abc import Iterable

from prsmd.domain.events import Event, Severity
from prsmd.domain.truncation import truncated

from .connection import Tx
from .decoding import decodes
from .rows import change, many


async def append(tx: Tx, event: Event) -> Event:
    """Store the event and return it with its sequence number, larger than all before it.

    A message beyond 1 KiB is cut.
    """
    event = dataclasses.replace(event, message=truncated(event.message))
    [[sequence]] = await many(
        tx,
        "INSERT INTO events (deployment_id, organization, replica_id, reason, message, severity, "
        "at) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING sequence",
        (
            event.deployment_id,
            event.organization,
            event.replica_id,
            event.reason,
            event.message,
            event.severity.value,
            event.at,
        ),
    )
    return dataclasses.replace(event, sequence=sequence)


async def list_for(tx: Tx, deployment_id: str, after: int = 0, limit: int = 100) -> list[Event]:
    """Return the first `limit` events with a sequence above `after`, oldest first."""
    rows = await many(
        tx,
        "SELECT * FROM events WHERE deployment_id = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        (deployment_id, after, limit),
    )
    return [_from_row(row) for row in rows]


async def latest(
    tx: Tx, deployment_id: str, limit: int = 100, reasons: Iterable[str] | None = None
) -> list[Event]:
    """Return the last `limit` events, oldest first; `reasons`: only those for one of them."""
    wanted = None if reasons is None else json.dumps(list(reasons))
    rows = await many(
        tx,
        "SELECT * FROM events WHERE deployment_id = :deployment AND (:reasons IS NULL OR "
        "reason IN (SELECT value FROM json_each(:reasons))) ORDER BY sequence DESC LIMIT :limit",
        {"deployment": deployment_id, "reasons": wanted, "limit": limit},
    )
    return [_from_row(row) for row in reversed(rows)]


async def prune(tx: Tx, keep: int) -> int:
    """Forget each deployment's events but the newest `keep`; return how many went."""
    return await change(
        tx,
        "DELETE FROM events WHERE sequence IN (SELECT sequence FROM (SELECT sequence, "
        "row_number() OVER (PARTITION BY deployment_id ORDER BY sequence DESC) AS age "
        "FROM events) WHERE age > ?)",
        (keep,),
    )


@decodes("events")
def _from_row(row: sqlite3.Row) -> Event:
    return Event(
        deployment_id=row["deployment_id"],
        organization=row["organization"],
        reason=row["reason"],
        message=row["message"],
        at=row["at"],
        severity=Severity(row["severity"]),
        replica_id=row["replica_id"],
        sequence=row["sequence"],
    )
