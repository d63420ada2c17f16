"""The quickstart does what the README promises, on both runtimes, and leaves nothing behind."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "quickstart"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def quickstart(*flags, environment=None):
    return subprocess.run(
        [SCRIPT, *flags],
        env=environment or dict(os.environ),
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )


def assert_shown(done):
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert done.stdout.count('"classification": "en"') == 2  # over the Unix socket and over TCP
    assert '"desired": 2,\n    "ready": 2' in done.stdout
    assert "Everything it made is removed." in done.stdout


def processes_of(folder):
    lines = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    return [line for line in lines if folder.encode() in line]


def test_once_on_the_embedded_runtime():
    somebody_elses = processes_of("/tmp/prsmd-quickstart-")
    done = quickstart("--once", "--runtime", "process")
    assert_shown(done)
    assert set(processes_of("/tmp/prsmd-quickstart-")) <= set(somebody_elses)


@pytest.mark.engine
def test_once_on_docker_leaves_the_engine_as_it_was(engine):
    def everything():
        with engine.client() as client:
            images = {image.id for image in client.images.list(all=True)}
            networks = {network.name for network in client.networks.list()}
            return images, networks, client.containers.list(all=True)

    before = everything()
    done = quickstart("--once", environment=engine.environment)
    assert_shown(done)
    assert '"name": "docker"' in done.stdout
    assert everything() == before


def test_docker_is_refused_with_the_reason_where_there_is_none():
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    done = quickstart("--once", "--runtime", "docker", environment=nowhere)
    assert done.returncode == 1
    assert "nothing answers at unix:///nonexistent/docker.sock" in done.stderr


def test_without_once_it_stays_up_until_stopped_and_then_removes_everything():
    process = subprocess.Popen(
        [SCRIPT, "--runtime", "process"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    shown = ""
    for line in process.stdout:
        shown += line
        if line.startswith("The daemon's log:"):
            break
    folder = re.search(r"(/tmp/\S+)/prsmd.log", shown)
    assert folder, shown
    folder = folder[1]
    assert processes_of(folder)
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert not processes_of(folder)
    assert not Path(folder).exists()
