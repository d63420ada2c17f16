"""Remembered answers: what the first request with an idempotency key was told.

Written in the transaction of the mutation that it answers, so that one is there with the other.
One is there until it is pruned, whatever the wall clock says: one that was set makes none older.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Mapping

from pydantic import TypeAdapter

from prsmd.domain.errors import ConflictError

from .connection import Tx
from .decoding import decodes
from .rows import change, one

_HEADERS = TypeAdapter(dict[str, str])
KEPT_SECONDS = 24 * 3600.0
_ROW_BYTES = 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """One answer. `fingerprint` names the request that it was given to; `body` is its text.

    `grounds` is what the principal might do then, in the words of who stores it. `organization` is
    whom its bytes count for.
    """

    principal: str
    key: str
    fingerprint: str
    status: int
    body: str
    created_at: float
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    grounds: str = ""
    organization: str = ""

    @property
    def size_bytes(self) -> int:
        """What it counts for: its texts and its row. The triggers of the table count the same."""
        return _ROW_BYTES + len(self.body.encode()) + len(self.grounds.encode())


class AlreadyRememberedError(ConflictError):
    """Another request with this key came first; `remembered` is what it was told."""

    def __init__(self, remembered: Remembered) -> None:
        super().__init__("A request with this idempotency key came first. Nothing was changed.")
        self.remembered = remembered


async def add(tx: Tx, remembered: Remembered) -> None:
    """Store an answer.

    Raises:
        AlreadyRememberedError: the principal has an answer under this key.
    """
    stored = await find(tx, remembered.principal, remembered.key)
    if stored is not None:
        raise AlreadyRememberedError(stored)
    await change(
        tx,
        "INSERT INTO remembered_answers "
        "(principal, key, fingerprint, status, headers, body, created_at, grounds, organization) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            remembered.principal,
            remembered.key,
            remembered.fingerprint,
            remembered.status,
            json.dumps(dict(remembered.headers)),
            remembered.body,
            remembered.created_at,
            remembered.grounds,
            remembered.organization,
        ),
    )


async def find(tx: Tx, principal: str, key: str) -> Remembered | None:
    """Return the principal's answer under this key."""
    row = await one(
        tx, "SELECT * FROM remembered_answers WHERE principal = ? AND key = ?", (principal, key)
    )
    return None if row is None else _from_row(row)


async def prune(tx: Tx, before: float) -> int:
    """Forget the answers that were stored before `before`; return how many went.

    Those go too that a clock stored which was far ahead then: they would be kept for as long.
    """
    query = "DELETE FROM remembered_answers WHERE created_at < ? OR created_at > ?"
    return await change(tx, query, (before, before + 2 * KEPT_SECONDS))


@decodes("remembered_answers")
def _from_row(row: sqlite3.Row) -> Remembered:
    return Remembered(
        principal=row["principal"],
        key=row["key"],
        fingerprint=row["fingerprint"],
        status=row["status"],
        body=row["body"],
        created_at=row["created_at"],
        headers=_HEADERS.validate_python(json.loads(row["headers"]), strict=True),
        grounds=row["grounds"],
        organization=row["organization"],
    )
