"""A daemon that was stopped and goes on (SIGSTOP, SIGCONT), with real replicas in flight."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, running_daemon
from tests.support.daemon_fixtures import deploy_body

TIMEOUT = 2.0
STOPPED_SECONDS = 1.5 * TIMEOUT
SERVER = """
import http.server, json, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.5)  # so that a probe is in flight nearly all the time
        self.answer({})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"outputs": 1})

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

address = (os.environ["HOST"], int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""
BUNDLE = """
references = ["company/slow-to-tell:v1"]
command = ["{python}", "server.py"]
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    bundle = tmp_path / "bundles" / "slow-to-tell"
    bundle.mkdir(parents=True)
    (bundle / "bundle.toml").write_text(BUNDLE)
    (bundle / "server.py").write_text(SERVER)
    settings = {
        "runtime.name": '"process"',
        "runtime.bundle_dirs": f'["{bundle.parent}"]',
        "runtime.stop_grace_seconds": "2",
        "engine.tick_seconds": "0.2",
        "engine.probe_seconds": "0.01",
        "engine.probe_timeout_seconds": str(TIMEOUT),
        "engine.liveness_failures": "1",
        "access.organization": '"company"',
    }
    with running_daemon(tmp_path, settings) as started:
        yield started


def stand_still(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    daemon.process.send_signal(signal.SIGCONT)


def test_it_holds_nothing_against_the_replicas(daemon: Daemon) -> None:
    model = deploy_body("slow", container_image="company/slow-to-tell:v1", min_replicas=3)
    deployment = daemon.deploy(model)
    daemon.until_ready_at_least(deployment, 3)
    before = {row["replica_id"] for row in replicas(daemon, deployment)}
    stop = threading.Event()
    statuses: list[int] = []

    def infer() -> None:
        while not stop.is_set():
            statuses.append(daemon.infer("slow").status)

    clients = [threading.Thread(target=infer) for _ in range(4)]
    for client in clients:
        client.start()
    for _ in range(2):
        stand_still(daemon)
        seen = len(statuses)
        daemon.until("inference goes on", lambda seen=seen: len(statuses) > seen + 20)
    stop.set()
    for client in clients:
        client.join()

    assert {row["replica_id"] for row in replicas(daemon, deployment)} == before
    assert set(statuses) == {200}
    assert not daemon.events(deployment, "LivenessFailed")
    assert not daemon.events(deployment, "NotReady")
    assert "the event loop stood still for" in daemon.log
    metrics = daemon.call("GET", "/metrics").raw.decode()
    lost = re.search(r'prsmd_stalled_seconds_total\{cause="loop"\} (\S+)', metrics)
    assert lost is not None
    assert float(lost[1]) >= 2 * STOPPED_SECONDS - 1
    assert "prsmd_event_loop_lag_seconds" in metrics


def replicas(daemon: Daemon, deployment: str) -> list[dict[str, object]]:
    return list(daemon.status(deployment)["replica_details"])
