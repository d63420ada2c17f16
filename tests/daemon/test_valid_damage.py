"""Text in a state that SQLite finds sound and prsmd never wrote: words, never a traceback."""

import contextlib
import shutil
import sqlite3

import aiohttp
import pytest

from prsmd import daemon as program
from prsmd.api.app import OPERATIONS
from prsmd.listeners import Certificate
from prsmd.store.migrate import CONTROL, USAGE, known_migrations
from tests.daemon.conftest import PROCESS
from tests.daemon.test_damage import MODEL, REFUSALS, in_words, settings_of
from tests.support.daemon import running_daemon

FILES = {"control.db": CONTROL, "usage.db": USAGE}
# No JSON; and for columns that hold it, JSON of another kind, or of another column.
TEXTS = ("gärbled", "{}", "[1]", '["garbled"]', '{"replicas": "x"}')
ONCE = {"Idempotency-Key": "once"}
REPEATED = {"name": "repeated", "role": "viewer"}
# What no call of the fixture leaves behind.
ROWS = {
    "control.db": """
        INSERT INTO replicas SELECT
            'gone', id, organization, revision, 0, 'failed',
            '{"node": "local", "cpu_millis": 100, "memory_bytes": 1024}',
            'container', '127.0.0.1', 8000, 1.0, 1.0, 1.0, 1.0, 2.0,
            '{"kind": "exited", "message": "it ended"}'
        FROM deployments;
        INSERT INTO events
            (deployment_id, organization, replica_id, reason, message, severity, at)
        SELECT id, organization, 'gone', 'Ended', 'it ended', 'normal', 1.0 FROM deployments;
        UPDATE deployments SET recommendation =
            '{"replicas": 0, "reasons": [], "utilization": null, "at": 1.0}';
        INSERT INTO timings (organization, image, phase, seconds, at)
            VALUES ('company', 'some', 'start', 1.0, 1.0);
        INSERT INTO images (id, reference, digest, organization, origin, private, by, at)
            VALUES ('sha256:1', 'some', 'sha256:1', 'company', 'loaded', 0, 'unix:0', 1.0);
        INSERT INTO leases VALUES ('key:some', 1, 1);
        INSERT INTO paces VALUES ('key:some', 1.0);
        UPDATE api_keys SET models = '["some"]', networks = '["127.0.0.0/8"]'
            WHERE name = 'repeated';
    """,
    "usage.db": """
        INSERT INTO usage VALUES
            (20000, 'some', 'company', 'unix:0', 'company', 'some', 1, 0, 0, 1.0, 1, 1);
    """,
}


def columns(name):
    """Return the text columns of a file, as its migrations make them."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        for migration in known_migrations(FILES[name]):
            database.executescript(migration.sql)
        query = (
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c"
            " WHERE t.type = 'table' AND c.type = 'TEXT' AND t.name NOT LIKE 'sqlite_%'"
            " AND t.name <> 'audit_before_chain'"
        )
        return [(name, *row) for row in database.execute(query).fetchall()]


COLUMNS = [
    *(each for name in FILES for each in columns(name)),
    *((name, "schema_migrations", column) for name in FILES for column in ("name", "checksum")),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A state that has a row in every table, and the names that its routes are asked with."""
    folder = tmp_path_factory.mktemp("valid")
    with running_daemon(folder, PROCESS) as daemon:
        viewer = daemon.key("viewer", "rival")
        deployment = daemon.deploy(MODEL)
        changed = {"model_metadata": {"description": "another", "version": "1.0.1"}}
        assert daemon.call("PUT", f"/v1/custom-models/{deployment}", changed).status < 300
        more = {"deployment_config": {"environment": {"A": "b"}}}
        assert daemon.call("PUT", f"/v1/custom-models/{deployment}", more).status < 300
        role = {"name": "own", "description": "d", "permissions": ["models.read"]}
        member = {"kind": "uid", "subject": "4711", "bindings": [{"role": "viewer"}]}
        share = {"allowed_organizations": ["rival"], "permissions": ["read"]}
        login = {"username": "u", "password": "p"}
        for method, path, body in (
            ("POST", "/v1/roles", role),
            ("POST", "/v1/members", member),
            ("POST", f"/v1/custom-models/{deployment}/share", share),
            ("PUT", "/v1/registries/registry.local", login),
            ("PUT", "/v1/secrets/token", {"value": "hidden"}),
            ("PATCH", "/v1/organizations/rival/quota", {"hard": {"keys": 9}}),
        ):
            answer = daemon.call(method, path, body)
            assert answer.status < 300, (method, path, answer)
        made = daemon.call("POST", "/v1/api-keys", REPEATED, headers=ONCE)
        assert made.status == 201, made
        assert daemon.call("POST", "/v1/custom-models/deploy", MODEL, key=viewer).status == 403
        daemon.infer("nothing")
        daemon.stop()
        shutil.copytree(folder / "state", folder / "whole", ignore=shutil.ignore_patterns("lock"))
        for name, script in ROWS.items():
            with contextlib.closing(sqlite3.connect(folder / "whole" / name)) as database:
                database.executescript(script)
        daemon.start()
    names = {"{deployment_id}": deployment, "{model_id}": deployment, "{organization_id}": "rival"}
    return folder / "whole", {**names, "{key_id}": made.json["key_id"]}


def texts_for(path, table, column):
    """Return the texts to try: more of them where JSON is kept."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
        held = any(str(value).startswith(("{", "[")) for [value] in rows)
    return TEXTS if held else TEXTS[:1]


def damage(path, table, column, text):
    """Put the text into one row, as far as keys allow into each; return how many have it."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        done = database.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (text,))
        database.commit()
        return done.rowcount


async def refusal_or_answers(state, names):
    """Start on a state and ask all that can be read; return the refusal, and the answers' texts."""
    settings = settings_of(state)
    async with contextlib.AsyncExitStack() as stack:
        try:
            appliance, _ = await program._start(settings, stack, Certificate(settings.tcp))
        except REFUSALS as refusal:
            return refusal, []
        await appliance.watch.look()
        await appliance.auditing.flusher.flush()
        await appliance.auditing.notary.attest()
        connector = aiohttp.UnixConnector(f"{state}.sock")
        async with aiohttp.ClientSession("http://localhost", connector=connector) as client:
            return None, await answers(client, names)


async def answers(client, names):
    found = []
    for operation in OPERATIONS:
        if operation.method == "GET":
            path = operation.path
            for name, value in names.items():
                path = path.replace(name, value)
            async with client.get(path) as answer:
                found.append(f"{path} {await answer.text()}")
    async with client.post("/v1/api-keys", json=REPEATED, headers=ONCE) as answer:
        found.append(f"once {await answer.text()}")
    return found


def test_no_table_of_the_state_is_empty(whole):
    folder, _ = whole
    empty = []
    for name, table in {(name, table) for name, table, _ in COLUMNS}:
        with contextlib.closing(sqlite3.connect(folder / name)) as database:
            if not database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]:
                empty.append((name, table))
    assert empty == []


async def test_without_damage_everything_is_answered(whole, tmp_path):
    folder, names = whole
    shutil.copytree(folder, tmp_path / "state")
    refusal, texts = await refusal_or_answers(tmp_path / "state", names)
    assert refusal is None
    assert [text for text in texts if '{"error":{"code"' in text] == []


@pytest.mark.parametrize(("name", "table", "column"), COLUMNS)
async def test_a_start_works_or_names_the_column(whole, tmp_path, caplog, name, table, column):
    folder, names = whole
    for number, text in enumerate(texts_for(folder / name, table, column)):
        state = tmp_path / str(number)
        shutil.copytree(folder, state)
        assert damage(state / name, table, column, text)
        refusal, texts = await refusal_or_answers(state, names)
        assert "Traceback" not in caplog.text, (text, caplog.text)
        assert [each for each in texts if "Something failed here" in each] == [], text
        if refusal is not None:
            assert name == "control.db", (text, refusal)
            assert in_words(refusal), (text, refusal)
        shutil.rmtree(state)
