"""How the nouns' files talk to SQLite: one row, many rows, a change; and JSON columns."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .connection import Tx

Parameters = Sequence[Any] | Mapping[str, Any]


def of(organization: str | None) -> str:
    """Return the condition for an organization's rows (None: all), which an index can serve."""
    return "" if organization is None else "WHERE organization = :organization"


async def one(tx: Tx, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
    """Return the first row, or None."""
    rows = await many(tx, sql, parameters)
    return rows[0] if rows else None


async def many(tx: Tx, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
    """Return all rows."""
    return list(await tx.execute_fetchall(sql, parameters))


async def change(tx: Tx, sql: str, parameters: Parameters = ()) -> int:
    """Carry out an INSERT, UPDATE or DELETE and return how many rows it touched."""
    async with tx.execute(sql, parameters) as cursor:
        return cursor.rowcount
