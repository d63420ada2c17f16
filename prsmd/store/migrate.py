"""Numbered migrations: which there are, which were applied, and refusing what does not fit.

A migration is `NNNN_name.sql`. It never changes once released: its checksum is stored beside it.
What SQL cannot say, `after` does in the same transaction.
"""

import dataclasses
import hashlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from importlib import resources

from . import replicas, rollouts
from .chaining import chain_existing
from .connection import Tx
from .errors import StoreSchemaError

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at REAL NOT NULL
) STRICT
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str
    after: Callable[[Tx], Awaitable[None]] | None = None

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


CONTROL = "migrations"
USAGE = "usage_migrations"


async def _bound_words(tx: Tx) -> None:
    await replicas.bound_exits(tx)
    await rollouts.bound_words(tx)


_AFTER = {
    (CONTROL, "0004_audit_chain.sql"): chain_existing,
    (CONTROL, "0017_bounded_words.sql"): _bound_words,
}


def known_migrations(folder: str = CONTROL) -> tuple[Migration, ...]:
    """Return the migrations that this release ships for one file of the state, in order."""
    found = []
    for entry in (resources.files("prsmd.store") / folder).iterdir():
        if entry.name.endswith(".sql"):
            number, _, name = entry.name.removesuffix(".sql").partition("_")
            sql = entry.read_text(encoding="utf-8")
            found.append(Migration(int(number), name, sql, _AFTER.get((folder, entry.name))))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def migrate(tx: Tx, migrations: Sequence[Migration]) -> None:
    """Bring the schema up to the last of `migrations`, each step in a transaction of its own.

    Raises:
        StoreSchemaError: the file is newer than `migrations`, or a step that it went through
            has another checksum; nothing was changed.
    """
    await tx.execute_fetchall(_LEDGER)
    rows = await tx.execute_fetchall("SELECT version, name, checksum FROM schema_migrations")
    applied = {row["version"]: row for row in rows}
    _refuse_what_does_not_fit(applied.values(), migrations)
    for migration in migrations:
        if migration.version not in applied:
            await _apply(tx, migration)


def _refuse_what_does_not_fit(rows: Iterable[sqlite3.Row], migrations: Sequence[Migration]) -> None:
    known = {migration.version: migration for migration in migrations}
    newest = max(known, default=0)
    for row in rows:
        migration = known.get(row["version"])
        if migration is None:
            raise StoreSchemaError(
                f"The state was written by a newer prsmd: its schema is {row['version']} "
                f"({row['name']}), this release knows up to {newest}. "
                "Install the newer release again, or restore a backup made before the upgrade."
            )
        if migration.checksum != row["checksum"]:
            raise StoreSchemaError(
                f"Migration {row['version']} ({row['name']}) is not the one that this state went "
                "through: its checksum differs. Install the release that wrote the state."
            )


async def _apply(tx: Tx, migration: Migration) -> None:
    script = "BEGIN IMMEDIATE;" + "".join(statements_of(migration.sql))
    try:
        await tx.executescript(script)
        if migration.after is not None:
            await migration.after(tx)
        await tx.execute_fetchall(
            "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)",
            (migration.version, migration.name, migration.checksum, time.time()),
        )
        await tx.execute_fetchall("COMMIT")
    except BaseException:
        await tx.rollback()
        raise


def statements_of(sql: str) -> Iterator[str]:
    """Yield the statements of a migration, one by one."""
    pending = ""
    for part in sql.split(";"):
        pending += part + ";"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip(" \n;"):
        raise StoreSchemaError(f"A migration ends in the middle of a statement: {pending[:60]!r}")
