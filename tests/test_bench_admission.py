"""The measurement of what admission costs is there to be called, and reports what it should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_admission_is_measured_with_few_and_with_many_keys(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.admission", "--json", str(report)]
    few = ["--rounds", "2", "--inferences", "400"]
    subprocess.run([*command, *few], cwd=ROOT, check=True, capture_output=True, timeout=120)
    told = json.loads(report.read_text())
    assert all(told[name] > 0 for name in ("us_10", "us_10000", "us_10000_cold"))


@pytest.mark.parametrize("name", ["footprint", "admission", "rollout", "stall"])
def test_scripts_bench_knows_each_measurement(name: str) -> None:
    [line] = [row for row in (ROOT / "scripts/bench").read_text().splitlines() if ") ;;" in row]
    assert name in line.strip().removesuffix(") ;;").split(" | ")
    assert (ROOT / "benchmarks" / f"{name}.py").is_file()
