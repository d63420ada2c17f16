"""Single values by key: the identity of this instance, and what other parts keep of themselves."""

from prsmd.domain.ids import random_id

from .connection import Tx
from .decoding import decoding
from .errors import DamagedRowError
from .rows import change, one

_INSTANCE = "instance_id"
_COMMITS = "commits"
_ACCEPTED = "accepted"


async def ensure_instance_id(tx: Tx) -> None:
    """Give a new database its identity; keep the one that is there."""
    await change(
        tx,
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
        (_INSTANCE, random_id("instance")),
    )


async def instance_id(tx: Tx) -> str:
    """Return the random identity made when this database was first opened."""
    found = await get(tx, _INSTANCE)
    if found is None:
        raise DamagedRowError("meta.value: the identity of this instance is missing")
    return found


async def commits(tx: Tx) -> int:
    """Return how many commits this database has, of those that were counted."""
    found = await get(tx, _COMMITS)
    with decoding("meta.value"):
        return int(found or 0)


async def count_commit(tx: Tx, commits: int) -> None:
    """Say in the transaction that is open that it is commit number `commits`."""
    await set(tx, _COMMITS, str(commits))


async def note_accepted(tx: Tx, made: int) -> None:
    """Keep that the database is taken as it is, and how many commits were made; until on record."""
    await set(tx, _ACCEPTED, str(made))


async def take_accepted(tx: Tx) -> int | None:
    """Return how many commits were made of a database that was taken as it is, once; else None."""
    made = await get(tx, _ACCEPTED)
    await change(tx, "DELETE FROM meta WHERE key = ?", (_ACCEPTED,))
    with decoding("meta.value"):
        return None if made is None else int(made)


async def get(tx: Tx, key: str) -> str | None:
    """Return the value under `key`, or None."""
    row = await one(tx, "SELECT value FROM meta WHERE key = ?", (key,))
    return None if row is None else str(row["value"])


async def set(tx: Tx, key: str, value: str) -> None:  # noqa: A001 - read as meta.set
    """Keep `value` under `key`."""
    await change(
        tx,
        "INSERT INTO meta (key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
