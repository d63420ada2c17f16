"""Resident memory and CPU of daemon and NVML helper, idle with five models on the real engine.

Memory is the sum of resident sets, pages shared between the processes counted twice. CPU is user
and system time of both over the measured span, in percent of one core.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.daemon import Daemon, running_daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine, obstacle
from tests.support.gpus import SteeredGpus

_GPUS = 8


def main() -> int:
    """Measure and report."""
    options = _options()
    reason = obstacle()
    if reason is not None:
        print(f"footprint: {reason}", file=sys.stderr)
        return 1
    with contextlib.closing(PrivateEngine()) as engine, tempfile.TemporaryDirectory() as scratch:
        engine.start()
        engine.build_images()
        report = _measure(engine, Path(scratch), options)
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


def _measure(
    engine: PrivateEngine, scratch: Path, options: argparse.Namespace
) -> dict[str, object]:
    gpus = SteeredGpus(scratch)
    for _ in range(_GPUS):
        gpus.add()
    settings = {"runtime.name": '"docker"', "runtime.docker_url": f'"{engine.url}"'}
    with running_daemon(scratch, settings, gpus.environment()) as daemon:
        for number in range(options.models):
            body = deploy_body(f"model-{number}", gpu="0.5", gpu_memory="1Gi")
            answer = daemon.call("POST", "/v1/custom-models/deploy", body)
            daemon.until_ready(answer.json["deployment_id"], 1, 60)
        time.sleep(options.settle)
        return {"models": options.models, "gpus": _GPUS, **_sample(daemon, options.seconds)}


def _sample(daemon: Daemon, seconds: float) -> dict[str, object]:
    assert daemon.process is not None
    parent = psutil.Process(daemon.process.pid)
    family = [parent, *parent.children(recursive=True)]
    before, began = _cpu_seconds(family), time.monotonic()
    time.sleep(seconds)
    span = time.monotonic() - began
    resident = [process.memory_info().rss for process in family]
    return {
        "seconds": round(span, 1),
        "rss_mb": round(sum(resident) / 1e6, 1),
        "daemon_rss_mb": round(resident[0] / 1e6, 1),
        "helper_rss_mb": round(sum(resident[1:]) / 1e6, 1),
        "cpu_percent": round(100 * (_cpu_seconds(family) - before) / span, 3),
    }


def _cpu_seconds(family: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in family]
    return sum(spent.user + spent.system for spent in times)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench footprint")
    parser.add_argument("--json", type=Path, help="write the report here too")
    parser.add_argument("--seconds", type=float, default=60, help="how long to measure")
    parser.add_argument("--settle", type=float, default=10, help="how long to wait before")
    parser.add_argument("--models", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
