"""How the nouns' files talk to SQLite: one row, many rows, a change; and JSON columns."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from .connection import Tx
from .errors import DamagedRowError

Parameters = Sequence[Any] | Mapping[str, Any]


def of(organization: str | None) -> str:
    """Return the condition for an organization's rows (None: all), which an index can serve."""
    return "" if organization is None else "WHERE organization = :organization"


async def one(tx: Tx, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
    """Return the first row, or None."""
    rows = await many(tx, sql, parameters)
    return rows[0] if rows else None


async def sole(tx: Tx, table: str) -> sqlite3.Row:
    """Return the one row that a table always has.

    Raises:
        DamagedRowError: it has none, or more.
    """
    rows = await many(tx, f"SELECT * FROM {table} LIMIT 2")  # noqa: S608 - a name from the code
    if len(rows) != 1:
        raise DamagedRowError(f"{table} does not have its one row")
    return rows[0]


async def many(tx: Tx, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
    """Return all rows."""
    return list(await tx.execute_fetchall(sql, parameters))


async def change(tx: Tx, sql: str, parameters: Parameters = ()) -> int:
    """Carry out an INSERT, UPDATE or DELETE and return how many rows it touched."""
    async with tx.execute(sql, parameters) as cursor:
        return cursor.rowcount
