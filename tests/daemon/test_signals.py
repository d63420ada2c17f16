"""Every signal, sent to a real daemon, to a supervisor of a model and to the NVML helper."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import psutil
import pytest

from prsmd.signals import RESPONSES, Received, Response, name_of
from tests.api.document import DEPLOY
from tests.daemon.conftest import PROCESS
from tests.support.daemon import ROOT, Daemon, running_daemon
from tests.support.gpus import SteeredGpus

MODEL = "custom_legal_analyzer_v2"
ENDS = [number for number, response in RESPONSES.items() if response is Response.END]
FAULTS = [number for number, response in RESPONSES.items() if response is Response.FAULT]
NOTED = [number for number, response in RESPONSES.items() if response is Response.NOTE]
SLOW_MODULE = """
with open({begun!r}, "wb"):
    pass
with open({go_on!r}, "rb", buffering=0) as pipe:
    pipe.read(1)
"""
# What the kernel does by default that is not the end of the process (signal(7)).
HARMLESS = {
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGSTOP),
}


@pytest.fixture(scope="module")
def gpus(tmp_path_factory):
    """One GPU."""
    steered = SteeredGpus(tmp_path_factory.mktemp("nvml"))
    steered.add("NVIDIA T4")
    return steered


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, gpus):
    """A daemon with a GPU and a model."""
    with running_daemon(tmp_path_factory.mktemp("signals"), PROCESS, gpus.environment()) as started:
        started.until("GPU telemetry", lambda: started.call("GET", "/v1/gpus").json["gpus"])
        started.until_ready(started.deploy(DEPLOY), 1)
        yield started


def supervisor_of(daemon: Daemon) -> psutil.Process:
    """The supervisor of the one model, which is nobody's child."""
    [record] = (daemon.folder / "state" / "runs").glob("*/process.json")
    return psutil.Process(json.loads(record.read_text())["supervisor"])


def helper_of(daemon: Daemon) -> psutil.Process:
    """The NVML helper that is asked now."""
    assert daemon.process is not None
    [found] = [
        child
        for child in psutil.Process(daemon.process.pid).children()
        if any("nvml_helper.py" in part for part in child.cmdline())
    ]
    return found


def test_every_signal_that_would_end_the_process_has_a_response_that_is_meant():
    deadly = signal.valid_signals() - HARMLESS

    assert set(RESPONSES) == set(signal.valid_signals())
    assert {RESPONSES[number] for number in HARMLESS} <= {
        Response.IGNORE,
        Response.STOP,
        Response.UNCATCHABLE,
    }
    assert {number for number in deadly if RESPONSES[number] is Response.IGNORE} == {
        signal.SIGPIPE,
        signal.SIGXFSZ,
    }
    assert {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMAX} <= set(NOTED)
    assert set(ENDS) == {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


@pytest.mark.parametrize("number", NOTED, ids=name_of)
def test_a_signal_that_means_nothing_is_told_in_the_log_and_ends_nothing(daemon, number):
    daemon.process.send_signal(number)

    daemon.until("the line", lambda: f"{name_of(number)} is ignored" in daemon.log)
    assert daemon.infer(MODEL).status == 200
    assert daemon.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGXFSZ], ids=name_of)
def test_a_signal_of_a_failed_write_changes_nothing(daemon, number):
    daemon.process.send_signal(number)

    assert daemon.infer(MODEL).status == 200
    assert daemon.process.poll() is None


def test_no_signal_but_the_end_harms_a_models_supervisor(daemon):
    supervisor = supervisor_of(daemon)
    for number, response in RESPONSES.items():
        if response in {Response.NOTE, Response.RELOAD, Response.IGNORE} or number in {
            *(signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)
        }:
            supervisor.send_signal(number)

    assert daemon.infer(MODEL).status == 200
    assert supervisor_of(daemon) == supervisor
    assert supervisor.is_running()


def test_no_signal_harms_the_nvml_helper(daemon, gpus):
    helper = helper_of(daemon)
    for number, response in RESPONSES.items():
        if response not in {Response.FAULT, Response.UNCATCHABLE, Response.STOP}:
            helper.send_signal(number)
    gpus.change(next(iter(gpus.gpus)), temperature_celsius=77)

    def warm():
        return daemon.call("GET", "/v1/gpus").json["gpus"][0]["temperature_celsius"] == 77

    daemon.until("a newer sample", warm)
    assert helper_of(daemon) == helper


def test_a_signal_while_the_modules_are_read_ends_nothing(tmp_path):
    """One of the modules that is read waits here until all signals were sent."""
    begun, go_on, settings = tmp_path / "begun", tmp_path / "go-on", tmp_path / "prsmd.toml"
    for pipe in (begun, go_on):
        os.mkfifo(pipe)
    (tmp_path / "uvloop.py").write_text(SLOW_MODULE.format(begun=str(begun), go_on=str(go_on)))
    settings.write_text(f"[daemon]\nstate_dir = '{tmp_path}/state'\n")
    with subprocess.Popen(
        [sys.executable, "-m", "prsmd", "--check", "--config", str(settings)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        begun.read_bytes()
        for number in [signal.SIGHUP, *NOTED]:
            process.send_signal(number)
        with go_on.open("r+b", buffering=0) as pipe:
            pipe.write(b"x")
            printed = process.communicate(timeout=60)[0]

    assert (process.returncode, printed) == (0, "configuration is valid\n")


@pytest.mark.parametrize("number", ENDS, ids=name_of)
def test_a_signal_that_means_the_end_ends_the_daemon_in_order(tmp_path, number):
    with running_daemon(tmp_path, PROCESS) as daemon:
        code = daemon._end(number)

        assert code == 0
        assert "stopping; the models keep running" in daemon.log
        path = daemon.folder / "state" / "control.db"
        with closing(sqlite3.connect(path)) as database:
            query = "SELECT value FROM meta WHERE key = 'meters_stopped'"
            assert database.execute(query).fetchone() == ("cleanly",)


@pytest.mark.parametrize("number", FAULTS, ids=name_of)
def test_a_fault_ends_the_process_at_once(tmp_path, number):
    with running_daemon(tmp_path, PROCESS) as daemon:
        assert daemon._end(number) == -number


async def test_a_signal_to_end_ends_what_the_start_waits_for():
    received = Received()
    received.listen()
    reached = False
    async with received.until_end():
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()
        reached = True

    assert not reached
    assert received.end_by == "SIGTERM"


async def test_a_timeout_inside_the_start_is_not_taken_for_the_end():
    received = Received()
    with pytest.raises(TimeoutError):
        async with received.until_end(), asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_what_was_heard_before_the_start_is_done_after_it():
    received = Received()
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGUSR1)
    received.listen()
    done = []
    received.reload_with(lambda: done.append("reloaded"))

    assert done == ["reloaded"]
