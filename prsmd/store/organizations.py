"""Organizations, the removed ones too: a name is never given twice."""

import sqlite3

from prsmd.domain.access import Organization

from .connection import Tx
from .decoding import decodes
from .rows import change, many, one

_INSERT = "INSERT INTO organizations (id, display_name, created_at, created_by) VALUES (?, ?, ?, ?)"
_BELONGINGS = {"members": "id", "roles": "name", "registries": "server", "secrets": "name"}


async def add(tx: Tx, organization: Organization) -> None:
    """Store a new organization.

    Raises:
        sqlite3.IntegrityError: the name is, or was, another's.
    """
    await change(tx, _INSERT, _to_row(organization))


async def ensure(tx: Tx, organization: Organization) -> bool:
    """Store an organization that the configuration names. False: it is known already."""
    return bool(await change(tx, f"{_INSERT} ON CONFLICT (id) DO NOTHING", _to_row(organization)))


async def get(tx: Tx, name: str) -> Organization | None:
    """Return the organization of this name, a removed one too, or None."""
    row = await one(tx, "SELECT * FROM organizations WHERE id = ?", (name,))
    return None if row is None else _from_row(row)


async def list_all(tx: Tx) -> list[Organization]:
    """Return all organizations, removed ones too, by name."""
    rows = await many(tx, "SELECT * FROM organizations ORDER BY id")
    return [_from_row(row) for row in rows]


async def page(tx: Tx, name: str | None, limit: int, offset: int) -> tuple[list[Organization], int]:
    """Return some of the organizations that there are, by name, and how many; or only that one."""
    asked = {"name": name, "limit": limit, "offset": offset}
    rows = await many(
        tx,
        "SELECT * FROM organizations WHERE removed_at IS NULL AND (:name IS NULL OR id = :name) "
        "ORDER BY id LIMIT :limit OFFSET :offset",
        asked,
    )
    [[total]] = await many(
        tx,
        "SELECT count(*) FROM organizations "
        "WHERE removed_at IS NULL AND (:name IS NULL OR id = :name)",
        asked,
    )
    return [_from_row(row) for row in rows], total


async def put(tx: Tx, organization: Organization) -> bool:
    """Store an organization as it is now. False: there is none of that name."""
    return bool(
        await change(
            tx,
            "UPDATE organizations SET display_name = ?, disabled_at = ?, removed_at = ? "
            "WHERE id = ?",
            (
                organization.display_name,
                organization.disabled_at,
                organization.removed_at,
                organization.id,
            ),
        )
    )


async def models_of(tx: Tx, name: str, limit: int) -> tuple[list[str], int]:
    """Return the ids of some of an organization's models, and how many there are."""
    rows = await many(
        tx,
        "SELECT model_id, count(*) OVER () AS total FROM deployments WHERE organization = ? "
        "ORDER BY model_id LIMIT ?",
        (name, limit),
    )
    return [row["model_id"] for row in rows], rows[0]["total"] if rows else 0


async def forget_belongings(tx: Tx, name: str, now: float) -> dict[str, list[str]]:
    """Take away what only an organization that is there can have; return the names of all of it.

    Its keys are revoked; members, roles, logins and secrets are forgotten.
    """
    revoked = await many(
        tx,
        "UPDATE api_keys SET revoked_at = ? WHERE organization = ? AND revoked_at IS NULL "
        "RETURNING id",
        (now, name),
    )
    gone = {"api_keys": sorted(row["id"] for row in revoked)}
    for table, column in _BELONGINGS.items():
        rows = await many(
            tx,
            f"DELETE FROM {table} WHERE organization = ? RETURNING {column} AS name",  # noqa: S608 - listed above
            (name,),
        )
        gone[table] = sorted(row["name"] for row in rows)
    return gone


def _to_row(organization: Organization) -> tuple[object, ...]:
    return (
        organization.id,
        organization.display_name,
        organization.created_at,
        organization.created_by,
    )


@decodes("organizations")
def _from_row(row: sqlite3.Row) -> Organization:
    return Organization(
        id=row["id"],
        display_name=row["display_name"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        disabled_at=row["disabled_at"],
        removed_at=row["removed_at"],
    )
