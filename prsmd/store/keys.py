"""API keys: who they stand for and the digest that proves them. The secret is never here."""

import sqlite3

from prsmd.domain.access import ApiKey

from .connection import Tx
from .rows import change, many, one


async def add(tx: Tx, key: ApiKey) -> None:
    """Store a new key.

    Raises:
        sqlite3.IntegrityError: the id is taken.
    """
    await change(
        tx,
        "INSERT INTO api_keys (id, organization, role, name, digest, created_at, expires_at, "
        "revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key.id,
            key.organization,
            key.role,
            key.name,
            key.digest,
            key.created_at,
            key.expires_at,
            key.revoked_at,
        ),
    )


async def get(tx: Tx, key_id: str) -> ApiKey | None:
    """Return the key of this id, revoked and expired ones too, or None."""
    row = await one(tx, "SELECT * FROM api_keys WHERE id = ?", (key_id,))
    return None if row is None else _from_row(row)


async def list_for(tx: Tx, organization: str | None) -> list[ApiKey]:
    """Return an organization's keys (None: all), oldest first."""
    rows = await many(
        tx,
        "SELECT * FROM api_keys WHERE :organization IS NULL OR organization = :organization "
        "ORDER BY created_at, id",
        {"organization": organization},
    )
    return [_from_row(row) for row in rows]


async def revoke(tx: Tx, key_id: str, now: float) -> bool:
    """End a key's life. Return False when it is unknown or was revoked before."""
    return bool(
        await change(
            tx,
            "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
            (now, key_id),
        )
    )


def _from_row(row: sqlite3.Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        organization=row["organization"],
        role=row["role"],
        name=row["name"],
        digest=row["digest"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )
