"""The measurement of stalls is there to be called, covers what it should, and reports its form."""

import collections
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.hostile import payloads
from benchmarks.hostile.cases import CASES

ROOT = Path(__file__).parents[1]
_FEW = ("harmless requests of equal weight", "denied changes")


@pytest.mark.slow
def test_gaps_and_peaks_are_measured_for_the_cases_that_are_asked_for(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.stall", "--json", str(report)]
    few = ["--seconds", "1", "--records", "10", *(f"--only={name}" for name in _FEW)]
    subprocess.run([*command, *few], cwd=ROOT, check=True, capture_output=True, timeout=110)
    told = json.loads(report.read_text())
    assert told["idle_gap_ms"] > 0
    assert [case["name"] for case in told["cases"]] == [*_FEW]
    for case in told["cases"]:
        assert case["gap_ms"] == max(case["healthz_gap_ms"], case["inference_gap_ms"]) > 0
        assert case["peak_rss_mb"] > 0
        assert case["requests"] > 0
        assert case["survived_replicas"] == case["replicas"] == 3
    assert set(told["cases"][1]["statuses"]) == {"403"}


def test_a_case_that_is_not_there_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.stall", "--only", "nothing of the kind"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert b"--list" in done.stderr


def test_each_position_has_several_cases_and_each_case_its_own_name() -> None:
    positions = collections.Counter(case.position for case in CASES)
    assert set(positions) == {"unauthenticated", "weakest key", "tenant's owner"}
    assert min(positions.values()) >= 5
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("make", [payloads.gzip_bomb, payloads.deflate_bomb])
def test_a_bomb_is_small_and_inflates_to_what_it_says(make: Callable[[int], bytes]) -> None:
    bomb = make(32)
    assert len(bomb) < 64 * 1024
    whole = zlib.decompress(bomb, wbits=32 + zlib.MAX_WBITS)
    assert whole == bytes(32 * payloads.MIB)


def test_unknown_fields_are_json_and_as_large_as_asked_for() -> None:
    made = payloads.unknown_fields(10_000)
    assert 9_900 < len(made) <= 10_000
    assert len(json.loads(made)) > 500
