"""Rollouts: how each deployment went, and goes, from one revision to another.

A rollout is stored as one value; columns repeat what is looked up or must hold across rows. At most
one rollout of a deployment is under way: end it before the next one is added.
"""

import dataclasses
import sqlite3

from pydantic import TypeAdapter

from prsmd.domain.errors import ConflictError
from prsmd.domain.rollout import Rollout
from prsmd.domain.truncation import MOST_TAIL_BYTES, truncated, truncated_tail

from .connection import Tx
from .decoding import decodes
from .rows import change, many, one

_ROLLOUT = TypeAdapter(Rollout)


async def add(tx: Tx, rollout: Rollout) -> None:
    """Store a new rollout between two revisions that are stored.

    Raises:
        ConflictError: the number is taken, or another rollout of the deployment is under way.
        sqlite3.IntegrityError: there is no such deployment or revision.
    """
    try:
        await change(
            tx,
            "INSERT INTO rollouts (deployment_id, number, from_revision, to_revision, phase, "
            "value) VALUES (?, ?, ?, ?, ?, ?)",
            (
                rollout.deployment_id,
                rollout.number,
                rollout.from_revision,
                rollout.to_revision,
                rollout.phase.value,
                _encode(rollout),
            ),
        )
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
            raise
        raise ConflictError(
            f"Rollout {rollout.number} cannot begin: another one is under way or has its number."
        ) from error


async def get(tx: Tx, deployment_id: str, number: int) -> Rollout | None:
    """Return one rollout, or None."""
    row = await one(
        tx,
        "SELECT value FROM rollouts WHERE deployment_id = ? AND number = ?",
        (deployment_id, number),
    )
    return None if row is None else _decode(row)


async def latest(tx: Tx, deployment_id: str) -> Rollout | None:
    """Return a deployment's newest rollout, under way or ended, or None."""
    newest = await list_for(tx, deployment_id, 1)
    return newest[0] if newest else None


async def list_for(tx: Tx, deployment_id: str, limit: int = 20) -> list[Rollout]:
    """Return a deployment's newest rollouts, newest first."""
    rows = await many(
        tx,
        "SELECT value FROM rollouts WHERE deployment_id = ? ORDER BY number DESC LIMIT ?",
        (deployment_id, limit),
    )
    return [_decode(row) for row in rows]


async def next_number(tx: Tx, deployment_id: str) -> int:
    """Return the number that the deployment's next rollout gets; the first is 1."""
    [[number]] = await many(
        tx,
        "SELECT coalesce(max(number), 0) + 1 FROM rollouts WHERE deployment_id = ?",
        (deployment_id,),
    )
    return int(number)


async def replace(tx: Tx, before: Rollout, after: Rollout) -> bool:
    """Write `after` in the place of `before` if that is what is stored.

    Return False, changing nothing, when the rollout has changed since `before` was read or is gone.
    """
    if await get(tx, before.deployment_id, before.number) != before:
        return False
    await change(
        tx,
        "UPDATE rollouts SET phase = ?, value = ? WHERE deployment_id = ? AND number = ?",
        (after.phase.value, _encode(after), before.deployment_id, before.number),
    )
    return True


async def bound_words(tx: Tx) -> None:
    """Bound the words and log lines that an older release stored whole; part of migration 17."""
    large = await many(
        tx,
        "SELECT deployment_id, number FROM rollouts WHERE length(value) > ?",
        (MOST_TAIL_BYTES,),
    )
    for deployment_id, number in large:
        rollout = await get(tx, deployment_id, number)
        if rollout is not None:
            await change(
                tx,
                "UPDATE rollouts SET value = ? WHERE deployment_id = ? AND number = ?",
                (_encode(rollout), deployment_id, number),
            )


def _encode(rollout: Rollout) -> str:
    bounded = dataclasses.replace(
        rollout,
        trouble=None if rollout.trouble is None else truncated(rollout.trouble),
        outcome=truncated(rollout.outcome),
        evidence=truncated_tail(rollout.evidence),
    )
    return _ROLLOUT.dump_json(bounded).decode()


@decodes("rollouts")
def _decode(row: sqlite3.Row) -> Rollout:
    return _ROLLOUT.validate_json(row["value"])
