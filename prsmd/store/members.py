"""Members of organizations, each with the roles that it has in the whole of it or on one model."""

import json
import sqlite3
from collections.abc import Iterable, Sequence

from prsmd.domain.access import Binding, Member, SubjectKind

from .connection import Tx
from .decoding import decodes
from .rows import change, many, of, one


async def add(tx: Tx, member: Member) -> None:
    """Store a new member with its bindings.

    Raises:
        sqlite3.IntegrityError: the subject is a member of the organization, or invited.
    """
    await change(
        tx,
        "INSERT INTO members (id, organization, kind, subject, name, created_at, created_by, "
        "accepted_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            member.id,
            member.organization,
            member.kind.value,
            member.subject,
            member.name,
            member.created_at,
            member.created_by,
            member.accepted_at,
            member.expires_at,
        ),
    )
    await _bind(tx, member.id, member.bindings)


async def put(tx: Tx, member: Member) -> None:
    """Store a known member as it is now: its name, bindings, acceptance and end."""
    await change(
        tx,
        "UPDATE members SET name = ?, accepted_at = ?, expires_at = ? WHERE id = ?",
        (member.name, member.accepted_at, member.expires_at, member.id),
    )
    await change(tx, "DELETE FROM bindings WHERE member_id = ?", (member.id,))
    await _bind(tx, member.id, member.bindings)


async def get(tx: Tx, member_id: str, organization: str | None = None) -> Member | None:
    """Return the member of this id, or None; with an organization, only if it is its own."""
    row = await one(
        tx,
        "SELECT * FROM members WHERE id = :id "
        "AND (:organization IS NULL OR organization = :organization)",
        {"id": member_id, "organization": organization},
    )
    return None if row is None else _from_row(row, await _bindings(tx, member_id))


async def find(tx: Tx, kind: SubjectKind, subject: str, organization: str) -> Member | None:
    """Return an organization's member, or whom it invited, who is recognized so; or None."""
    row = await one(
        tx,
        "SELECT * FROM members WHERE kind = ? AND subject = ? AND organization = ?",
        (kind.value, subject, organization),
    )
    return None if row is None else _from_row(row, await _bindings(tx, row["id"]))


async def list_for(tx: Tx, organization: str | None) -> list[Member]:
    """Return an organization's members (None: all), oldest first."""
    rows = await many(
        tx,
        f"SELECT * FROM members {of(organization)} ORDER BY created_at, id",  # noqa: S608 - one of two texts
        {"organization": organization},
    )
    bindings = await many(
        tx,
        f"SELECT * FROM bindings WHERE member_id IN (SELECT id FROM members {of(organization)}) "  # noqa: S608 - as above
        "ORDER BY member_id, place",
        {"organization": organization},
    )
    bound = _by_member(bindings)
    return [_from_row(row, bound.get(row["id"], ())) for row in rows]


async def page(
    tx: Tx, organization: str | None, limit: int, offset: int
) -> tuple[list[Member], int]:
    """Return some of an organization's members (None: of all), oldest first, and how many."""
    asked = {"organization": organization, "limit": limit, "offset": offset}
    rows = await many(
        tx,
        f"SELECT * FROM members {of(organization)} "  # noqa: S608 - one of two texts
        "ORDER BY created_at, id LIMIT :limit OFFSET :offset",
        asked,
    )
    [[total]] = await many(tx, f"SELECT count(*) FROM members {of(organization)}", asked)  # noqa: S608 - as above
    bindings = await many(
        tx,
        "SELECT * FROM bindings WHERE member_id IN (SELECT value FROM json_each(?)) "
        "ORDER BY member_id, place",
        (json.dumps([row["id"] for row in rows]),),
    )
    bound = _by_member(bindings)
    return [_from_row(row, bound.get(row["id"], ())) for row in rows], total


async def remove(tx: Tx, member_id: str) -> bool:
    """Forget a member with its bindings. False: there was none."""
    return bool(await change(tx, "DELETE FROM members WHERE id = ?", (member_id,)))


async def _bind(tx: Tx, member_id: str, bindings: Sequence[Binding]) -> None:
    for place, binding in enumerate(bindings):
        await change(
            tx,
            "INSERT INTO bindings (member_id, place, role, deployment_id) VALUES (?, ?, ?, ?)",
            (member_id, place, binding.role, binding.deployment_id),
        )


async def _bindings(tx: Tx, member_id: str) -> list[Binding]:
    rows = await many(tx, "SELECT * FROM bindings WHERE member_id = ? ORDER BY place", (member_id,))
    return [Binding(row["role"], row["deployment_id"]) for row in rows]


def _by_member(rows: Iterable[sqlite3.Row]) -> dict[str, list[Binding]]:
    found: dict[str, list[Binding]] = {}
    for row in rows:
        found.setdefault(row["member_id"], []).append(Binding(row["role"], row["deployment_id"]))
    return found


@decodes("members")
def _from_row(row: sqlite3.Row, bindings: Sequence[Binding]) -> Member:
    return Member(
        id=row["id"],
        organization=row["organization"],
        kind=SubjectKind(row["kind"]),
        subject=row["subject"],
        name=row["name"],
        bindings=tuple(bindings),
        created_at=row["created_at"],
        created_by=row["created_by"],
        accepted_at=row["accepted_at"],
        expires_at=row["expires_at"],
    )
