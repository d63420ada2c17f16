"""Images that prsmd brought here: pulled or loaded, by whom and for which organization.

A pull is recorded before it begins, with an empty id and in place of the digest the id of what its
name meant until then; it is settled when it has ended.
"""

import sqlite3
from collections.abc import Collection, Mapping

from prsmd.domain.image import Brought, ImageOrigin

from .connection import Tx
from .decoding import decodes
from .rows import change, many


async def note(tx: Tx, brought: Brought) -> None:
    """Keep that an image was brought; the last time counts, but what was open to all stays so."""
    await change(
        tx,
        "INSERT INTO images (id, reference, digest, organization, origin, private, by, at, "
        "size_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id, reference, organization) DO UPDATE SET "
        "digest = excluded.digest, origin = excluded.origin, by = excluded.by, at = excluded.at, "
        "private = min(private, excluded.private), size_bytes = excluded.size_bytes",
        (
            brought.id,
            brought.reference,
            brought.digest,
            brought.organization,
            brought.origin.value,
            int(brought.private),
            brought.by,
            brought.at,
            brought.size_bytes,
        ),
    )


async def set_sizes(tx: Tx, sizes: Mapping[str, int]) -> None:
    """Note how large contents are of which that was not known: an earlier release kept no sizes."""
    for image_id, size in sizes.items():
        await change(
            tx,
            "UPDATE images SET size_bytes = ? WHERE id = ? AND size_bytes = 0",
            (size, image_id),
        )


async def settle(tx: Tx, pending: Brought, arrived: Brought | None) -> None:
    """Put what came of a pull in the place of the record that was written before it."""
    await change(
        tx,
        "DELETE FROM images WHERE id = '' AND reference = ? AND organization = ?",
        (pending.reference, pending.organization),
    )
    if arrived is not None:
        await note(tx, arrived)


async def of_content(tx: Tx, image_id: str) -> list[Brought]:
    """Return what is known of one content, oldest first."""
    rows = await many(tx, "SELECT * FROM images WHERE id = ? ORDER BY at, rowid", (image_id,))
    return [_from_row(row) for row in rows]


async def list_all(tx: Tx) -> list[Brought]:
    """Return all that was brought and not forgotten, oldest first."""
    return [_from_row(row) for row in await many(tx, "SELECT * FROM images ORDER BY at, rowid")]


async def forget(tx: Tx, image_ids: Collection[str]) -> int:
    """Forget contents that are gone; return how many rows that were."""
    gone = [
        await change(tx, "DELETE FROM images WHERE id = ?", (image_id,)) for image_id in image_ids
    ]
    return sum(gone)


async def forget_of(tx: Tx, organization: str, image_ids: Collection[str]) -> None:
    """Forget that an organization brought these contents; others' records stay."""
    for image_id in image_ids:
        await change(
            tx, "DELETE FROM images WHERE id = ? AND organization = ?", (image_id, organization)
        )


@decodes("images")
def _from_row(row: sqlite3.Row) -> Brought:
    return Brought(
        id=row["id"],
        reference=row["reference"],
        digest=row["digest"],
        organization=row["organization"],
        origin=ImageOrigin(row["origin"]),
        private=bool(row["private"]),
        by=row["by"],
        at=row["at"],
        size_bytes=row["size_bytes"],
    )
