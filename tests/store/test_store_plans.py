"""No query reads a whole table but those that are meant to: what is there must not cost callers.

Every statement in the store's modules is explained by SQLite, and each scan of a table has to be
named here with its reason.
"""

import ast
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import prsmd.store
from prsmd.store import deployments, rows, secrets, shares, usage
from prsmd.store.db import CONTROL, USAGE
from prsmd.store.migrate import known_migrations

FOLDER = Path(prsmd.store.__file__).parent
STATEMENT = re.compile(r"\s*(SELECT|DELETE|UPDATE|WITH)\b")
ONE_ROW = "it has one row"
ALL_OF_IT = "all of it is wanted: by the daemon itself, or by an administrator's list"
SMALL = "it is bounded by what an organization may have, or by the operator"
UPKEEP = "the daemon's own upkeep, on connections of its own"
IN_ORDER = "read in its order, and only as far as the limit"
SCANS = {
    ("attestations", "audit_chain"): ONE_ROW,
    ("attestations", "audit_checkpoints"): "one in a thousand records",
    ("attestations", "audit"): IN_ORDER,
    ("audit", "audit_chain"): ONE_ROW,
    ("continuity", "audit_chain"): ONE_ROW,
    ("deployments", "deployments"): ALL_OF_IT,
    ("events", "events"): UPKEEP,
    ("examination", "audit"): ONE_ROW,
    ("history", "timings"): UPKEEP,
    ("images", "images"): ALL_OF_IT,
    ("keys", "api_keys"): ALL_OF_IT,
    ("leases", "paces"): UPKEEP,
    ("leases", "leases"): UPKEEP,
    ("members", "members"): ALL_OF_IT,
    ("members", "bindings"): ALL_OF_IT,
    ("future_times", "replicas"): "after the clock was set back",
    ("future_times", "rollouts"): "after the clock was set back",
    ("organizations", "organizations"): ALL_OF_IT,
    ("registries", "registries"): ALL_OF_IT,
    ("replicas", "replicas"): UPKEEP,
    ("resource_quotas", "images"): SMALL,
    ("resource_quotas", "default_quotas"): SMALL,
    ("roles", "roles"): ALL_OF_IT,
    ("rows", "audit"): ONE_ROW,
    ("rollouts", "rollouts"): "once, by a migration",
    ("secrets", "secrets"): ALL_OF_IT,
    ("shares", "s"): ALL_OF_IT,
    ("usage", "usage"): UPKEEP,
}
PARTS = {
    "table": "audit",
    "of(organization)": rows.of("acme"),
    "_USES": secrets._USES,
    "_IN_FORCE": shares._IN_FORCE,
    "_IS_PRINCIPAL": shares._IS_PRINCIPAL,
}
BUILT_ELSEWHERE = {  # explained by tests of their own: their parts are chosen when they are run
    ("audit", "found"), ("audit", "both"), ("audit_query", "found"), ("audit_query", "inner"),
    ("deployments", "seen"), ("deployments", "_seen"), ("deployments", "sort_by"),
    ("deployments", "direction"), ("replicas", "own"), ("usage", "_WHERE"),
    ("organizations", "column"), ("examination", "wanted"), ("resource_quotas", "_UNDER_WAY"),
}  # fmt: skip


def statements() -> Iterator[tuple[str, str]]:
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text())
        inside = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in ast.walk(node)
            if part is not node
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(map(_part, node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value if id(node) not in inside else ""
            else:
                continue
            if STATEMENT.match(text):
                yield path.stem, text


def _part(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value)
    assert isinstance(value, ast.FormattedValue)
    text = ast.unparse(value.value)
    return PARTS.get(text, f"{{{text}}}")


@pytest.fixture(scope="module")
def files() -> list[sqlite3.Connection]:
    found = []
    for folder in (CONTROL.migrations, USAGE.migrations):
        file = sqlite3.connect(":memory:")
        file.execute("CREATE TABLE schema_migrations (version, name, checksum, applied_at)")
        for step in known_migrations(folder):
            file.executescript(step.sql)
        found.append(file)
    return found


def plan(files: list[sqlite3.Connection], sql: str) -> list[str]:
    names = set(re.findall(r":([a-z_]+)", sql))
    values = dict.fromkeys(names) if names else [None] * sql.count("?")
    for file in files:
        try:
            return [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        except sqlite3.OperationalError as error:
            last = error
    raise last


def test_every_scan_of_a_table_is_meant(files: list[sqlite3.Connection]) -> None:
    tables = {
        name
        for file in files
        for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    } | {"s"}
    wrong, used = [], set()
    for module, sql in statements():
        built = {(module, re.split(r"[.(]", part)[0]) for part in re.findall(r"{(.*?)}", sql)}
        if built and not sql.lstrip().startswith("UPDATE"):
            unknown = sorted(part for _, part in built - BUILT_ELSEWHERE)
            wrong += [(module, part, "explain it in a test of its own") for part in unknown]
        if built:
            continue
        for line in plan(files, sql):
            scanned = re.match(r"SCAN (\w+)", line)
            if scanned is None or scanned[1] not in tables - {"schema_migrations"}:
                continue
            used.add((module, scanned[1]))
            if (module, scanned[1]) not in SCANS:
                wrong.append((module, sql, line))
    assert wrong == [], "\n".join(map(str, wrong))
    assert used == SCANS.keys() & used


@pytest.mark.parametrize(
    ("organization", "also", "order", "lines"),
    [
        ("acme", (), "created_at DESC, id DESC", ["SEARCH deployments USING INDEX"]),
        (None, (), "created_at DESC, id DESC", ["SCAN deployments USING INDEX deployments_by_age"]),
        ("acme", (), "model_name ASC, id ASC", ["SEARCH deployments USING INDEX"]),
    ],
)
def test_a_page_of_deployments_reads_its_organization_s_in_order(
    files: list[sqlite3.Connection],
    organization: str | None,
    also: tuple[str, ...],
    order: str,
    lines: list[str],
) -> None:
    seen = deployments._seen(organization, also)
    found = plan(files, f"SELECT * FROM deployments {seen} ORDER BY {order} LIMIT 20")
    assert len(found) == len(lines)
    for line, beginning in zip(found, lines, strict=True):
        assert line.startswith(beginning)


def test_of_one_organization_s_rows_no_other_s_are_read(files: list[sqlite3.Connection]) -> None:
    for table in ("api_keys", "members", "secrets", "registries", "deployments", "shares"):
        first, *_ = plan(files, f"SELECT * FROM {table} {rows.of('acme')}")
        assert first.startswith(f"SEARCH {table} USING INDEX"), first


def test_an_export_of_use_goes_on_from_its_place_in_the_index(
    files: list[sqlite3.Connection],
) -> None:
    first, *_ = plan(files, usage._OF_DAYS)
    assert first == "SEARCH usage USING PRIMARY KEY (deployment_id=? AND day>? AND day<?)"
    place = "(deployment_id=? AND day=? AND (organization,principal)>(?,?))"
    assert plan(files, usage._REST_OF_DAY) == [f"SEARCH usage USING PRIMARY KEY {place}"]


def test_for_the_users_of_an_organization_s_secrets_no_other_s_rows_are_read(
    files: list[sqlite3.Connection],
) -> None:
    made = [sql for module, sql in statements() if module == "secrets" and "json_each" in sql]
    assert len(made) == 2
    for sql in made:
        read = [
            line
            for line in plan(files, sql)
            if re.search(r"deployments|replicas|rollouts| r ", line)
        ]
        assert len(read) == 5
        assert read[0].startswith("SEARCH deployments USING INDEX")
        assert read[1].startswith("SEARCH r USING COVERING INDEX revision_secrets"), "no spec read"
        assert all(
            re.match(r"SEARCH \w+ USING INDEX \w+ \(deployment_id=\?", line) for line in read[2:]
        )
