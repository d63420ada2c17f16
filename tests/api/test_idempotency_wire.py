"""A whole daemon, the SDK, and a wire that is cut before the first answer arrives."""

import contextlib
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from prsm_sdk import PRSMClient
from tests.api.conftest import SETTINGS
from tests.support.daemon import Daemon, running_daemon
from tests.support.gpus import SteeredGpus

WANTED = {
    "model_name": "analyzer",
    "container_image": "company/legal-analyzer:v2.1",
    "resource_requirements": {"cpu": "100m", "memory": "64Mi"},
    "scaling": {"min_replicas": 0, "max_replicas": 2},
}


class CutsTheFirstAnswer:
    """A Unix socket before a daemon. It keeps the first answer to itself and ends the connection.

    `between` is called when the daemon has answered and the client has not been told.
    """

    def __init__(self, path: Path, daemon: Daemon, between: Callable[[], None]) -> None:
        self.kept = b""
        self.url = f"unix://{path}"
        self._daemon = daemon
        self._between = between
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="cuts-the-first-answer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                client, _ = self._listener.accept()
                with client, socket.socket(socket.AF_UNIX) as server:
                    server.connect(str(self._daemon.socket))
                    self._carry(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Carry one request and its answer; the first answer stays here."""
        upwards = threading.Thread(target=_pump, args=(client, server), name="upwards")
        upwards.start()
        if not self.kept:
            self.kept = server.recv(65536)
            self._between()
            client.shutdown(socket.SHUT_RDWR)
        else:
            _pump(server, client)
        upwards.join(60)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    gpus = SteeredGpus(tmp_path)
    with running_daemon(tmp_path, SETTINGS, gpus.environment()) as daemon:
        yield daemon


def rows(daemon: Daemon, query: str) -> list[tuple[Any, ...]]:
    path = daemon.folder / "state" / "control.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


async def deploy_through(wire: CutsTheFirstAnswer) -> str:
    async with PRSMClient(base_url=wire.url) as client:
        return (await client.custom_models.deploy(**WANTED)).deployment_id


@pytest.mark.parametrize("ending", ["cut", "killed"])
async def test_a_deploy_whose_answer_was_lost_is_tried_again_by_the_sdk_and_gets_that_answer(
    daemon: Daemon, tmp_path: Path, ending: str
) -> None:
    def between() -> None:
        if ending == "killed":
            daemon.kill()
            daemon.start()

    with CutsTheFirstAnswer(tmp_path / "wire.sock", daemon, between) as wire:
        deployment = await deploy_through(wire)

    assert b"202 Accepted" in wire.kept
    assert b"Idempotent-Replayed" not in wire.kept
    assert rows(daemon, "SELECT id FROM deployments") == [(deployment,)]
    recorded = "SELECT subject FROM audit WHERE action = 'models.deploy'"
    assert rows(daemon, recorded) == [(deployment,)]
    assert rows(daemon, "SELECT count(*) FROM remembered_answers") == [(1,)]
    if ending == "cut":
        assert deployment.encode() in wire.kept


def test_killed_and_started_again_the_daemon_still_knows_what_it_answered(daemon: Daemon) -> None:
    body = {
        "model_name": "analyzer",
        "deployment_config": {
            name: value for name, value in WANTED.items() if name != "model_name"
        },
    }
    once = {"Idempotency-Key": "monday's deploy"}
    path = "/v1/custom-models/deploy"
    first = daemon.call("POST", path, body, headers=once)
    daemon.kill()
    daemon.start()
    again = daemon.call("POST", path, body, headers=once)

    assert first.status == again.status == 202
    assert first.raw == again.raw
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(rows(daemon, "SELECT id FROM deployments")) == 1
