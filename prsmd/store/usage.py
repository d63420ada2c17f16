"""How much each model was used, by day and principal: sums, in the usage file."""

import dataclasses
from collections.abc import Iterable

from prsmd.domain.quota import Use

from .connection import Tx
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
    rows = await many(
        tx,
        f"SELECT * FROM usage WHERE {_WHERE} "  # noqa: S608 - see above
        "ORDER BY day DESC, organization, principal LIMIT :limit OFFSET :offset",
        asked,
    )
    [[total]] = await many(tx, f"SELECT count(*) FROM usage WHERE {_WHERE}", asked)  # noqa: S608 - see above
    return [Use(**{name: row[name] for name in _COLUMNS}) for row in rows], total


async def forget_before(tx: Tx, day: int) -> int:
    """Forget the days before this one; return how many rows went."""
    return await change(tx, "DELETE FROM usage WHERE day < ?", (day,))
