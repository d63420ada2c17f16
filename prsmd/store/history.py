"""How long pulls and starts took on this host, from which the next one is estimated."""

import sqlite3
import statistics
from collections.abc import Sequence
from typing import Literal

from .connection import Tx
from .rows import change, many

Phase = Literal["pull", "start"]
MOST_OF_ONE = 5000  # measurements of one organization
WINDOW = 20  # how many of the newest measurements an estimate rests on


async def record(
    tx: Tx, organization: str, image: str, phase: Phase, seconds: float, at: float
) -> None:
    """Store how many seconds one pull or start of `image` took for an organization."""
    await change(
        tx,
        "INSERT INTO timings (organization, image, phase, seconds, at) VALUES (?, ?, ?, ?, ?)",
        (organization, image, phase, seconds, at),
    )


async def typical(tx: Tx, organization: str, image: str, phase: Phase) -> float | None:
    """Return the median seconds of this image's last 20, or None when it was never measured.

    Only what the organization ran itself: others learn nothing from that of it.
    """
    return _median(
        await many(
            tx,
            "SELECT seconds FROM timings WHERE organization = ? AND image = ? AND phase = ? "
            "ORDER BY sequence DESC LIMIT ?",
            (organization, image, phase, WINDOW),
        )
    )


async def typical_any(tx: Tx, phase: Phase) -> float | None:
    """Return the median seconds of the last 20 of any image on this host, or None."""
    return _median(
        await many(
            tx,
            "SELECT seconds FROM timings WHERE phase = ? ORDER BY sequence DESC LIMIT ?",
            (phase, WINDOW),
        )
    )


async def prune(tx: Tx, keep: int = WINDOW, keep_of_one: int = MOST_OF_ONE) -> int:
    """Forget each image's measurements of a phase but the newest; return how many went.

    Of an organization no more than `keep_of_one` stay: one content can have endlessly many names.
    """
    beyond = await change(
        tx,
        "DELETE FROM timings WHERE sequence IN (SELECT sequence FROM (SELECT sequence, "
        "row_number() OVER (PARTITION BY organization ORDER BY sequence DESC) AS age "
        "FROM timings) WHERE age > ?)",
        (keep_of_one,),
    )
    return beyond + await change(
        tx,
        "DELETE FROM timings WHERE sequence IN (SELECT sequence FROM (SELECT sequence, "
        "row_number() OVER (PARTITION BY organization, image, phase ORDER BY sequence DESC) AS age "
        "FROM timings) WHERE age > ?)",
        (keep,),
    )


def _median(rows: Sequence[sqlite3.Row]) -> float | None:
    return statistics.median(row["seconds"] for row in rows) if rows else None
