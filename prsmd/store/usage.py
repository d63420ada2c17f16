"""How much each model was used, by day and principal: sums, in the usage file."""

import dataclasses
import sqlite3
from collections.abc import Iterable

from prsmd.domain.quota import Use

from .connection import Tx
from .decoding import decodes
from .rows import change, many

_SUMS = ("requests", "errors", "refused", "seconds", "request_bytes", "answer_bytes")
_COLUMNS = tuple(field.name for field in dataclasses.fields(Use))
_ADD = (
    f"INSERT INTO usage ({', '.join(_COLUMNS)}) "  # noqa: S608 - the names are those above
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) "
    "ON CONFLICT (deployment_id, day, organization, principal) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)
)
_WHERE = (
    "deployment_id = :deployment_id AND day >= :first AND day <= :last "
    "AND (:organization IS NULL OR organization = :organization)"
)
_OF_DAYS = (
    f"SELECT * FROM usage WHERE {_WHERE} "  # noqa: S608 - see above
    "ORDER BY day DESC, organization, principal LIMIT :limit"
)
_REST_OF_DAY = (
    "SELECT * FROM usage WHERE deployment_id = :deployment_id AND day = :day "
    "AND (organization, principal) > (:at, :behind) "
    "AND (:organization IS NULL OR organization = :organization) "
    "ORDER BY organization, principal LIMIT :limit"
)


async def add(tx: Tx, uses: Iterable[Use]) -> None:
    """Add to what is there."""
    rows = [{name: getattr(use, name) for name in _COLUMNS} for use in uses]
    await tx.executemany(_ADD, rows)


async def page(
    tx: Tx,
    deployment_id: str,
    days: tuple[int, int],
    organization: str | None = None,
    part: tuple[int, int] = (-1, 0),
) -> tuple[list[Use], int]:
    """Return the use of a deployment from one day to another, newest first, and how many rows.

    `organization` None: by all. `part` is how many rows (-1: all of them) and how many to skip.
    """
    asked = {
        "deployment_id": deployment_id,
        "first": days[0],
        "last": days[1],
        "organization": organization,
        "limit": part[0],
        "offset": part[1],
    }
    rows = await many(tx, f"{_OF_DAYS} OFFSET :offset", asked)
    [[total]] = await many(tx, f"SELECT count(*) FROM usage WHERE {_WHERE}", asked)  # noqa: S608 - see above
    return [_from_row(row) for row in rows], total


async def after(
    tx: Tx,
    deployment_id: str,
    days: tuple[int, int],
    organization: str | None,
    last: Use | None,
    limit: int,
) -> list[Use]:
    """Return the next rows of what `page` tells, in its order, behind `last` (None: the first).

    What is left of the day of `last` is read from its place in the index, so that a day of many
    rows is not read again for each part of it.
    """
    asked = {"deployment_id": deployment_id, "organization": organization, "first": days[0]}
    found: list[sqlite3.Row] = []
    before = days[1]
    if last is not None:
        before = last.day - 1
        place = {"day": last.day, "at": last.organization, "behind": last.principal}
        found = await many(tx, _REST_OF_DAY, {**asked, **place, "limit": limit})
    if len(found) < limit:
        rest = {**asked, "last": before, "limit": limit - len(found)}
        found += await many(tx, _OF_DAYS, rest)
    return [_from_row(row) for row in found]


async def forget_before(tx: Tx, day: int) -> int:
    """Forget the days before this one; return how many rows went."""
    return await change(tx, "DELETE FROM usage WHERE day < ?", (day,))


@decodes("usage")
def _from_row(row: sqlite3.Row) -> Use:
    return Use(**{name: row[name] for name in _COLUMNS})
