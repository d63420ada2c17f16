"""The organizations' secrets. A value is here only sealed, and leaves only for a container."""

import dataclasses
import sqlite3
from collections.abc import Mapping
from typing import Any

from .connection import Tx
from .decoding import decodes, decoding
from .replicas import ENDED_PER_SLOT
from .rows import change, many, of, one
from .sealing import Sealer, new_seal_id


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """What may be shown of a secret. `textual`: it can stand in an environment variable."""

    organization: str
    name: str
    version: int
    size_bytes: int
    textual: bool
    key_id: str = ""
    created_at: float
    updated_at: float
    updated_by: str


@dataclasses.dataclass(frozen=True, slots=True)
class SecretUser:
    """A revision that names a secret."""

    deployment_id: str
    model_id: str
    revision: int


_USES = (
    "CROSS JOIN revisions AS r ON r.deployment_id = d.id AND r.number IN ("
    "SELECT d.revision UNION SELECT d.stable_revision UNION "
    "SELECT from_revision FROM rollouts WHERE deployment_id = d.id "
    "AND phase IN ('preparing', 'trying', 'replacing') UNION "
    "SELECT revision FROM replicas WHERE deployment_id = d.id "
    "AND state NOT IN ('stopped', 'failed') UNION "
    "SELECT revision FROM (SELECT revision, row_number() OVER ("
    "PARTITION BY slot ORDER BY created_at DESC, id DESC) AS age FROM replicas "
    "WHERE deployment_id = d.id AND state IN ('stopped', 'failed')) WHERE age <= :most) "
    "CROSS JOIN json_each(r.secret_names) AS used "
    "WHERE NOT d.deleting"
)  # of deployments `d`: their revisions that matter still, and each secret that those name


async def save(tx: Tx, stored: StoredSecret, value: bytes, sealer: Sealer) -> None:
    """Store a secret, or its next version in place of the one before."""
    row = {**dataclasses.asdict(stored), "seal_id": new_seal_id()}
    await change(
        tx,
        "INSERT INTO secrets (organization, name, version, value, seal_id, size_bytes, textual, "
        "created_at, updated_at, updated_by) VALUES (:organization, :name, :version, :value, "
        ":seal_id, :size_bytes, :textual, :created_at, :updated_at, :updated_by) ON CONFLICT "
        "(organization, name) DO UPDATE SET version = excluded.version, value = excluded.value, "
        "seal_id = excluded.seal_id, size_bytes = excluded.size_bytes, "
        "textual = excluded.textual, updated_at = excluded.updated_at, "
        "updated_by = excluded.updated_by",
        {**row, "value": sealer.seal(value, _place(row))},
    )


async def get(tx: Tx, organization: str, name: str) -> StoredSecret | None:
    """Return what may be shown of a secret, or None."""
    row = await _row(tx, organization, name)
    return None if row is None else _from_row(row)


async def value(tx: Tx, organization: str, name: str, sealer: Sealer) -> bytes | None:
    """Return the value of a secret, or None.

    Raises:
        SealBrokenError: it cannot be opened.
    """
    row = await _row(tx, organization, name)
    if row is None:
        return None
    return sealer.open(row["value"], _place(row))


async def list_for(tx: Tx, organization: str | None) -> list[StoredSecret]:
    """Return what may be shown of an organization's secrets (None: all), by name."""
    rows = await many(
        tx,
        f"SELECT * FROM secrets {of(organization)} ORDER BY organization, name",  # noqa: S608 - one of two texts
        {"organization": organization},
    )
    return [_from_row(row) for row in rows]


async def users(tx: Tx, organization: str | None) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the ids of the models that name each of an organization's secrets (None: all).

    Keys are organization and name. A model counts by each of its revisions that matters still: the
    one that is wanted, the stable one, the one that a rollout leaves, and those of its replicas.
    """
    query = (
        "SELECT DISTINCT d.organization, d.model_id, used.value AS name "  # noqa: S608 - one of two texts
        f"FROM (SELECT * FROM deployments {of(organization)}) AS d {_USES} ORDER BY d.model_id"
    )
    with decoding("revisions.secret_names"):
        rows = await many(tx, query, {"organization": organization, "most": ENDED_PER_SLOT})
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row["organization"], row["name"]), []).append(row["model_id"])
    return {place: tuple(models) for place, models in found.items()}


async def users_of(tx: Tx, organization: str, name: str) -> list[SecretUser]:
    """Return the revisions that name a secret; see `users` for which count."""
    query = (
        "SELECT DISTINCT d.id, d.model_id, r.number "  # noqa: S608 - one of two texts
        f"FROM (SELECT * FROM deployments {of(organization)}) AS d {_USES} "
        "AND used.value = :name ORDER BY d.model_id, r.number"
    )
    values = {"organization": organization, "most": ENDED_PER_SLOT, "name": name}
    with decoding("revisions.secret_names"):
        rows = await many(tx, query, values)
    return [SecretUser(row["id"], row["model_id"], row["number"]) for row in rows]


async def remove(tx: Tx, organization: str, name: str) -> bool:
    """Forget a secret. Return False when there is none."""
    where = (organization, name)
    return bool(await change(tx, "DELETE FROM secrets WHERE organization = ? AND name = ?", where))


async def key_ids(tx: Tx) -> list[str]:
    """Return the name of the key that sealed each value, one for each."""
    return [row["key_id"] for row in await many(tx, "SELECT key_id FROM secrets")]


async def reseal(tx: Tx, sealer: Sealer) -> int:
    """Seal every value anew that another key than the present one sealed; return how many.

    Raises:
        SealBrokenError: one cannot be opened; the transaction has to be given up.
    """
    rows = await many(tx, "SELECT * FROM secrets WHERE key_id <> ?", (sealer.key_id,))
    for row in rows:
        await change(
            tx,
            "UPDATE secrets SET value = ? WHERE organization = ? AND name = ?",
            (sealer.again(row["value"], _place(row)), row["organization"], row["name"]),
        )
    return len(rows)


def _place(row: Mapping[str, Any] | sqlite3.Row) -> str:
    place = f"secrets/{row['organization']}/{row['name']}/{row['version']}/value"
    return f"{place}/{row['seal_id']}" if row["seal_id"] else place


async def _row(tx: Tx, organization: str, name: str) -> sqlite3.Row | None:
    where = (organization, name)
    return await one(tx, "SELECT * FROM secrets WHERE organization = ? AND name = ?", where)


@decodes("secrets")
def _from_row(row: sqlite3.Row) -> StoredSecret:
    return StoredSecret(
        organization=row["organization"],
        name=row["name"],
        version=row["version"],
        size_bytes=row["size_bytes"],
        textual=bool(row["textual"]),
        key_id=row["key_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        updated_by=row["updated_by"],
    )
