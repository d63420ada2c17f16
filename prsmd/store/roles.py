"""The organizations' own roles. The built-in ones are in the code and not here."""

import json
import sqlite3

from prsmd.domain.access import Permission, Role

from .connection import Tx
from .decoding import decodes, strings
from .rows import change, many, of, one


async def put(tx: Tx, role: Role) -> None:
    """Store a role, in place of the one of its name if there is one."""
    await change(
        tx,
        "INSERT INTO roles (organization, name, description, permissions, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (organization, name) DO UPDATE SET "
        "description = excluded.description, permissions = excluded.permissions, "
        "updated_at = excluded.updated_at",
        (
            role.organization,
            role.name,
            role.description,
            json.dumps(sorted(role.permissions)),
            role.created_at,
            role.updated_at,
        ),
    )


async def get(tx: Tx, organization: str, name: str) -> Role | None:
    """Return an organization's own role, or None."""
    row = await one(
        tx, "SELECT * FROM roles WHERE organization = ? AND name = ?", (organization, name)
    )
    return None if row is None else _from_row(row)


async def list_all(tx: Tx) -> list[Role]:
    """Return the own roles of all organizations."""
    rows = await many(tx, "SELECT * FROM roles ORDER BY organization, name")
    return [_from_row(row) for row in rows]


async def page(tx: Tx, organization: str | None, limit: int, offset: int) -> tuple[list[Role], int]:
    """Return some of an organization's own roles (None: of all), by name, and how many."""
    asked = {"organization": organization, "limit": limit, "offset": offset}
    rows = await many(
        tx,
        f"SELECT * FROM roles {of(organization)} "  # noqa: S608 - one of two texts
        "ORDER BY organization, name LIMIT :limit OFFSET :offset",
        asked,
    )
    [[total]] = await many(tx, f"SELECT count(*) FROM roles {of(organization)}", asked)  # noqa: S608 - as above
    return [_from_row(row) for row in rows], total


async def remove(tx: Tx, organization: str, name: str) -> bool:
    """Forget a role. False: there was none."""
    return bool(
        await change(
            tx, "DELETE FROM roles WHERE organization = ? AND name = ?", (organization, name)
        )
    )


async def holders(tx: Tx, organization: str, name: str) -> list[str]:
    """Return who has a role: keys that were not revoked, and members."""
    rows = await many(
        tx,
        "SELECT 'key ' || id AS who FROM api_keys "
        "WHERE organization = :organization AND role = :name AND revoked_at IS NULL "
        "UNION SELECT 'member ' || members.id FROM members "
        "JOIN bindings ON bindings.member_id = members.id "
        "WHERE members.organization = :organization AND bindings.role = :name ORDER BY who",
        {"organization": organization, "name": name},
    )
    return [row["who"] for row in rows]


@decodes("roles")
def _from_row(row: sqlite3.Row) -> Role:
    return Role(
        organization=row["organization"],
        name=row["name"],
        description=row["description"],
        permissions=frozenset(map(Permission, strings(row["permissions"]))),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
