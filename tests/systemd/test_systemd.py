"""prsmd under a real systemd: readiness, both sockets, journal fields, watchdog, restart.

The tests share one machine and run in order of what they disturb: each leaves the service running.
"""

import concurrent.futures
import json
import os
import time

import pytest

from tests.systemd.machine import Machine, obstacle

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = "demo"
HEALTH = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7443/healthz').status)"


@pytest.fixture(scope="module")
def machine():
    reason = obstacle()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no systemd for tests: {reason}")
        pytest.skip(f"no systemd for tests: {reason}")
    machine = Machine()
    try:
        machine.install()
        machine.boot()
        yield machine
    finally:
        machine.close()


@pytest.fixture(scope="module")
def model(machine):
    flags = ("--image", "demo", "--type", "text-classification")
    ctl(machine, "deploy", MODEL, *flags, "--cpu", "100m", "--memory", "256Mi")
    return MODEL


# Clients that keep their connections, send one request at a time and repeat nothing.
LOAD = """
import http.client, json, pathlib, socket, threading
stop, failed, answered = pathlib.Path("/root/stop"), [], []
body = json.dumps({"inputs": {"text": "Der Vertrag"}})

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/prsmd/prsmd.sock")

def run(make, method, path, content):
    connection = make()
    while not stop.exists():
        try:
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            failed.append([path, repr(error)])
            connection.close()
            continue
        (answered if answer.status == 200 else failed).append([path, text])
        pathlib.Path("/root/answered").write_text(str(len(answered)))

unix = lambda: Unix("localhost", timeout=90)
tcp = lambda: http.client.HTTPConnection("127.0.0.1", 7443, timeout=90)
work = [(unix, "POST", "/v1/models/demo/infer", body), (tcp, "GET", "/healthz", None)] * 4
threads = [threading.Thread(target=run, args=each) for each in work]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps({"failed": failed, "answered": len(answered)}))
"""


def ctl(machine, *arguments):
    return json.loads(machine.run("prsmctl", "-o", "json", *arguments).stdout)


def properties(machine, *names):
    shown = machine.run("systemctl", "show", "prsmd.service", f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in shown.stdout.splitlines())


def ask(machine):
    return ctl(machine, "infer", MODEL, "--text", "Der Vertrag ist geschlossen.")


def replicas(machine):
    details = ctl(machine, "status", MODEL)["replica_details"]
    return {detail["replica_id"]: detail["endpoint"] for detail in details}


def eventually(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_it_says_ready_and_runs_as_its_own_user(machine):
    found = properties(machine, "ActiveState", "StatusErrno", "MainPID", "Result")
    assert (found["ActiveState"], found["Result"]) == ("active", "success"), machine.run(
        "journalctl", "-u", "prsmd", "-n", "50", "--no-pager"
    ).stdout
    owner = machine.run("stat", "-c", "%U:%a", "/run/prsmd/prsmd.sock", "/var/lib/prsmd").stdout
    assert owner.split() == ["prsmd:660", "prsmd:700"]
    process = machine.run("stat", "-c", "%U", f"/proc/{found['MainPID']}").stdout.strip()
    assert process == "prsmd"


def test_a_model_answers_inside_the_hardening(machine, model):
    assert ask(machine)["outputs"]["classification"] == "de"


def test_the_journal_can_be_searched_by_deployment(machine, model):
    deployment = ctl(machine, "status", MODEL)["deployment_id"]
    found = machine.run("journalctl", "-o", "json", f"PRSMD_DEPLOYMENT={deployment}").stdout
    entries = [json.loads(line) for line in found.splitlines()]
    assert entries
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {"prsmd.service"}
    assert any(entry.get("PRSMD_REPLICA") for entry in entries)
    assert all(entry["PRIORITY"] in "3456" for entry in entries)


def test_a_restart_keeps_the_model_running_and_adopts_it(machine, model):
    before, pid = replicas(machine), properties(machine, "MainPID")
    machine.run("systemctl", "restart", "prsmd.service")
    assert properties(machine, "MainPID") != pid
    assert replicas(machine) == before
    assert ask(machine)["outputs"]["classification"] == "de"


def test_no_request_of_kept_connections_fails_through_restarts(machine, model):
    machine.write("root/load.py", LOAD)
    counted = machine.root / "root/answered"

    def answered():
        return int(counted.read_text() or 0) if counted.exists() else 0

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        load = pool.submit(machine.run, "python3", "/root/load.py")
        try:
            for _ in range(3):
                before = answered()
                eventually(lambda more=before + 20: answered() >= more, "nothing is answered")
                machine.run("systemctl", "restart", "prsmd.service")
        finally:
            machine.write("root/stop", "")
        result = json.loads(load.result(120).stdout)
    assert result["failed"] == []
    assert result["answered"] > 60


@pytest.mark.parametrize("door", ["unix", "tcp"])
def test_a_connection_to_either_socket_starts_the_service(machine, model, door):
    machine.run("systemctl", "stop", "prsmd.service")
    assert properties(machine, "ActiveState")["ActiveState"] == "inactive"
    if door == "unix":
        ctl(machine, "node")
    else:
        assert machine.run("python3", "-c", HEALTH).stdout.strip() == "200"
    assert properties(machine, "ActiveState")["ActiveState"] == "active"


def test_the_watchdog_replaces_a_daemon_that_hangs_and_the_model_stays(machine, model):
    before, pid = replicas(machine), properties(machine, "MainPID")
    machine.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "prsmd.service")

    def replaced():
        now = properties(machine, "MainPID", "ActiveState")
        return now["ActiveState"] == "active" and now["MainPID"] not in {"0", pid["MainPID"]}

    eventually(replaced, "the watchdog did not restart the daemon")
    journal = machine.run("journalctl", "-u", "prsmd.service", "--no-pager").stdout
    assert "Watchdog timeout" in journal
    assert replicas(machine) == before
    assert ask(machine)["outputs"]["classification"] == "de"


def test_a_refused_configuration_exits_78_and_is_not_tried_again(machine, model):
    machine.write("etc/prsmd/conf.d/wrong.toml", "[tcp]\nprot = 1\n")
    try:
        assert machine.run("systemctl", "restart", "prsmd.service", check=False).returncode
        found = properties(machine, "ActiveState", "ExecMainStatus")
        assert found == {"ActiveState": "failed", "ExecMainStatus": "78"}
        journal = machine.run("journalctl", "-u", "prsmd.service", "--no-pager").stdout
        assert "wrong.toml:2: tcp.prot: unknown key; did you mean port?" in journal
    finally:
        (machine.root / "etc/prsmd/conf.d/wrong.toml").unlink()
        machine.run("systemctl", "reset-failed", "prsmd.service")
        machine.run("systemctl", "start", "prsmd.service")
    assert ask(machine)["outputs"]["classification"] == "de"
