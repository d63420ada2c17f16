"""Limits hold at any concurrency and whatever ends the daemon: a real one, real clients.

The model itself counts what reaches it. PRSMD_KILLS and PRSMD_KILL_SECONDS make the run longer.
"""

import collections
import dataclasses
import http.client
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.core.blocks import LARGEST_BLOCK
from tests.support.daemon import Daemon, running_daemon

CLIENTS = 64
KILLS = int(os.environ.get("PRSMD_KILLS", "10"))
KILL_SECONDS = float(os.environ.get("PRSMD_KILL_SECONDS", "2.5"))
SETTINGS = {
    "runtime.name": '"process"',
    "runtime.bundle_dirs": f'["{Path(__file__).parent / "bundles"}"]',
    "runtime.stop_grace_seconds": "2",
    "engine.tick_seconds": "0.5",
    "engine.probe_seconds": "0.5",
    "access.organization": '"company"',
}
QUESTION = json.dumps({"inputs": "x"})


@dataclasses.dataclass(frozen=True)
class Site:
    """A daemon with a model that counts, and the key of a borrower."""

    daemon: Daemon
    counts: Path
    partner: str

    @property
    def reached(self) -> int:
        """How many requests the model has seen."""
        return self.counts.stat().st_size if self.counts.exists() else 0

    def share(self, **limits: int) -> None:
        body = {
            "share_type": "organization",
            "permissions": ["read", "infer"],
            "allowed_organizations": ["partner"],
            "usage_limits": limits,
        }
        told = self.daemon.call("POST", "/v1/custom-models/counter/share", body)
        assert told.status == 201, told

    def left(self) -> dict[str, int]:
        model = self.daemon.call("GET", "/v1/custom-models/counter", key=self.partner).json
        return {one["limit_type"]: one["remaining"] for one in model["share"]["left"]}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    counts = tmp_path / "counts"
    with running_daemon(tmp_path, SETTINGS) as daemon:
        partner = daemon.key("owner", "partner")
        body = {
            "model_name": "counter",
            "deployment_config": {
                "container_image": "company/counter:1",
                "resource_requirements": {"cpu": "100m", "memory": "64Mi"},
                "environment": {"COUNT_FILE": str(counts)},
                "serving": {"max_concurrency": 2 * CLIENTS},
                "scaling": {"min_replicas": 1, "max_replicas": 1},
            },
        }
        daemon.until_ready(daemon.deploy(body), 1)
        yield Site(daemon, counts, partner)


class Clients:
    """Threads that infer until the limit is reached, whatever happens to the daemon."""

    def __init__(self, site: Site, count: int, pause: float = 0.0) -> None:
        self.statuses: collections.Counter[int] = collections.Counter()
        self.refusals: collections.Counter[str] = collections.Counter()
        self.pause = pause
        self._site = site
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float) -> None:
        """Wait until every client was told that the limit is reached."""
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
            time.sleep(self.pause)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        headers = {
            "Authorization": f"Bearer {self._site.partner}",
            "Content-Type": "application/json",
        }
        connection.request("POST", "/v1/models/counter/infer", QUESTION, headers)
        answer = connection.getresponse()
        body: Any = json.loads(answer.read())
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.status == 429:
                self.refusals[body["error"]["details"]["limit_type"]] += 1
        return answer.status == 429

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._site.daemon.tcp_port, timeout=30)


def test_a_hundred_clients_race_for_the_last_one_and_one_gets_it(site: Site) -> None:
    site.share(total_requests=30)
    for _ in range(29):
        told = site.daemon.call(
            "POST", "/v1/models/counter/infer", {"inputs": "x"}, key=site.partner
        )
        assert told.status == 200
    racing = Clients(site, 100)
    racing.start()
    racing.join(60)

    assert racing.statuses == {200: 1, 429: 100}
    assert racing.refusals == {"total_requests": 100}
    assert site.reached == 30


def test_a_clean_restart_forfeits_nothing(site: Site) -> None:
    site.share(requests_per_day=200)
    for _ in range(3):
        for _ in range(20):
            told = site.daemon.call(
                "POST", "/v1/models/counter/infer", {"inputs": "x"}, key=site.partner
            )
            assert told.status == 200
        assert site.daemon.stop() == 0
        site.daemon.start()
    assert site.left() == {"requests_per_day": 140}
    site.daemon.until("a ready replica", lambda: site.daemon.infer("counter").status == 200)
    rest = Clients(site, 8)
    rest.start()
    rest.join(60)
    assert rest.statuses[200] == 140


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_random_the_daemon_never_lets_one_too_many(site: Site) -> None:
    limit = round(240 * KILLS * KILL_SECONDS) + 1000
    site.share(total_requests=limit, requests_per_day=10 * limit)
    clients = Clients(site, CLIENTS, pause=CLIENTS / 200)
    clients.start()
    for _ in range(KILLS):
        threading.Event().wait(random.uniform(0.3, 2 * KILL_SECONDS - 0.3))  # when is what varies
        site.daemon.kill()
        site.daemon.start()
    assert not clients.refusals, "the limit was reached before the last kill: raise it"
    clients.pause = 0.0
    clients.join(300)

    forfeited = limit - site.reached
    told = f"{limit} allowed, {site.reached} reached, {forfeited} forfeited: {clients.statuses}"
    (site.daemon.folder / "limits").write_text(told + "\n")
    assert clients.statuses[200] <= site.reached <= limit, told
    assert 0 <= forfeited <= KILLS * LARGEST_BLOCK, told
    assert set(clients.refusals) == {"total_requests"}
