"""Damaged files of a state: refused in words or made up for, never a traceback."""

import contextlib
import os
import random
import shutil
import sqlite3

import pytest

from prsmd import daemon as program
from prsmd.config import ConfigurationError, load
from prsmd.listeners import Certificate
from prsmd.store.errors import StoreDamagedError, StoreNotItsOwnError, StoreSchemaError
from tests.daemon.conftest import PROCESS
from tests.support.daemon import running_daemon

DAMAGES = int(os.environ.get("PRSMD_DAMAGES", "12"))
CONTROL = ("control.db", "control.db-wal", "control.db-shm", "control.head")
USAGE = ("usage.db", "usage.db-wal", "usage.db-shm")
BESIDE = (
    *("audit-checkpoints.jsonl", "audit-public-keys.pem"),
    *("audit-key", "pepper", "envelope-key"),
)
REFUSALS = (StoreDamagedError, StoreNotItsOwnError, StoreSchemaError, ConfigurationError)
MODEL = {
    "model_name": "some-model",
    "model_type": "text-classification",
    "deployment_config": {
        "container_image": "company/legal-analyzer:v2.1",
        "resource_requirements": {"cpu": "100m", "memory": "64Mi", "gpu": "0"},
        "scaling": {"min_replicas": 0, "max_replicas": 2, "target_utilization": 0.7},
    },
    "model_metadata": {"description": "a model", "version": "1.0.0"},
}


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory):
    """Copies of a state: of a daemon that was killed, with -wal files, and that was stopped."""
    folder = tmp_path_factory.mktemp("damage")
    with running_daemon(folder, PROCESS) as daemon:
        daemon.key("viewer", "rival")
        daemon.deploy(MODEL)
        daemon.call("PUT", "/v1/secrets/token", {"value": "hidden"})
        daemon.infer("nothing")
        daemon.until("usage is written", lambda: (folder / "state" / "usage.db-wal").stat().st_size)
        daemon.kill()
        shutil.copytree(folder / "state", folder / "killed")
        daemon.start()
        daemon.stop()
        shutil.copytree(folder / "state", folder / "stopped")
        daemon.start()
    for copy in ("killed", "stopped"):
        (folder / copy / "lock").unlink()
    return folder


def settings_of(folder):
    """Return the settings of a daemon whose state is in `folder`."""
    own = [f'daemon.state_dir="{folder}"', f'unix.path="{folder}.sock"', "tcp.port=0"]
    return load(None, {}, [*own, *(f"{name}={value}" for name, value in PROCESS.items())])


async def outcome(folder):
    """Start everything but the listeners' loops in this process; return the refusal, or None."""
    settings = settings_of(folder)
    async with contextlib.AsyncExitStack() as stack:
        try:
            appliance, _ = await program._start(settings, stack, Certificate(settings.tcp))
        except REFUSALS as refusal:
            return refusal
        await appliance.watch.look()
        await appliance.auditing.flusher.flush()
        await appliance.auditing.notary.attest()
    return None


def damage(path, chance):
    """Change a file in one of the ways that disks, crashes and people do."""
    content = bytearray(path.read_bytes())
    size = len(content)
    at = chance.randrange(max(1, size))
    match chance.randrange(6):
        case 0:
            content[at : at + chance.choice((1, 16, 512))] = b""
        case 1:
            content = content[:at]
        case 2:
            content[at : at + 512] = bytes(min(512, size - at))
        case 3:
            content[at : at + 64] = chance.randbytes(min(64, size - at))
        case 4:
            for _ in range(20):
                content[chance.randrange(max(1, size))] = chance.randrange(256)
        case _:
            content = bytearray(chance.randbytes(size))
    path.write_bytes(content)


async def damaged(lived_in, tmp_path, name, number):
    """Return what a start says to one damage of a file, and that file before and after."""
    chance = random.Random(f"{name} {number}")
    kind = "killed" if number % 2 or name.endswith(("-wal", "-shm")) else "stopped"
    state = tmp_path / f"state-{number}"
    shutil.copytree(lived_in / kind, state)
    damage(state / name, chance)
    found = await outcome(state)
    shutil.rmtree(state)
    return found


def in_words(refusal):
    """Whether a refusal says which file, what is wrong and what to do."""
    text = str(refusal) if isinstance(refusal, ConfigurationError) else refusal.message
    hints = ("Restore a backup", "Put back", "Install", "access.", "bytes are needed")
    return any(hint in text for hint in hints)


@pytest.mark.parametrize("name", [*CONTROL, *BESIDE])
async def test_damage_is_refused_in_words_or_harmless(lived_in, tmp_path, caplog, name):
    for number in range(DAMAGES):
        refusal = await damaged(lived_in, tmp_path, name, number)
        assert refusal is None or in_words(refusal), (number, refusal)
        assert "Traceback" not in caplog.text, (number, caplog.text)


@pytest.mark.parametrize("name", USAGE)
async def test_damage_of_the_usage_file_stops_no_start(lived_in, tmp_path, caplog, name):
    for number in range(DAMAGES):
        assert await damaged(lived_in, tmp_path, name, number) is None, number
        assert "Traceback" not in caplog.text, (number, caplog.text)


async def test_without_damage_both_start(lived_in, tmp_path):
    for kind in ("killed", "stopped"):
        shutil.copytree(lived_in / kind, tmp_path / kind)
        assert await outcome(tmp_path / kind) is None


def text_columns(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        query = (
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c"
            " WHERE t.type = 'table' AND c.type = 'TEXT' AND t.name NOT LIKE 'sqlite_%'"
        )
        return [
            (table, column)
            for table, column in database.execute(query)
            if database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        ]


@pytest.mark.parametrize("name", ["control.db", "usage.db"])
async def test_what_is_no_text_in_any_column_is_no_traceback(lived_in, tmp_path, caplog, name):
    columns = text_columns(lived_in / "stopped" / name)
    assert len(columns) >= 5
    for table, column in columns:
        state = tmp_path / f"{table}-{column}"
        shutil.copytree(lived_in / "stopped", state)
        with contextlib.closing(sqlite3.connect(state / name)) as database:
            database.execute("PRAGMA ignore_check_constraints = ON")
            text = "CAST(x'ff80fe' AS TEXT)"
            database.execute(f"UPDATE OR IGNORE {table} SET {column} = {text}")
            database.commit()
        refusal = await outcome(state)
        assert "Traceback" not in caplog.text, (table, column, caplog.text)
        if name == "usage.db":
            assert refusal is None, (table, column, refusal)
        elif table != "audit":
            assert refusal is not None, (table, column)
            assert in_words(refusal), (table, column, refusal)
        shutil.rmtree(state)
