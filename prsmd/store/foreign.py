"""What stands in a file of the state that no migration made: a trigger could undo what is done."""

import functools

from .audit import Table
from .connection import Tx
from .migrate import CONTROL, USAGE, known_migrations, statements_of
from .rows import many

_COLUMNS = {
    "": ("sequence", "at", "principal", "organization", "action", "subject", "outcome",
         "request_id", "details", "salt", "hash", "size", "address"),
    "_chain": ("log", "sequence", "hash", "size", "anchor"),
    "_checkpoints": ("sequence", "key", "hash", "at", "signature"),
}  # fmt: skip


async def objects(tx: Tx, table: Table) -> list[str]:
    """Return what does not belong there, in words: triggers, views, other tables of the log."""
    there = "SELECT type, name, sql FROM sqlite_schema WHERE type IN ('trigger', 'view')"
    made = [row for row in await many(tx, there) if _text(str(row["sql"])) not in _own()]
    found = [f"{row['type']} {row['name']}" for row in made]
    for suffix, expected in _COLUMNS.items():
        name = f"{table}{suffix}"
        columns = await many(tx, "SELECT name, hidden FROM pragma_table_xinfo(?)", (name,))
        kinds = await many(tx, "SELECT type FROM sqlite_schema WHERE name = ?", (name,))
        plain = not any(row["hidden"] for row in columns)
        if [row["type"] for row in kinds] != ["table"]:
            found.append(f"{name}, which is no table")
        elif tuple(row["name"] for row in columns) != expected or not plain:
            found.append(f"other columns of {name}")
    return found


@functools.cache
def _own() -> frozenset[str]:
    """Return the statements by which migrations make triggers and views."""
    texts = (m.sql for folder in (CONTROL, USAGE) for m in known_migrations(folder))
    statements = (_text(each) for text in texts for each in statements_of(text))
    return frozenset(each for each in statements if each.startswith(("CREATE T", "CREATE V")))


def _text(statement: str) -> str:
    """Return a statement as it is compared: without comments before it, in one line."""
    lines = [line for line in statement.splitlines() if not line.lstrip().startswith("--")]
    return " ".join(" ".join(lines).split()).rstrip("; ")
