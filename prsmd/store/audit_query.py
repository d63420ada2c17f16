"""How audit records are looked for: by which conditions and index, and how many are counted.

What is looked for in a log of millions should cost what is found, not what is there. Records are
read in their order, newest first, through the index of a text that is wanted exactly. A short time,
or a beginning that few texts have, is read by its own index and sorted. What remains is bounded by
`readers.ReadLimits`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from prsmd.domain.events import AuditFilter

from .connection import Tx
from .rows import many

COUNTED = 10_000
"""How many records beyond a page are counted."""
_FEW = 20_000  # records that are read by another order than theirs, and sorted
_TEXTS = ("subject", "principal", "action", "organization", "outcome")  # the most telling first
_LAST = "\U0010ffff" * 8  # a text that begins with another is not after it and this


@dataclasses.dataclass(frozen=True, slots=True)
class _Term:
    """One condition. `index` finds what meets it; `ordered`: in the order of the records."""

    sql: str
    values: tuple[Any, ...]
    index: str
    ordered: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Where records are read from, and the condition with its values."""

    source: str
    where: str
    values: tuple[Any, ...]


async def select(tx: Tx, wanted: AuditFilter | None, table: str) -> Selection:
    """Return how the records that are wanted are read, whichever way costs less."""
    terms = [] if wanted is None else _terms(wanted, table)
    chosen = await _choose(tx, terms, table)
    # The plus keeps SQLite from reading by another index than the chosen one, and sorting it all.
    sql = [term.sql if term is chosen else f"+{term.sql}" for term in terms]
    values = [value for term in terms for value in term.values]
    if wanted is not None and wanted.before is not None:
        sql.append("sequence < ?")
        values.append(wanted.before)
    return Selection(
        source=table if chosen is None else f"{table} INDEXED BY {chosen.index}",
        where=f"WHERE {' AND '.join(sql)}" if sql else "",
        values=tuple(values),
    )


async def count(tx: Tx, found: Selection, most: int) -> int:
    """Return how many records there are, at most `most`."""
    inner = f"SELECT 1 FROM {found.source} {found.where} LIMIT ?"  # noqa: S608 - names from this file
    [[number]] = await many(tx, f"SELECT count(*) FROM ({inner})", (*found.values, most))  # noqa: S608 - as above
    return int(number)


def matches(wanted: AuditFilter, record: Any) -> bool:
    """Tell whether a record is wanted, as the conditions do in the store."""
    for name in _TEXTS:
        text: str | None = getattr(wanted, name)
        value: str = getattr(record, name)
        if text is not None and text.endswith("*"):
            if not value.startswith(text[:-1]):
                return False
        elif text is not None and value != text:
            return False
    since, until, before = wanted.since, wanted.until, wanted.before
    return (
        (since is None or record.at >= since)
        and (until is None or record.at < until)
        and (before is None or record.sequence < before)
    )


def _terms(wanted: AuditFilter, table: str) -> list[_Term]:
    terms = []
    since, until = wanted.since, wanted.until
    if since is not None or until is not None:
        low = -math.inf if since is None else since
        high = math.inf if until is None else math.nextafter(until, -math.inf)
        terms.append(_Term("at BETWEEN ? AND ?", (low, high), f"{table}_by_age"))
    for name in _TEXTS:
        text: str | None = getattr(wanted, name)
        index = f"{table}_of_{name}"
        if text is not None and text.endswith("*"):
            span = (text[:-1], text[:-1] + _LAST)
            terms.append(_Term(f"{name} BETWEEN ? AND ?", span, index))
        elif text is not None:
            terms.append(_Term(f"{name} = ?", (text,), index, ordered=True))
    return terms


async def _choose(tx: Tx, terms: Sequence[_Term], table: str) -> _Term | None:
    """Return the condition by whose index records are read; None: in their order, by none."""
    if not terms:
        return None
    rows = await many(tx, "SELECT name FROM pragma_index_list(?)", (table,))
    known = {row["name"] for row in rows}
    there = [term for term in terms if term.index in known]
    for term in there:
        if not term.ordered and await _is_met_by_few(tx, term, table):
            return term
    return next((term for term in there if term.ordered), None)


async def _is_met_by_few(tx: Tx, term: _Term, table: str) -> bool:
    source = f"{table} INDEXED BY {term.index}"
    found = Selection(source, f"WHERE {term.sql}", term.values)
    return await count(tx, found, _FEW + 1) <= _FEW
