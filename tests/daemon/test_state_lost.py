"""What a real daemon does when its state is lost, damaged or another's."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from prsmd.runtime.process_runs import supervisors
from tests.api.conftest import small
from tests.daemon.conftest import PROCESS
from tests.support.daemon import ROOT, Daemon, running_daemon

REFUSED = 78  # systemd does not start it again


@pytest.fixture
def daemon(tmp_path):
    with running_daemon(tmp_path, PROCESS) as started:
        yield started


def refused(daemon: Daemon) -> str:
    """Start it where it must refuse; return what it says."""
    daemon.begin_log()
    with pytest.raises(RuntimeError, match="did not start"):
        daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(30) == REFUSED
    assert "Traceback" not in daemon.log
    return daemon.log


def order(daemon: Daemon, flag: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prsmd", flag, "--set"]
    state = f'daemon.state_dir="{daemon.folder}/state"'
    return subprocess.run([*command, state], cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_emptied_state_is_refused_until_a_new_instance_is_ordered(daemon):
    state, instance = daemon.folder / "state", daemon.instance
    daemon.kill()
    for name in ("control.db", "control.db-wal", "control.db-shm"):
        (state / name).unlink()

    said = refused(daemon)
    assert f"{state}/control.db is missing" in said
    assert "control.head" in said
    assert f"of {instance}" in said
    assert "prsmd --new-instance" in said
    assert "before-" in order(daemon, "--new-instance").stdout
    daemon.start()
    assert daemon.instance != instance


def test_nothing_is_ordered_while_the_daemon_runs(daemon):
    for flag in ("--new-instance", "--accept-state"):
        found = order(daemon, flag)
        assert found.returncode == 1
        assert "in use by another prsmd" in found.stderr
    assert daemon.call("GET", "/readyz").status == 200


def test_a_lost_write_ahead_log_is_refused_until_it_is_accepted(daemon):
    daemon.key("viewer")
    daemon.kill()
    daemon.start()
    daemon.stop()
    shutil.copy(daemon.folder / "state" / "control.db", daemon.folder / "control.db")
    daemon.start()
    daemon.key("viewer")
    daemon.stop()
    shutil.copy(daemon.folder / "control.db", daemon.folder / "state" / "control.db")

    said = refused(daemon)
    assert "control.db-wal was lost, or an older copy was put back" in said
    assert order(daemon, "--accept-state").returncode == 0
    assert order(daemon, "--accept-state").returncode == 0
    daemon.start()
    for _ in range(2):
        [record] = daemon.call("GET", "/v1/audit?action=state.accept").json["records"]
        assert record["subject"] == "control.db"
        assert record["details"]["commits"] < record["details"]["commits_before"]
        daemon.kill()
        daemon.start()


def test_damage_while_it_runs_is_told_and_ends_nothing(daemon):
    daemon.key("viewer")
    daemon.until("ready", lambda: daemon.call("GET", "/readyz").status == 200)
    for name in ("control.db", "control.db-wal"):
        path = daemon.folder / "state" / name
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)

    answer = daemon.until(
        "not ready",
        lambda: (found := daemon.call("GET", "/readyz", key="")).status == 503 and found,
    )
    assert answer.json == {"status": "not ready", "reason": "the file of the state is damaged"}
    daemon.until("the line", lambda: f"{daemon.folder}/state/control.db is damaged" in daemon.log)
    assert daemon.call("GET", "/healthz").status == 200
    daemon.kill()


def test_a_state_that_is_removed_while_it_runs_is_told(daemon):
    (daemon.folder / "state" / "control.db").rename(daemon.folder / "elsewhere.db")

    answer = daemon.call("GET", "/readyz", key="")
    assert answer.status == 503
    assert answer.json["reason"] == "the file of the state was removed or replaced"
    daemon.until("the line", lambda: "control.db or its -wal was removed or replaced" in daemon.log)
    daemon.kill()


def test_a_usage_file_that_is_damaged_while_it_runs_is_begun_anew_and_that_is_on_record(daemon):
    state = daemon.folder / "state"
    for name in ("usage.db", "usage.db-wal"):
        with (state / name).open("r+b") as file:
            file.write(b"\xff" * (state / name).stat().st_size)

    def recorded():
        found = daemon.call("GET", "/v1/audit?action=usage.lost").json
        return found["records"]

    [record] = daemon.until("the record", recorded)
    assert "usage.db is damaged" in record["details"]["message"]
    assert daemon.call("GET", "/readyz").status == 200
    assert list(state.glob("usage.db.damaged-*"))


def test_a_key_file_that_vanishes_is_told(daemon):
    (daemon.folder / "state" / "pepper").unlink()

    daemon.until("the line", lambda: "pepper was removed while prsmd runs" in daemon.log)


TOLD = "a file that the next start needs was removed, changed or damaged"


def unready(daemon: Daemon) -> bool:
    answer = daemon.call("GET", "/readyz", key="")
    return answer.status == 503 and answer.json["reason"] == TOLD


def test_readiness_tells_of_a_file_beside_the_databases_until_it_is_back(daemon):
    state = daemon.folder / "state"
    daemon.until("ready", lambda: daemon.call("GET", "/readyz").status == 200)
    (state / "audit-key").rename(daemon.folder / "audit-key")

    daemon.until("unready", lambda: unready(daemon))
    (daemon.folder / "audit-key").rename(state / "audit-key")
    daemon.until("ready", lambda: daemon.call("GET", "/readyz").status == 200)
    assert "audit-key is as it was again" in daemon.log


def test_a_folder_that_was_deleted_and_made_again_is_told_by_what_runs_from_it(daemon):
    deployment = daemon.deploy(small("a-model"))
    daemon.until_ready(deployment, 1)
    daemon.kill()
    state = daemon.folder / "state"
    running = supervisors(state / "runs")
    assert running
    try:
        shutil.rmtree(state)
        for _ in range(2):
            said = refused(daemon)
            assert f"{state} holds nothing, but models that were launched from it run on" in said
            assert all(str(pid) in said for pid in running)
            assert "prsmd --new-instance" in said
        assert supervisors(daemon.folder / "elsewhere" / "runs") == []
        assert order(daemon, "--new-instance").returncode == 0
        daemon.start()
        daemon.kill()
        daemon.start()
    finally:
        for pid in running:
            os.kill(pid, signal.SIGTERM)


def test_what_runs_without_its_folder_is_ended_and_launched_anew(daemon):
    deployment = daemon.deploy(small("a-model"))
    daemon.until_ready(deployment, 1)
    daemon.kill()
    runs = daemon.folder / "state" / "runs"
    former = supervisors(runs)
    shutil.rmtree(runs)
    daemon.begin_log()
    daemon.start()

    daemon.until_ready(deployment, 1)
    [running] = supervisors(runs)
    assert running not in former
    assert f"of supervisor {former[0]}, were ended" in daemon.log


def test_a_run_with_a_damaged_record_is_replaced(daemon):
    deployment = daemon.deploy(small("a-model"))
    daemon.until_ready(deployment, 1)
    daemon.kill()
    runs = daemon.folder / "state" / "runs"
    former = supervisors(runs)
    [record] = runs.glob("*/record.json")
    record.write_bytes(b"")
    daemon.begin_log()
    daemon.start()

    daemon.until("the end of the former", lambda: not {*former} & {*supervisors(runs)})
    daemon.until_ready(deployment, 1)
    assert f"{record} is damaged" in daemon.log


@pytest.mark.parametrize("name", ["pepper", "audit-key"])
def test_a_key_that_was_lost_is_not_made_anew_in_silence(daemon, name):
    path = daemon.folder / "state" / name
    key = daemon.key("viewer")
    daemon.stop()
    path.rename(daemon.folder / name)

    said = refused(daemon)
    assert f"{path} is missing" in said
    assert "Put it back from a backup" in said
    assert not path.exists()
    (daemon.folder / name).rename(path)
    daemon.start()
    assert daemon.call("GET", "/v1/custom-models", key=key).status == 200
    daemon.stop()
    path.unlink()
    command = re.search(rf"\(umask 077; .*> {path}\)", refused(daemon))
    assert command is not None
    subprocess.run(command[0], shell=True, check=True)
    daemon.start()
