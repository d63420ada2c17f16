"""The document's own request and program, unchanged, on the real example model in a container."""

import ast
import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import ROOT, Daemon
from tests.support.engine import BASE_IMAGE, PrivateEngine
from tests.support.gpus import SteeredGpus

pytestmark = pytest.mark.engine
IMAGE = "company/legal-analyzer:v2.1"
PROGRAM = ROOT / "tests" / "sdk" / "document_program.py"
DEPLOY = """{
  "model_name": "company-legal-analyzer-v2",
  "model_type": "text-classification",
  "deployment_config": {
    "container_image": "company/legal-analyzer:v2.1",
    "resource_requirements": {
      "cpu": "2",
      "memory": "8Gi",
      "gpu": "1"
    },
    "scaling": {
      "min_replicas": 1,
      "max_replicas": 10,
      "target_utilization": 0.7
    }
  },
  "model_metadata": {
    "description": "Legal document analysis model",
    "version": "2.1.0",
    "capabilities": ["classification", "entity-extraction"],
    "domains": ["legal", "compliance"]
  }
}"""
INFER = """{
  "inputs": {
    "text": "This is a legal document for review",
    "document_type": "contract"
  },
  "parameters": {
    "confidence_threshold": 0.8,
    "return_entities": true
  }
}"""


@pytest.fixture(scope="module")
def legal_analyzer(shared_engine: PrivateEngine) -> str:
    """Give the language-id example under the document's image name."""
    done = subprocess.run(
        [ROOT / "scripts" / "example-image", "language-id", IMAGE],
        env={**shared_engine.environment, "BASE": BASE_IMAGE},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return IMAGE


@pytest.fixture
def url(daemon: Daemon, legal_analyzer: str) -> str:
    """Give the daemon's socket as the SDK names it."""
    assert legal_analyzer == IMAGE
    return f"unix://{daemon.socket}"


def test_the_documents_deploy_and_infer_requests_get_the_documents_answers(
    daemon: Daemon, gpus: SteeredGpus, legal_analyzer: str
) -> None:
    accepted = daemon.call("POST", "/v1/custom-models/deploy", DEPLOY.encode())

    assert accepted.status == 202, accepted
    body = accepted.json
    assert body["deployment_id"].startswith("deploy_")
    assert body["model_id"] == "custom_legal_analyzer_v2"
    assert body["status"] == "deploying"
    endpoint = f"http://127.0.0.1:{daemon.tcp_port}/v1/models/custom_legal_analyzer_v2/infer"
    assert body["endpoint_url"] == endpoint
    assert isinstance(body["estimated_deployment_time"], str)
    allocated = {"cpu": "2", "memory": "8Gi", "gpu": "1 x NVIDIA T4"}
    assert body["resource_allocation"] == allocated

    status = daemon.until_ready(body["deployment_id"], 1, 60)
    assert status["status"] == "running"
    assert status["health_status"] == "healthy"
    assert set(status["resource_usage"]) == {"cpu_percent", "memory_percent", "gpu_percent"}
    figures = {"requests_per_second", "avg_latency_ms", "error_rate"}
    assert figures <= set(status["performance_metrics"])
    assert status["replica_details"][0]["gpu_uuids"][0] in gpus.gpus

    for key in (None, daemon.key("invoker")):  # the Unix socket, then TCP
        path = "/v1/models/custom_legal_analyzer_v2/infer"
        answer = daemon.call("POST", path, INFER.encode(), key=key)
        assert answer.status == 200, answer
        assert answer.json["model_id"] == "custom_legal_analyzer_v2"
        assert answer.json["outputs"]["classification"] == "en"
        assert answer.json["outputs"]["confidence"] > 0.8
        assert answer.json["metadata"]["model_version"] == "2.1.0"
        assert answer.json["metadata"]["inference_time_ms"] > 0


def test_the_documents_scale_request_is_taken(daemon: Daemon, legal_analyzer: str) -> None:
    daemon.deploy(DEPLOY.encode())

    answer = daemon.call(
        "POST",
        "/v1/custom-models/custom_legal_analyzer_v2/scale",
        {"target_replicas": 5, "scaling_strategy": "gradual"},
    )

    assert answer.status == 202
    assert answer.json["target_replicas"] == 5
    assert answer.json["reasons"], "two cores and two GPUs cannot take five replicas"


def test_the_documents_program_runs_unchanged_with_the_socket_named_by_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRSMD_URL", url)
    code = compile(PROGRAM.read_text(), "program", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {}

    asyncio.run(eval(code, names))

    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Deployment ID: deploy_")
    assert told[1] in {"Status: deploying", "Status: running"}
    assert names["result"].outputs["classification"] == "en"  # type: ignore[attr-defined]


def test_the_documents_program_runs_unchanged_over_tcp_with_a_key_from_the_environment(
    daemon: Daemon, url: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    lines = PROGRAM.read_text().splitlines()
    program.write_text("\n".join(["async def main():", *(f"    {line}" for line in lines)]))
    run = "import asyncio, program; asyncio.run(program.main())"

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", run],
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
            "PRSMD_URL": f"http://127.0.0.1:{daemon.tcp_port}",
            "PRSMD_API_KEY": daemon.key("deployer"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Deployment ID: deploy_")
