"""The images of the examples, built and run on a real engine as prsmd hardens containers."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASK = """
import http.client, sys, time
for _ in range(300):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 9000, timeout=30)
        connection.request("POST", "/infer", sys.argv[1])
        print(connection.getresponse().read().decode())
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
"""


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("language-id", "Le contrat est conclu entre les parties suivantes.", "fr"),
        ("file-type", "#!/bin/sh\nset -e\nfor f in *; do\n  echo $f\ndone\n", "shell"),
    ],
)
def test_the_image_answers_on_a_read_only_root_without_network_or_privileges(
    engine, name, text, expected
):
    script = [ROOT / "scripts/example-image", name]
    environment = {**engine.environment, "BASE": "prsmd/base:bookworm"}
    built = subprocess.run(
        script, env=environment, check=False, capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stderr
    with engine.client() as client:
        container = client.containers.run(
            f"prsmd/{name}:1",
            detach=True,
            environment={"PORT": "9000"},
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": "noexec,nosuid,nodev"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit="512m",
            pids_limit=128,
        )
        request = json.dumps({"inputs": {"text": text}})
        status, output = container.exec_run(["python3", "-c", ASK, request])
        assert status == 0, container.logs().decode()
        assert json.loads(output)["outputs"]["classification"] == expected
        container.stop(timeout=20)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
        assert container.attrs["Config"]["User"] == "65534:65534"
