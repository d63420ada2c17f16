"""Looks whether a database file is intact, by parts, on connections of its own; changes nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

from .connection import Tx
from .errors import damaged, is_io, translate
from .rows import many

# The logs of the audit have their own proof, and may be as large as they are allowed to be.
_PROVEN = frozenset({"audit"})
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


def examine(path: Path, table: str | None = None) -> None:
    """Read the header and one table of the file, or all of it. Blocks on the disk.

    Raises:
        StoreDamagedError: it is not an intact database.
    """
    try:
        problems = _problems(path, table)
    except sqlite3.Error as error:
        if is_io(error):
            raise damaged(path, f"it cannot be read: {error}") from error
        raise translate(error, path) from error
    except UnicodeDecodeError as error:
        raise translate(error, path) from error
    if problems != ["ok"]:
        raise damaged(path, "; ".join(problems[:5]))


def _problems(path: Path, table: str | None) -> list[str]:
    with closing(_open(path)) as database:
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        checked = "PRAGMA quick_check(5)" if table is None else f"PRAGMA quick_check({table})"
        return [str(row[0]) for row in database.execute(checked)]


async def tables_of(tx: Tx) -> list[str]:
    """Return the names of the tables."""
    return [str(row[0]) for row in await many(tx, _TABLES)]


def refuse_garbled(path: Path) -> None:
    """Refuse text that is not text, in any table but the audit's own, and rows that lack others.

    Blocks on the disk.

    Raises:
        StoreDamagedError: says where.
    """
    with closing(_open(path)) as database:
        database.text_factory = bytes
        for [name] in database.execute(_TABLES).fetchall():
            table = name.decode(errors="replace")
            if table not in _PROVEN:
                _refuse_garbled_table(database, path, table)
            if table.endswith("_chain"):
                _refuse_chainless(database, path, table)
        _refuse_orphans(database, path)


def _open(path: Path) -> sqlite3.Connection:
    """Open a connection that can only read."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    database.executescript("PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF")
    return database


def _refuse_garbled_table(database: sqlite3.Connection, path: Path, table: str) -> None:
    found = database.execute(
        "SELECT name FROM pragma_table_info(?) WHERE type = 'TEXT'", (table,)
    ).fetchall()
    columns = [row[0].decode(errors="replace") for row in found]
    if not columns:
        return
    wanted = ", ".join(f'"{column}"' for column in columns)
    for row in database.execute(f'SELECT {wanted} FROM "{table}"'):  # noqa: S608 - names of the schema
        for column, value in zip(columns, row, strict=True):
            if _is_garbled(value):
                raise damaged(path, f"{table}.{column} holds what is no text")


def _refuse_chainless(database: sqlite3.Connection, path: Path, table: str) -> None:
    [rows] = database.execute(f'SELECT count(*) FROM "{table}"').fetchone()  # noqa: S608 - as above
    if rows != 1:
        raise damaged(path, f"{table} does not have its one row")


def _refuse_orphans(database: sqlite3.Connection, path: Path) -> None:
    found = database.execute("PRAGMA foreign_key_check").fetchone()
    if found is not None:
        table, _, parent, _ = found
        words = f"{table.decode()} has a row that belongs to one which {parent.decode()} lacks"
        raise damaged(path, words)


def _is_garbled(value: object) -> bool:
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:
            return True
    return False
