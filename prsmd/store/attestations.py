"""What vouches for an audit log: where its chain stands and begins, and the signed checkpoints.

Signs and checks nothing itself.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from prsmd.core.chain import CHECKPOINT, Head

from .audit import Table
from .connection import Tx
from .rows import change, many, one, sole

_PLACE = (int, str, float, str, str)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A log's chain. `size` is the bytes of its records; `anchor` the signed place of its start."""

    log: str
    head: Head
    size: int
    anchor: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed place of the chain. `key` is the fingerprint of the key that signed."""

    sequence: int
    key: str
    hash: str
    at: float
    signature: str

    @classmethod
    def of(cls, statement: Mapping[str, Any]) -> "Checkpoint":
        """Return what a statement says. KeyError, TypeError or ValueError where it says it not."""
        return cls(
            sequence=int(statement["sequence"]),
            key=str(statement["key"]),
            hash=str(statement["hash"]),
            at=float(statement["at"]),
            signature=str(statement["signature"]),
        )

    def statement(self, log: str, instance: str) -> dict[str, Any]:
        """Return what was signed, and the signature."""
        return {
            "kind": CHECKPOINT,
            "log": log,
            "instance": instance,
            "sequence": self.sequence,
            "hash": self.hash,
            "at": self.at,
            "key": self.key,
            "signature": self.signature,
        }


async def chain(tx: Tx, table: Table = "audit") -> Chain:
    """Return where the log stands."""
    row = await sole(tx, f"{table}_chain")
    return Chain(
        log=row["log"],
        head=Head(row["sequence"], row["hash"]),
        size=row["size"],
        anchor=None if row["anchor"] is None else _anchor(row["anchor"]),
    )


async def hash_of(tx: Tx, sequence: int, table: Table = "audit") -> str | None:
    """Return the stored hash of a record; None: it is not there."""
    row = await one(tx, f"SELECT hash FROM {table} WHERE sequence = ?", (sequence,))  # noqa: S608 - as above
    return None if row is None else str(row["hash"])


async def add_checkpoint(tx: Tx, checkpoint: Checkpoint, table: Table = "audit") -> None:
    """Store a checkpoint; one of the same record and key stays as it is."""
    await change(
        tx,
        f"INSERT INTO {table}_checkpoints (sequence, key, hash, at, signature) "  # noqa: S608 - as above
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        dataclasses.astuple(checkpoint),
    )


async def checkpoints(tx: Tx, after: int, through: int, table: Table = "audit") -> list[Checkpoint]:
    """Return the checkpoints of the records after one and up to another, in order."""
    rows = await many(
        tx,
        f"SELECT * FROM {table}_checkpoints WHERE sequence > ? AND sequence <= ? "  # noqa: S608 - as above
        "ORDER BY sequence, at",
        (after, through),
    )
    return [_from_row(row) for row in rows]


async def next_checkpoints(
    tx: Tx, sequence: int, limit: int, table: Table = "audit"
) -> list[Checkpoint]:
    """Return the first `limit` checkpoints of this record and those after it, in order."""
    rows = await many(
        tx,
        f"SELECT * FROM {table}_checkpoints WHERE sequence >= ? "  # noqa: S608 - as above
        "ORDER BY sequence, at LIMIT ?",
        (sequence, limit),
    )
    return [_from_row(row) for row in rows]


async def last_checkpoint(
    tx: Tx, before: float | None = None, table: Table = "audit"
) -> Checkpoint | None:
    """Return the newest checkpoint, or the newest that was made before a moment."""
    row = await one(
        tx,
        f"SELECT * FROM {table}_checkpoints WHERE :before IS NULL OR at < :before "  # noqa: S608 - as above
        "ORDER BY sequence DESC, at DESC LIMIT 1",
        {"before": before},
    )
    return None if row is None else _from_row(row)


async def last_checkpoint_by(tx: Tx, key: str, table: Table = "audit") -> Checkpoint | None:
    """Return the newest checkpoint that a key signed."""
    row = await one(
        tx,
        f"SELECT * FROM {table}_checkpoints WHERE key = ? ORDER BY sequence DESC LIMIT 1",  # noqa: S608 - as above
        (key,),
    )
    return None if row is None else _from_row(row)


async def prunable(
    tx: Tx, before: float, excess: int, limit: int, table: Table = "audit"
) -> Head | None:
    """Return the last record that may go, within the `limit` oldest; None: all may stay.

    What was recorded before `before` may go, and the oldest until `excess` bytes are gone.
    """
    last = None
    for row in await many(
        tx,
        f"SELECT sequence, hash, at, size FROM {table} ORDER BY sequence LIMIT ?",  # noqa: S608 - as above
        (limit,),
    ):
        if row["at"] >= before and excess <= 0:
            break
        excess -= row["size"]
        last = Head(row["sequence"], row["hash"])
    return last


async def prune(tx: Tx, anchor: Mapping[str, Any], table: Table = "audit") -> int:
    """Forget the records up to the anchor's; the log begins there from now on. Return how many.

    The anchor is a signed statement of the last record that goes.
    """
    sequence = int(anchor["sequence"])
    [[size]] = await many(
        tx,
        f"SELECT coalesce(sum(size), 0) FROM {table} WHERE sequence <= ?",  # noqa: S608 - as above
        (sequence,),
    )
    gone = await change(tx, f"DELETE FROM {table} WHERE sequence <= ?", (sequence,))  # noqa: S608 - as above
    await change(tx, f"DELETE FROM {table}_checkpoints WHERE sequence <= ?", (sequence,))  # noqa: S608 - as above
    await change(
        tx,
        f"UPDATE {table}_chain SET size = size - ?, anchor = ?",  # noqa: S608 - as above
        (size, json.dumps(dict(anchor), sort_keys=True)),
    )
    return gone


def _anchor(text: str) -> Mapping[str, Any]:
    """Return a stored anchor; of one that somebody damaged, what nobody can have signed."""
    names = ("sequence", "hash", "at", "key", "signature")
    try:
        found = json.loads(text)
        if tuple(type(found[name]) for name in names) == _PLACE:
            return dict(found)
    except (ValueError, RecursionError, KeyError, TypeError):
        pass
    nowhere = Head()
    return {
        "sequence": nowhere.sequence,
        "hash": nowhere.hash,
        "at": 0.0,
        "key": "",
        "signature": "",
    }


def _from_row(row: sqlite3.Row) -> Checkpoint:
    return Checkpoint(
        sequence=row["sequence"],
        key=row["key"],
        hash=row["hash"],
        at=row["at"],
        signature=row["signature"],
    )
