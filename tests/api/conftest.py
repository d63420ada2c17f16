"""One daemon on the embedded runtime for all API tests: two organizations, steered GPUs."""

import dataclasses
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.api.document import DEPLOY
from tests.api.wire import exchange
from tests.support.daemon import Daemon, running_daemon
from tests.support.gpus import SteeredGpus

SETTINGS = {
    "runtime.name": '"process"',
    "runtime.bundle_dirs": f'["{Path(__file__).parent / "bundles"}"]',
    "runtime.stop_grace_seconds": "2",
    "engine.tick_seconds": "0.5",
    "engine.probe_seconds": "0.5",
    "engine.drain_timeout_seconds": "2",
    "gpus.sample_seconds": "0.3",
    "access.organization": '"company"',
    "access.failed_attempts_per_minute": "60000",
    "audit.denials_per_minute": "100000",
    "limits.body": '"64Ki"',
    "limits.header_timeout_seconds": "0.5",
    "limits.body_timeout_seconds": "0.5",
    "limits.idle_timeout_seconds": "3",
}
ROLES = ("viewer", "operator", "invoker", "owner")


@dataclasses.dataclass(frozen=True)
class Site:
    """A daemon with the document's model running, and a model of another organization."""

    daemon: Daemon
    accepted: dict[str, Any]
    keys: dict[str, str]
    other_key: str
    other_deployment: str
    other_model: str

    def rows(self) -> dict[str, Any]:
        """What the store holds of desired state, keys and history."""
        path = self.daemon.folder / "state" / "control.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return {
                table: [
                    {name: row[name] for name in row.keys() if name != "last_used_at"}  # noqa: SIM118 - a row is no dict
                    for row in database.execute(f"SELECT * FROM {table} ORDER BY rowid")
                ]
                for table in (
                    "deployments",
                    "revisions",
                    "rollouts",
                    "replicas",
                    "organizations",
                    "members",
                    "roles",
                    "api_keys",
                    "events",
                )
            }

    def state(self) -> dict[str, Any]:
        """All that a refused request must leave as it is."""
        answers = {
            path: self.daemon.call("GET", path).json
            for path in ("/v1/custom-models", "/v1/api-keys", "/v1/models")
        }
        for key in answers["/v1/api-keys"]["api_keys"]:
            del key["last_used_at"]  # being used is no change
        return {**self.rows(), **answers}

    def audit(self) -> list[tuple[Any, ...]]:
        """The audit, what was denied included: action, subject, outcome, principal, request id."""
        path = self.daemon.folder / "state" / "control.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            columns = "action, subject, outcome, principal, request_id"
            query = f"SELECT {columns}, at FROM audit UNION ALL SELECT {columns}, at FROM denials"
            return database.execute(f"SELECT {columns} FROM ({query}) ORDER BY at").fetchall()

    def tcp(self, raw: bytes) -> bytes:
        """Send bytes over TCP and return everything that comes back until the end."""
        return exchange(("127.0.0.1", self.daemon.tcp_port), raw)

    def unix(self, raw: bytes) -> bytes:
        """The same over the Unix socket."""
        return exchange(str(self.daemon.socket), raw)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give the site; tests leave its two models as they are."""
    folder = tmp_path_factory.mktemp("api")
    gpus = SteeredGpus(folder)
    gpus.add("NVIDIA T4")
    with running_daemon(folder, SETTINGS, gpus.environment()) as daemon:
        daemon.until("GPU telemetry", lambda: daemon.call("GET", "/v1/gpus").json["gpus"])
        keys = {role: daemon.key(role) for role in ROLES}
        other_key = daemon.key("owner", "rival")
        accepted = daemon.call("POST", "/v1/custom-models/deploy", DEPLOY)
        assert accepted.status == 202, accepted
        daemon.until_ready(accepted.json["deployment_id"], 1)
        plans = small("rival-plans", min_replicas=0)  # the document's model fills a small machine
        theirs = daemon.call("POST", "/v1/custom-models/deploy", plans, key=other_key)
        assert theirs.status == 202, theirs
        daemon.until_ready(theirs.json["deployment_id"], 0)
        yield Site(
            daemon=daemon,
            accepted=accepted.json,
            keys=keys,
            other_key=other_key,
            other_deployment=theirs.json["deployment_id"],
            other_model=theirs.json["model_id"],
        )


def small(name: str, **scaling: Any) -> dict[str, Any]:
    """Return the request for a small model without GPU."""
    return {
        "model_name": name,
        "deployment_config": {
            "container_image": "company/legal-analyzer:v2.1",
            "resource_requirements": {"cpu": "100m", "memory": "64Mi"},
            "scaling": {"min_replicas": 1, "max_replicas": 2, **scaling},
        },
    }
