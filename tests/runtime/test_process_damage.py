"""A file of the embedded runtime that is damaged or lost stops nothing but its own run."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest

from prsmd.domain.errors import EngineError
from prsmd.runtime import process_runs, supervisor
from prsmd.runtime.base import ContainerState
from prsmd.runtime.process import ProcessRuntime, ProcessSettings
from prsmd.runtime.process_runs import end_unmanaged, supervisors
from tests.runtime.harness import MODEL_FOLDER, launch_of, until_line
from tests.runtime.test_process import gone
from tests.support.engine import MODEL_IMAGE

FILES = ("record.json", "process.json", "exit.json")
HARMS = {
    "empty": b"",
    "zeros": b"\0" * 200,
    "cut off": b'{"labels": {"inst',
    "deep": b"[" * 100_000,
    "another kind": b"[1, 2]",
    "without members": b"{}",
    "wrong members": b'{"labels": {"a": 1}, "port": 1, "supervisor": "x", "code": "y"}',
}


@pytest.fixture
async def runtime(tmp_path):
    driver = made(tmp_path, "ours")
    yield driver
    for pid in supervisors(tmp_path / "runs"):
        for number in (signal.SIGTERM, signal.SIGUSR1):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    await driver.close()


def made(tmp_path, instance):
    settings = ProcessSettings(
        instance=instance, state_dir=tmp_path / "runs", bundle_dirs=(MODEL_FOLDER.parent,)
    )
    return ProcessRuntime(settings)


def supervisor_of(tmp_path, replica):
    content = json.loads((tmp_path / "runs" / replica / "process.json").read_text())
    return content["supervisor"]


async def launched(runtime, replica="one", instance="ours"):
    model = await runtime.images.resolve(MODEL_IMAGE)
    launch = launch_of(model.digest)
    labels = dataclasses.replace(launch.labels, replica=replica, instance=instance)
    container = await runtime.launch(dataclasses.replace(launch, labels=labels))
    await until_line(runtime, container, "listening")
    return container


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", FILES)
async def test_a_run_with_a_damaged_file_counts_as_ended_and_can_be_ended(
    runtime, tmp_path, caplog, name, harm
):
    await launched(runtime, "one")
    await launched(runtime, "two")
    path = tmp_path / "runs" / "one" / name
    pid = supervisor_of(tmp_path, "one")
    path.write_bytes(HARMS[harm])

    for _ in range(3):
        found = {each.labels.replica: each for each in await runtime.list()}
        assert found["one"].state is ContainerState.EXITED
        assert found["two"].state is ContainerState.RUNNING
    told = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert [str(path) in line.getMessage() for line in told] == [True]
    await runtime.stop("one", 0)
    assert gone(pid)
    assert [each.id for each in await runtime.list()] == ["two"]
    assert not path.parent.exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path)])
async def test_what_stands_in_a_files_place_is_neither_waited_for_nor_followed(
    runtime, tmp_path, name, put
):
    await launched(runtime, "one")
    await launched(runtime, "two")
    path, pid = tmp_path / "runs" / "one" / name, supervisor_of(tmp_path, "one")
    path.unlink(missing_ok=True)
    put(path)

    async with asyncio.timeout(30):
        found = {each.labels.replica: each.state for each in await runtime.list()}
        assert found == {"one": ContainerState.EXITED, "two": ContainerState.RUNNING}
        await runtime.stop("one", 0)
    assert gone(pid)
    assert [each.id for each in await runtime.list()] == ["two"]


async def test_a_damaged_record_of_another_instance_is_left_alone(runtime, tmp_path):
    other = made(tmp_path, "another")
    await launched(other, "one", "another")
    (tmp_path / "runs" / "one" / "record.json").write_bytes(b"")

    assert await runtime.list() == []
    with pytest.raises(EngineError, match="not of this instance"):
        await runtime.stop("one", 0)
    assert [each.id for each in await other.list()] == ["one"]
    await other.stop("one", 0)
    await other.close()


async def test_a_record_that_was_lost_before_the_start_is_written_again(runtime, tmp_path):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "record.json").write_bytes(b"")

    assert await runtime.list() == []
    assert (await launched(runtime)).state is ContainerState.RUNNING


async def test_a_folder_that_is_no_run_is_left_alone(runtime, tmp_path):
    await launched(runtime)
    (tmp_path / "runs" / "lost+found").mkdir()

    assert [each.id for each in await runtime.list()] == ["one"]


async def test_a_record_is_on_the_disk_before_it_has_its_name(runtime, tmp_path, monkeypatch):
    order = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("sync"), sync(file)))
    monkeypatch.setattr(Path, "rename", lambda *of: (order.append("rename"), rename(*of))[1])
    await launched(runtime)

    assert order == ["sync", "rename"]


def test_what_a_supervisor_writes_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("sync"), sync(file)))
    monkeypatch.setattr(os, "rename", lambda *of: (order.append("rename"), rename(*of)))
    supervisor._write_json(str(tmp_path / "exit.json"), {"code": 1})

    assert order == ["sync", "rename"]
    assert json.loads((tmp_path / "exit.json").read_text()) == {"code": 1}


@pytest.mark.parametrize("lost", ["all", "one run", "put back from a copy"])
async def test_what_runs_without_its_folder_is_ended(runtime, tmp_path, lost):
    runs = tmp_path / "runs"
    await launched(runtime, "one")
    other = made(tmp_path, "another")
    await launched(other, "two", "another")
    pid, kept = (supervisor_of(tmp_path, name) for name in ("one", "two"))
    if lost == "put back from a copy":
        shutil.copytree(runs, tmp_path / "copy")
    shutil.rmtree(runs if lost != "one run" else runs / "one")
    if lost == "put back from a copy":
        shutil.copytree(tmp_path / "copy", runs)

    assert end_unmanaged(runs, "ours") == [pid]
    assert gone(pid)
    assert supervisors(runs) == [kept]
    assert end_unmanaged(runs, "ours") == []
    await other.close()


async def test_what_has_its_folder_is_not_ended(runtime, tmp_path):
    await launched(runtime)

    assert end_unmanaged(tmp_path / "runs", "ours") == []
    assert [each.state for each in await runtime.list()] == [ContainerState.RUNNING]


async def test_what_cannot_be_ended_is_named(runtime, tmp_path, monkeypatch):
    await launched(runtime)
    pid = supervisor_of(tmp_path, "one")
    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setattr(process_runs, "_END_SECONDS", 0.0)
    monkeypatch.setattr(process_runs, "_KILL_SECONDS", 0.0)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)

    with pytest.raises(EngineError, match=str(pid)):
        end_unmanaged(tmp_path / "runs", "ours")
    monkeypatch.undo()
