"""A real daemon, a model that counts what reaches it, and clients that ask for too much."""

import collections
import dataclasses
import http.client
import itertools
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon

SLOTS = 8
SETTINGS = {
    "runtime.name": '"process"',
    "runtime.bundle_dirs": f'["{Path(__file__).parent / "bundles"}"]',
    "runtime.stop_grace_seconds": "2",
    "engine.tick_seconds": "0.5",
    "engine.probe_seconds": "0.5",
    "access.organization": '"company"',
}
INFER = "/v1/models/counter/infer"
MODEL = "/v1/custom-models/counter"
QUESTION = json.dumps({"inputs": "x"})


@dataclasses.dataclass(frozen=True)
class Site:
    """A daemon with a model that counts, and the key of a borrower."""

    daemon: Daemon
    counts: Path
    partner: str

    @classmethod
    def of(cls, daemon: Daemon) -> "Site":
        """Deploy the model and return when it is ready."""
        made = cls(daemon, daemon.folder / "counts", daemon.key("owner", "partner"))
        body = {
            "model_name": "counter",
            "deployment_config": {
                "container_image": "company/counter:1",
                "resource_requirements": {"cpu": "100m", "memory": "64Mi"},
                "environment": {"COUNT_FILE": str(made.counts)},
                "serving": {"max_concurrency": SLOTS, "queue_depth": 500},
                "scaling": {"min_replicas": 1, "max_replicas": 1},
            },
        }
        daemon.until_ready(daemon.deploy(body), 1)
        return made

    @property
    def reached(self) -> int:
        """How many requests the model has seen."""
        return self._seen.count(b"(")

    @property
    def most_at_once(self) -> int:
        """How many requests the model had at once."""
        steps = ((1 if byte == ord("(") else -1) for byte in self._seen)
        return max(itertools.accumulate(steps), default=0)

    def forget(self) -> None:
        """Begin to count anew."""
        os.truncate(self.counts, 0)

    def hold(self) -> None:
        """Have the model answer nothing, until `let_go`."""
        self._hold.touch()

    def let_go(self) -> None:
        """Have the model answer."""
        self._hold.unlink(missing_ok=True)

    def share(self, **limits: int) -> str:
        """Lend the model to the borrower within these limits, and no others; return the id."""
        for one in self.daemon.call("GET", f"{MODEL}/shares").json["shares"]:
            self.daemon.call("DELETE", f"{MODEL}/shares/{one['share_id']}")
        body = {
            "share_type": "organization",
            "permissions": ["read", "infer"],
            "allowed_organizations": ["partner"],
            "usage_limits": limits,
        }
        told = self.daemon.call("POST", f"{MODEL}/share", body)
        assert told.status == 201, told
        return str(told.json["share_id"])

    def key(self, **limits: int) -> str:
        """Make a key of the owner within these limits."""
        told = self.daemon.call(
            "POST", "/v1/api-keys", {"name": "held", "role": "invoker", **limits}
        )
        assert told.status == 201, told
        return str(told.json["key"])

    def left(self) -> dict[str, int]:
        """Return what the borrower is told is left."""
        model = self.daemon.call("GET", MODEL, key=self.partner).json
        return {one["limit_type"]: one["remaining"] for one in model["share"]["left"]}

    @property
    def _hold(self) -> Path:
        return self.counts.with_name("counts.hold")

    @property
    def _seen(self) -> bytes:
        return self.counts.read_bytes() if self.counts.exists() else b""


class Clients:
    """Threads that infer with a key until they are refused, whatever happens to the daemon.

    `once`: or until they are answered.
    """

    def __init__(
        self, site: Site, count: int, key: str | None = None, *, once: bool = False
    ) -> None:
        self.statuses: collections.Counter[int] = collections.Counter()
        self.refusals: collections.Counter[str] = collections.Counter()
        self._site = site
        self._key = key or site.partner
        self._once = once
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def until_refused(self, count: int, seconds: float = 60) -> None:
        """Return when so many clients were refused."""
        end = time.monotonic() + seconds
        while sum(self.refusals.values()) < count:
            assert time.monotonic() < end, dict(self.statuses)
            time.sleep(0.02)

    def join(self, seconds: float = 60) -> None:
        """Return when every client has ended."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), dict(self.statuses)

    def _run(self) -> None:
        over = False
        connection = self._connect()
        while not over:
            try:
                over = self._ask(connection)
            except (OSError, http.client.HTTPException):
                connection.close()
                connection = self._connect()
                time.sleep(0.05)  # the daemon is dead, or coming back
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection.request("POST", INFER, QUESTION, headers)
        answer = connection.getresponse()
        body: Any = json.loads(answer.read())
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.status == 429:
                self.refusals[body["error"]["details"]["limit_type"]] += 1
        return answer.status == 429 or self._once

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._site.daemon.tcp_port, timeout=30)


def usage(site: Site, names: Sequence[str] = ("requests", "refused")) -> dict[str, int]:
    """Return sums of what the owner is told was used by the borrower."""
    rows = site.daemon.call("GET", f"{MODEL}/usage?limit=100").json["usage"]
    return {
        name: sum(row[name] for row in rows if row["organization"] == "partner") for name in names
    }
