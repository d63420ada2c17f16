"""How long hostile callers keep the daemon from answering others, and how much memory they take.

For each kind of hostile request (benchmarks/hostile/cases.py), from an unauthenticated client, from
the weakest key and from a tenant's owner, on one daemon: the longest time between two answers of
`/healthz`, and of another tenant's inference with its own model, while it lasts and until both
answer as before; and the peak of the daemon's resident memory. `gap_ms` is the longer of the two
gaps. `idle_gap_ms` is what both come to while the same senders wait.

The senders are processes of this machine and share its processors with what is measured: they run
at a lower priority, and `harmless requests of equal weight` tells what their work alone costs.
`late_ms` is by how much the watches themselves were late: so much of a gap is the machine's.
A daemon that keeps memory after a case (`kept_mb`) is replaced by a new one; its models go on.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.hostile.cases import CASES, Case
from benchmarks.hostile.senders import Plan, Senders
from benchmarks.hostile.site import Site, running_site

_DESCRIPTORS = 65536  # as many as the unit gives the daemon
_KEPT_MB = 100.0
_SETTLE_SECONDS = 90.0
_MOST_MB = 6000.0  # the senders are stopped there, for the sake of the machine
_POLL_SECONDS = 0.05


def main() -> int:
    """Measure and report."""
    options = _options()
    if options.list:
        print("\n".join(f"{case.position}: {case.name}" for case in CASES))
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _DESCRIPTORS), hard))
    chosen = [case for case in CASES if not options.only or case.name in options.only]
    if options.only and len(chosen) < len(set(options.only)):
        print("stall: --only names a case that is not there; see --list", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then too
    reports = [
        _measured([case for case in chosen if case.tls is tls], options, tls=tls)
        for tls in sorted({case.tls for case in chosen})
    ]
    rows = [row for report in reports for row in report["cases"]]
    text = json.dumps({**reports[0], "cases": rows}, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


def _measured(cases: Sequence[Case], options: argparse.Namespace, *, tls: bool) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_site(Path(scratch), 0 if tls else options.records, tls=tls) as site,
    ):
        return _measure(site, cases, options.seconds)


def _measure(site: Site, cases: Sequence[Case], seconds: float) -> dict[str, Any]:
    site.settle(_SETTLE_SECONDS)
    idle_gap, idle_mb = _idle(site, seconds)
    rows = []
    for case in cases:
        rows.append(_row(site, case, seconds, idle_mb))
        row = rows[-1]
        told = f"{row['gap_ms']:9.1f} ms {row['peak_rss_mb']:7.1f} MB  {case.name}"
        print(told, row["statuses"], file=sys.stderr, flush=True)
    return {"idle_gap_ms": idle_gap, "idle_rss_mb": idle_mb, "cases": rows}


def _idle(site: Site, seconds: float) -> tuple[float, float]:
    """Return the gap while senders wait, and what is resident then."""
    senders = Senders(Plan(), site.daemon.tcp_port, seconds)
    site.mark()
    time.sleep(seconds)
    gap = max(site.health.gap_ms, site.inference.gap_ms)
    senders.end()
    return gap, site.resident_mb()


def _row(site: Site, case: Case, seconds: float, idle_mb: float) -> dict[str, Any]:
    before = site.replicas()
    senders = Senders(case.plan(site), site.daemon.tcp_port, seconds)
    site.settle(_SETTLE_SECONDS)
    site.mark()
    senders.begin()
    stopped = _until_sent(site, senders, seconds)
    counted = senders.end()
    settled = site.alive and site.settle(_SETTLE_SECONDS)
    row = {
        "name": case.name,
        "gap_ms": max(site.health.gap_ms, site.inference.gap_ms),
        "peak_rss_mb": site.resident_mb("VmHWM") if site.alive else None,
        "position": case.position,
        "healthz_gap_ms": site.health.gap_ms,
        "inference_gap_ms": site.inference.gap_ms,
        "late_ms": max(site.health.late_ms, site.inference.late_ms),
        "failed_inferences": site.inference.failures,
        "requests": counted.pop("requests", 0),
        "sent_ms": counted.pop("ms", None),
        "statuses": counted,
        "stopped": stopped,
        "settled": settled,
    }
    row["kept_mb"] = _refresh(site, idle_mb)
    row["replicas"], row["survived_replicas"] = len(before), len(before & site.replicas())
    return row


def _until_sent(site: Site, senders: Senders, seconds: float) -> bool:
    """Wait until the senders are ready or late; tell whether the daemon took too much memory."""
    end = time.monotonic() + seconds + 2
    while senders.working() and time.monotonic() < end and site.alive:
        if site.resident_mb() > _MOST_MB:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _refresh(site: Site, idle_mb: float) -> float:
    """Remove what the case left; return how much memory the daemon kept, and replace such a one."""
    if not site.alive:
        site.daemon.start()
    site.tidy()
    kept = round(max(0.0, site.resident_mb() - idle_mb), 1)
    if kept > _KEPT_MB:
        site.daemon.stop()
        site.daemon.start()
    site.settle(_SETTLE_SECONDS)
    return kept


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench stall")
    parser.add_argument("--json", type=Path, help="write the report here too")
    parser.add_argument("--seconds", type=float, default=6, help="how long senders have at most")
    parser.add_argument("--records", type=int, default=300_000, help="in each audit log")
    parser.add_argument("--only", action="append", metavar="NAME", help="this case, and others so")
    parser.add_argument("--list", action="store_true", help="name the cases")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
