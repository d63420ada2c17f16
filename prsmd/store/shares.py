"""Shares and whom they reach. Expired ones are kept until somebody removes them."""

import dataclasses
import json
import sqlite3
from collections.abc import Sequence

from prsmd.domain.access import ModelRef, Permission, Principal
from prsmd.domain.quota import Share, UsageLimits

from .connection import Tx
from .decoding import decodes, strings
from .rows import change, many, one

_LIMITS = tuple(field.name for field in dataclasses.fields(UsageLimits))
_OWN = (
    "id",
    "deployment_id",
    "organization",
    "expires_at",
    "created_at",
    "created_by",
    "updated_at",
)
_COLUMNS = (*_OWN, "permissions", *_LIMITS)
_INSERT = (
    f"INSERT INTO shares ({', '.join(_COLUMNS)}) "  # noqa: S608 - the names are those above
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
)
_UPDATE = (
    "UPDATE shares SET permissions = :permissions, expires_at = :expires_at, "  # noqa: S608 - as above
    f"updated_at = :updated_at, {', '.join(f'{name} = :{name}' for name in _LIMITS)} "
    "WHERE id = :id"
)
_SELECT = (
    "SELECT s.*, (SELECT json_group_array(json_array(kind, name)) FROM borrowers "
    "WHERE share_id = s.id) AS borrowers FROM shares s"
)
_IS_PRINCIPAL = (
    "((b.kind = 'organization' AND b.name = :organization) OR (b.kind = 'key' AND b.name = :key))"
)
_IN_FORCE = "(s.expires_at IS NULL OR s.expires_at > :now)"


async def add(tx: Tx, share: Share) -> None:
    """Store a new share."""
    await change(tx, _INSERT, _to_row(share))
    await _set_borrowers(tx, share)


async def put(tx: Tx, share: Share) -> None:
    """Store a share as it is now; the rows of borrowers who stay are left alone."""
    await change(tx, _UPDATE, _to_row(share))
    await _set_borrowers(tx, share)


async def remove(tx: Tx, share_id: str) -> bool:
    """Forget a share. False: there is none of this id."""
    return bool(await change(tx, "DELETE FROM shares WHERE id = ?", (share_id,)))


async def get(tx: Tx, share_id: str) -> Share | None:
    """Return the share of this id, or None."""
    row = await one(tx, f"{_SELECT} WHERE s.id = ?", (share_id,))
    return None if row is None else _from_row(row)


async def page(tx: Tx, deployment_id: str, limit: int, offset: int = 0) -> tuple[list[Share], int]:
    """Return some shares of a deployment, oldest first, and how many there are."""
    rows = await many(
        tx,
        f"{_SELECT} WHERE s.id IN (SELECT id FROM shares WHERE deployment_id = ? "  # noqa: S608 - a constant
        "ORDER BY created_at, id LIMIT ? OFFSET ?) ORDER BY s.created_at, s.id",
        (deployment_id, limit, offset),
    )
    return [_from_row(row) for row in rows], await count(tx, deployment_id)


async def count(tx: Tx, deployment_id: str) -> int:
    """Return how many shares a deployment has, expired ones too."""
    query = "SELECT count(*) FROM shares WHERE deployment_id = ?"
    [[total]] = await many(tx, query, (deployment_id,))
    return int(total)


async def lent_twice(tx: Tx, share: Share, now: float) -> tuple[str, list[str]] | None:
    """Return another share of the same model in force that has borrowers of this one, and these.

    It is the oldest one; None: there is none. What is looked at is what these borrowers were ever
    lent, not what else was lent of the model.
    """
    rows = await many(
        tx,
        "SELECT s.id, b.name FROM borrowers own "
        "CROSS JOIN borrowers b ON b.kind = own.kind AND b.name = own.name "
        "CROSS JOIN shares s ON s.id = b.share_id "
        "WHERE s.deployment_id = :deployment AND s.id <> :share AND own.share_id = :share "
        "AND (s.expires_at IS NULL OR s.expires_at > :now) ORDER BY s.created_at, s.id, b.name",
        {"deployment": share.deployment_id, "share": share.id, "now": now},
    )
    if not rows:
        return None
    other: str = rows[0]["id"]
    return other, [row["name"] for row in rows if row["id"] == other]


async def list_all(tx: Tx) -> list[tuple[Share, ModelRef]]:
    """Return all shares with the model that each is of, oldest first."""
    rows = await many(
        tx,
        _SELECT.replace(" FROM shares s", ", d.model_id, d.model_name FROM shares s")
        + " JOIN deployments d ON d.id = s.deployment_id ORDER BY s.created_at, s.id",
    )
    return [
        (_from_row(row), ModelRef(row["deployment_id"], row["model_id"], row["model_name"]))
        for row in rows
    ]


async def reaching(
    tx: Tx, principal: Principal, now: float, deployment_id: str | None = None
) -> list[Share]:
    """Return the shares in force, of one deployment or all, that reach a principal.

    Of their borrowers only the principal and its organization are in them.
    """
    rows = await many(
        tx,
        "SELECT s.*, (SELECT json_group_array(json_array(kind, name)) FROM borrowers b "  # noqa: S608 - constants
        f"WHERE b.share_id = s.id AND {_IS_PRINCIPAL}) AS borrowers FROM shares s "
        f"WHERE s.id IN (SELECT b.share_id FROM borrowers b WHERE {_IS_PRINCIPAL}) "
        f"AND {_IN_FORCE} AND (:deployment IS NULL OR s.deployment_id = :deployment) "
        "ORDER BY s.created_at, s.id",
        {**_of(principal), "now": now, "deployment": deployment_id},
    )
    return [_from_row(row) for row in rows]


async def lent_as(tx: Tx, principal: Principal, model: str, now: float) -> list[str]:
    """Return the deployments of this id, model id or name by shares that reach a principal."""
    rows = await many(
        tx,
        "SELECT DISTINCT d.id FROM borrowers b CROSS JOIN shares s ON s.id = b.share_id "  # noqa: S608 - constants
        f"CROSS JOIN deployments d ON d.id = s.deployment_id WHERE {_IS_PRINCIPAL} "
        f"AND {_IN_FORCE} AND :model IN (d.id, d.model_id, d.model_name) ORDER BY d.id",
        {**_of(principal), "now": now, "model": model},
    )
    return [row["id"] for row in rows]


async def lent_to(tx: Tx, organization: str) -> list[tuple[Share, frozenset[str]]]:
    """Return all shares that an organization or its keys have, with which keys of it those are."""
    rows = await many(
        tx,
        f"{_SELECT} WHERE EXISTS (SELECT 1 FROM borrowers b WHERE b.share_id = s.id AND "  # noqa: S608 - a constant
        "((b.kind = 'organization' AND b.name = :organization) OR (b.kind = 'key' AND b.name IN "
        "(SELECT id FROM api_keys WHERE organization = :organization)))) "
        "ORDER BY s.created_at, s.id",
        {"organization": organization},
    )
    held = await many(tx, "SELECT id FROM api_keys WHERE organization = ?", (organization,))
    keys = frozenset(row["id"] for row in held)
    return [(share, keys & share.keys) for share in map(_from_row, rows)]


async def _set_borrowers(tx: Tx, share: Share) -> None:
    names = {("organization", name) for name in share.organizations}
    names |= {("key", name) for name in share.keys}
    rows = await many(tx, "SELECT kind, name FROM borrowers WHERE share_id = ?", (share.id,))
    known = {(row["kind"], row["name"]) for row in rows}
    for kind, name in sorted(known - names):
        query = "DELETE FROM borrowers WHERE share_id = ? AND kind = ? AND name = ?"
        await change(tx, query, (share.id, kind, name))
    for kind, name in sorted(names - known):
        await change(tx, "INSERT INTO borrowers VALUES (?, ?, ?)", (share.id, kind, name))


def _of(principal: Principal) -> dict[str, str | None]:
    return {"organization": principal.organization, "key": principal.key_id}


def _to_row(share: Share) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(share, name) for name in _OWN}
    row |= dataclasses.asdict(share.limits)
    row["permissions"] = json.dumps(sorted(each.value for each in share.permissions))
    return row


@decodes("shares")
def _from_row(row: sqlite3.Row) -> Share:
    borrowers: Sequence[tuple[str, str]] = json.loads(row["borrowers"])
    return Share(
        **{name: row[name] for name in _OWN},
        organizations=frozenset(name for kind, name in borrowers if kind == "organization"),
        keys=frozenset(name for kind, name in borrowers if kind == "key"),
        permissions=frozenset(map(Permission, strings(row["permissions"]))),
        limits=UsageLimits(**{name: row[name] for name in _LIMITS}),
    )
