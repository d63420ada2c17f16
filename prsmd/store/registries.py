"""The organizations' logins to image registries. A password is here only sealed."""

import dataclasses
import sqlite3
from collections.abc import Mapping
from typing import Any

from prsmd.domain.image import Login

from .connection import Tx
from .decoding import decodes
from .rows import change, many, of, one
from .sealing import Sealer, new_seal_id


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    """What may be shown of a login."""

    organization: str
    server: str
    username: str
    created_at: float
    updated_at: float
    updated_by: str


async def save(tx: Tx, stored: StoredLogin, password: str, sealer: Sealer) -> bool:
    """Store a login, or replace the one for its server. Return True if it is new."""
    known = await get(tx, stored.organization, stored.server)
    row = {**dataclasses.asdict(stored), "seal_id": new_seal_id()}
    await change(
        tx,
        "INSERT INTO registries (organization, server, username, password, seal_id, created_at, "
        "updated_at, updated_by) VALUES (:organization, :server, :username, :password, :seal_id, "
        ":created_at, :updated_at, :updated_by) ON CONFLICT (organization, server) DO UPDATE SET "
        "username = excluded.username, password = excluded.password, "
        "seal_id = excluded.seal_id, updated_at = excluded.updated_at, "
        "updated_by = excluded.updated_by",
        {**row, "password": sealer.seal(password.encode(), _place(row))},
    )
    return known is None


async def get(tx: Tx, organization: str, server: str) -> StoredLogin | None:
    """Return what may be shown of an organization's login, or None."""
    row = await _row(tx, organization, server)
    return None if row is None else _from_row(row)


async def login(tx: Tx, organization: str, server: str, sealer: Sealer) -> Login | None:
    """Return an organization's login with its password, or None.

    Raises:
        SealBrokenError: the password cannot be opened.
    """
    row = await _row(tx, organization, server)
    if row is None:
        return None
    password = sealer.open(row["password"], _place(row)).decode()
    return Login(server=server, username=row["username"], password=password)


async def list_for(tx: Tx, organization: str | None) -> list[StoredLogin]:
    """Return an organization's logins (None: all), by organization and server."""
    rows = await many(
        tx,
        f"SELECT * FROM registries {of(organization)} ORDER BY organization, server",  # noqa: S608 - one of two texts
        {"organization": organization},
    )
    return [_from_row(row) for row in rows]


async def remove(tx: Tx, organization: str, server: str) -> bool:
    """Forget a login. Return False when there is none."""
    where = (organization, server)
    return bool(
        await change(tx, "DELETE FROM registries WHERE organization = ? AND server = ?", where)
    )


async def key_ids(tx: Tx) -> list[str]:
    """Return the name of the key that sealed each value, one for each."""
    return [row["key_id"] for row in await many(tx, "SELECT key_id FROM registries")]


async def reseal(tx: Tx, sealer: Sealer) -> int:
    """Seal every password anew that another key than the present one sealed; return how many.

    Raises:
        SealBrokenError: one cannot be opened; the transaction has to be given up.
    """
    rows = await many(tx, "SELECT * FROM registries WHERE key_id <> ?", (sealer.key_id,))
    for row in rows:
        await change(
            tx,
            "UPDATE registries SET password = ? WHERE organization = ? AND server = ?",
            (sealer.again(row["password"], _place(row)), row["organization"], row["server"]),
        )
    return len(rows)


def _place(row: Mapping[str, Any] | sqlite3.Row) -> str:
    place = f"registries/{row['organization']}/{row['server']}/password"
    return f"{place}/{row['seal_id']}" if row["seal_id"] else place


async def _row(tx: Tx, organization: str, server: str) -> sqlite3.Row | None:
    return await one(
        tx,
        "SELECT * FROM registries WHERE organization = ? AND server = ?",
        (organization, server),
    )


@decodes("registries")
def _from_row(row: sqlite3.Row) -> StoredLogin:
    return StoredLogin(
        organization=row["organization"],
        server=row["server"],
        username=row["username"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        updated_by=row["updated_by"],
    )
