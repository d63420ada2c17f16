"""Time from PUT to fully rolled, under constant load, against the same containers by hand.

For each number of replicas, in one run on one engine, alternating `--repeats` times: prsmd rolls
its replicas over to a new revision, and as many containers with the same options are replaced by
hand (benchmarks/by_hand.py: all new ones at once, wait until they answer, stop the old ones). The
same load flows to the model during both. `seconds` and `by_hand_seconds` are medians, `requests`
and `failed` the load generator's counts over all rollouts of the row: every request that was not
answered rightly at its first attempt.

Two rows for each number: `auto`, as an update is rolled out where nothing is said (a second set of
replicas where it fits, each ready for a second before an old one goes), and `surge` without that
second: what is done by hand.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.by_hand import ByHand
from tests.support.daemon import Daemon, running_daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine, obstacle
from tests.support.fastmodel import FAST_IMAGE, build_image
from tests.support.gpus import SteeredGpus
from tests.support.load import Counted, Load, constant_load

_MODEL = "rolled"
_POLL_SECONDS = 0.02
_ROLLED_SECONDS = 300


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """A way to roll out. `rollout` is the body's field."""

    strategy: str
    rollout: Mapping[str, Any]


def main() -> int:
    """Measure and report."""
    options = _options()
    reason = obstacle()
    if reason is not None:
        print(f"rollout: {reason}", file=sys.stderr)
        return 1
    with contextlib.closing(PrivateEngine()) as engine, tempfile.TemporaryDirectory() as scratch:
        engine.start()
        build_image(engine)
        rows = list(_rows(engine, Path(scratch), options))
    text = json.dumps({"rollouts": rows}, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 1 if any(row["failed"] for row in rows) else 0


def _rows(
    engine: PrivateEngine, scratch: Path, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    gpus = SteeredGpus(scratch)
    settings = {"runtime.name": '"docker"', "runtime.docker_url": f'"{engine.url}"'}
    with running_daemon(scratch, settings, gpus.environment()) as daemon:
        for count in options.replicas:
            at_once = {"strategy": "surge", "max_surge": count, "min_ready_seconds": 0}
            for way in (Way("auto", {}), Way("surge", at_once)):
                yield _row(engine, daemon, way, (count, options))


def _row(
    engine: PrivateEngine, daemon: Daemon, way: Way, case: tuple[int, argparse.Namespace]
) -> dict[str, Any]:
    count, options = case
    deployment = daemon.deploy(_body(count))
    daemon.until_ready(deployment, count, 120)
    hands = ByHand(engine, count)
    hands.start()
    rolled: list[float] = []
    by_hand: list[float] = []
    counts: list[Counted] = []
    try:
        for number in range(options.repeats):
            with _load(daemon, options.rate) as load:
                rolled.append(_roll(daemon, way, f"{way.strategy}-{number}"))
                counts.append(load.stop())
            with _load(daemon, options.rate):
                by_hand.append(hands.replace())
    finally:
        hands.remove()
    daemon.remove_models()
    return {
        "replicas": count,
        "strategy": way.strategy,
        "seconds": round(statistics.median(rolled), 2),
        "by_hand_seconds": round(statistics.median(by_hand), 2),
        "requests": sum(one.sent for one in counts),
        "failed": sum(one.failed + one.cut + one.refused for one in counts),
    }


def _roll(daemon: Daemon, way: Way, tag: str) -> float:
    """Update the model and return the seconds until it is fully rolled out."""
    body: dict[str, Any] = {"deployment_config": {"environment": {"TAG": tag}}}
    if way.rollout:
        body["rollout"] = way.rollout
    began = time.monotonic()
    answer = daemon.call("PUT", f"/v1/custom-models/{_MODEL}", body)
    assert answer.status == 202, answer
    while (found := _rollout(daemon))["phase"] != "completed":
        assert found["phase"] in {"preparing", "trying", "replacing"}, found
        assert time.monotonic() < began + _ROLLED_SECONDS, found
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - began


def _rollout(daemon: Daemon) -> Any:
    return daemon.call("GET", f"/v1/custom-models/{_MODEL}/rollout").json["rollout"]


@contextlib.contextmanager
def _load(daemon: Daemon, rate: float) -> Iterator[Load]:
    with constant_load(daemon.socket, _MODEL, connections=8, rate=rate) as load:
        load.until_answered(20)
        yield load


def _body(count: int) -> dict[str, object]:
    return deploy_body(
        _MODEL,
        container_image=FAST_IMAGE,
        cpu="50m",  # so that twice as many fit on two cores
        memory="64Mi",
        min_replicas=count,
        max_replicas=count,
        environment={"TAG": "first"},
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench rollout")
    parser.add_argument("--json", type=Path, help="write the report here too")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=3, help="of each row")
    parser.add_argument("--rate", type=float, default=300, help="requests a second meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
