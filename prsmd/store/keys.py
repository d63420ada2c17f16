"""API keys: who they stand for and the digest that proves them. The secret is never here."""

import asyncio
import json
import sqlite3
from collections.abc import Mapping

from prsmd.core.networks import canonical
from prsmd.domain.access import ApiKey

from .connection import Tx
from .decoding import decodes, strings
from .rows import change, many, of, one

_AT_ONCE = 5  # keys that are decoded before others get their turn: each may name 100 networks
_COLUMNS = (
    "id",
    "organization",
    "role",
    "name",
    "digest",
    "created_at",
    "created_by",
    "expires_at",
    "revoked_at",
    "rotated_at",
    "previous_digest",
    "previous_until",
    "models",
    "networks",
    "requests_per_minute",
    "requests_per_day",
    "last_used_at",
)
_INSERT = (
    f"INSERT INTO api_keys ({', '.join(_COLUMNS)}) "  # noqa: S608 - the names are those above
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
)
_CHANGEABLE = tuple(name for name in _COLUMNS if name not in {"id", "last_used_at"})
_UPDATE = (
    f"UPDATE api_keys SET {', '.join(f'{name} = :{name}' for name in _CHANGEABLE)} "  # noqa: S608 - as above
    "WHERE id = :id"
)


async def add(tx: Tx, key: ApiKey) -> None:
    """Store a new key.

    Raises:
        sqlite3.IntegrityError: the id is taken.
    """
    await change(tx, _INSERT, _to_row(key))


async def get(tx: Tx, key_id: str, organization: str | None = None) -> ApiKey | None:
    """Return the key of this id, revoked and expired ones too, or None.

    With an organization, only if it is its own.
    """
    row = await one(
        tx,
        "SELECT * FROM api_keys WHERE id = :id "
        "AND (:organization IS NULL OR organization = :organization)",
        {"id": key_id, "organization": organization},
    )
    return None if row is None else _from_row(row)


async def list_for(tx: Tx, organization: str | None) -> list[ApiKey]:
    """Return an organization's keys (None: all), oldest first."""
    rows = await many(
        tx,
        f"SELECT * FROM api_keys {of(organization)} ORDER BY created_at, id",  # noqa: S608 - one of two texts
        {"organization": organization},
    )
    return [_from_row(row) for row in rows]


async def page(
    tx: Tx, organization: str | None, limit: int, offset: int
) -> tuple[list[ApiKey], int]:
    """Return some of an organization's keys (None: of all), oldest first, and how many it has."""
    asked = {"organization": organization, "limit": limit, "offset": offset}
    rows = await many(
        tx,
        f"SELECT * FROM api_keys {of(organization)} "  # noqa: S608 - one of two texts
        "ORDER BY created_at, id LIMIT :limit OFFSET :offset",
        asked,
    )
    [[total]] = await many(tx, f"SELECT count(*) FROM api_keys {of(organization)}", asked)  # noqa: S608 - as above
    found = []
    for number, row in enumerate(rows, start=1):
        found.append(_from_row(row))
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return found, total


async def put(tx: Tx, key: ApiKey) -> bool:
    """Store a key as it is now, when it was last used apart. False: there is no such key."""
    return bool(await change(tx, _UPDATE, _to_row(key)))


async def revoke(tx: Tx, key_id: str, now: float) -> bool:
    """End a key's life. Return False when it is unknown or was revoked before."""
    return bool(
        await change(
            tx,
            "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
            (now, key_id),
        )
    )


async def forget_ended(tx: Tx, organization: str, keep: int, now: float) -> list[str]:
    """Forget an organization's keys that were revoked or expired, but the last `keep`.

    Return the ids of those that went.
    """
    rows = await many(
        tx,
        "DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE organization = ? "
        "AND (revoked_at IS NOT NULL OR expires_at <= ?) "
        "ORDER BY coalesce(revoked_at, expires_at) DESC, id LIMIT -1 OFFSET ?) RETURNING id",
        (organization, now, keep),
    )
    return [row["id"] for row in rows]


async def note_used(tx: Tx, used: Mapping[str, float]) -> None:
    """Store when keys, by id, were last used; never an earlier time than is there."""
    for key_id, at in used.items():
        await change(
            tx,
            "UPDATE api_keys SET last_used_at = max(:at, coalesce(last_used_at, :at)) "
            "WHERE id = :id",
            {"id": key_id, "at": at},
        )


def _to_row(key: ApiKey) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(key, name) for name in _COLUMNS}
    for name in ("models", "networks"):
        value = getattr(key, name)
        row[name] = None if value is None else json.dumps(list(value))
    return row


@decodes("api_keys")
def _from_row(row: sqlite3.Row) -> ApiKey:
    values = {name: row[name] for name in _COLUMNS}
    for name, decode in (("models", strings), ("networks", _networks)):
        text = row[name]
        values[name] = None if text is None else decode(text)
    return ApiKey(**values)


def _networks(text: str) -> tuple[str, ...]:
    return tuple(map(canonical, strings(text)))
