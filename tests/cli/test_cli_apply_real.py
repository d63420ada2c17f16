"""Declarative files against a real daemon on the embedded runtime, from nothing to an update."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.cli.main import main
from tests.api.conftest import SETTINGS
from tests.support.daemon import Daemon, running_daemon

ROOT = Path(__file__).parents[2]
ONE = """\
model_name: {name}
deployment_config:
  container_image: company/legal-analyzer:v2.1
  resource_requirements: {{cpu: {cpu}, memory: 64Mi}}
  scaling: {{min_replicas: 1, max_replicas: {most}}}
rollout: {{min_ready_seconds: 0}}
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("apply"), SETTINGS, {}) as running:
        yield running


@pytest.fixture
def ctl(daemon: Daemon, monkeypatch, capsys):
    monkeypatch.setenv("PRSMD_URL", f"unix://{daemon.socket}")
    monkeypatch.delenv("PRSMD_API_KEY", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(("--timeout", "30", *arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def wanted(file: Path, cpu: str = "100m", most: int = 2) -> str:
    texts = [ONE.format(name=name, cpu=cpu, most=most) for name in ("first", "second")]
    file.write_text("---\n".join(texts))
    return str(file)


def results(out: str) -> list[tuple[str, str, Any]]:
    return [(item["model_name"], item["result"], item["revision"]) for item in json.loads(out)]


def test_a_file_is_planned_applied_changed_and_applied_again(
    ctl, daemon: Daemon, tmp_path: Path
) -> None:
    file = tmp_path / "models.yaml"
    name = wanted(file)

    code, out, _ = ctl("plan", "-f", name, "--detailed-exitcode")
    assert (code, out.splitlines()[-1]) == (10, "2 to create, 0 to update, 0 unchanged")
    assert daemon.call("GET", "/v1/custom-models").json["total"] == 0, "a plan does nothing"

    code, out, err = ctl("apply", "-f", name, "--wait", "-o", "json")
    assert code == 0, err
    assert results(out) == [("first", "created", 1), ("second", "created", 1)]
    assert daemon.infer("first").status == daemon.infer("second").status == 200

    code, out, _ = ctl("apply", "-f", name, "-o", "json")
    assert results(out) == [("first", "unchanged", 1), ("second", "unchanged", 1)]
    assert ctl("plan", "-f", name, "--detailed-exitcode")[0] == 0

    # What only scales applies to what runs: nothing is launched, nothing ends.
    wanted(file, most=3)
    code, out, _ = ctl("plan", "-f", name)
    assert "~ custom_first: revision 1 -> revision 2 (1.0.0), in place" in out
    assert "scaling.max_replicas: 2 -> 3" in out
    code, out, _ = ctl("apply", "-f", name, "--wait", "-o", "json")
    assert results(out) == [("first", "updated", 2), ("second", "updated", 2)]
    assert {item["message"] for item in json.loads(out)} == {"in place"}
    shown = daemon.call("GET", "/v1/custom-models/first").json
    assert shown["deployment_config"]["scaling"]["max_replicas"] == 3
    status = daemon.status(shown["deployment_id"])
    assert [replica["revision"] for replica in status["replica_details"]] == [1]

    # Another container is rolled out, and a line that is gone is the default again.
    file.write_text(ONE.format(name="first", cpu="200m", most=3).replace("  scaling", "  # "))
    code, out, _ = ctl("apply", "-f", name, "--wait", "-o", "json")
    assert (code, results(out)) == (0, [("first", "updated", 3)])
    shown = daemon.call("GET", "/v1/custom-models/first").json
    assert shown["deployment_config"]["scaling"]["max_replicas"] == 10
    assert shown["deployment_config"]["resource_requirements"]["cpu"] == "200m"
    assert shown["version"] == "1.0.1"
    assert ctl("plan", "-f", name, "--detailed-exitcode")[0] == 0, "it is as the file wants it"


def test_of_a_wrong_document_nothing_of_the_file_is_applied(
    ctl, daemon: Daemon, tmp_path: Path
) -> None:
    file = tmp_path / "models.yaml"
    good = ONE.format(name="third", cpu="100m", most=2)
    wrong = ONE.format(name="fourth", cpu="100m", most=2).replace("max_replicas", "maxreplicas")
    file.write_text(f"{good}---\n{wrong}")
    code, _, err = ctl("apply", "-f", str(file))
    assert code == 2
    place = f"{file}, document 2: fourth: deployment_config.scaling.maxreplicas"
    assert f"{place}: unknown field; did you mean max_replicas?" in err
    assert daemon.call("GET", "/v1/custom-models/third").status == 404


def test_the_example_in_the_repository_is_accepted(ctl, tmp_path: Path) -> None:
    example = str(ROOT / "examples" / "models.yaml")
    code, out, err = ctl("plan", "-f", example)
    assert code == 0, err
    assert "2 to create" in out
