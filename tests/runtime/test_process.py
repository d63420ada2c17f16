"""What is special to the embedded runtime: groups, supervisors, files, bundles."""

import asyncio
import contextlib
import dataclasses
import os
import select
import signal
import sys
from pathlib import Path

import psutil
import pytest

from prsmd.domain.errors import EngineUnreachableError, ImageUnavailableError
from prsmd.domain.quantity import MIB
from prsmd.runtime.base import ContainerState, LogQuery
from prsmd.runtime.bundles import Bundles
from prsmd.runtime.process import ProcessRuntime, ProcessSettings
from tests.runtime.harness import MODEL_FOLDER, ask, launch_of, until_exited, until_line
from tests.support.engine import MODEL_IMAGE
from tests.support.exhausted import no_descriptors


@pytest.fixture
async def runtime(tmp_path):
    settings = ProcessSettings(
        instance="ours",
        state_dir=tmp_path / "runs",
        bundle_dirs=(MODEL_FOLDER.parent, tmp_path / "bundles"),
        log_max_bytes=64 * 1024,
    )
    driver = ProcessRuntime(settings)
    yield driver
    for container in await driver.list():
        await driver.stop(container.id, 0)
    await driver.close()


async def listening(runtime, **environment):
    model = await runtime.images.resolve(MODEL_IMAGE)
    container = await runtime.launch(launch_of(model.digest, **environment))
    await until_line(runtime, container, "listening")
    return container


def gone(pid):
    """Tell whether a process is no more (a zombie that nobody reaped is no more)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def supervisor_of(tmp_path):
    (record,) = (tmp_path / "runs").glob("*/process.json")
    return int(record.read_text().split('"supervisor": ')[1].split(",")[0])


def bundle(folder, text='command = ["{python}", "-c", "pass"]'):
    folder.mkdir(parents=True)
    (folder / "bundle.toml").write_text(text)
    return folder


async def test_for_want_of_descriptors_nothing_is_said_of_a_launch_or_a_bundle(runtime):
    model = await runtime.images.resolve(MODEL_IMAGE)
    with no_descriptors():
        with pytest.raises(EngineUnreachableError, match="Too many open files"):
            await runtime.launch(launch_of(model.digest))
        with pytest.raises(EngineUnreachableError, match="Too many open files"):
            await runtime.images.resolve(MODEL_IMAGE)
    await listening(runtime)
    with no_descriptors(), pytest.raises(EngineUnreachableError, match="Too many open files"):
        await runtime.list()


def test_a_bundle_that_cannot_be_read_for_want_of_descriptors_is_not_unusable(tmp_path):
    folder = bundle(tmp_path / "bundles" / "one")
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        Bundles((folder.parent,))._read(folder)


async def test_it_says_that_it_isolates_nothing(runtime):
    assert runtime.isolates is False


async def test_a_model_listens_on_loopback_only(runtime):
    container = await listening(runtime)
    assert container.endpoint.host == "127.0.0.1"
    environment = await ask(container, "/environment")
    assert environment["HOST"] == "127.0.0.1"
    assert environment["FROM_BUNDLE"] == "yes"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


async def test_variables_of_the_daemon_do_not_leak_into_a_model(runtime, monkeypatch):
    monkeypatch.setenv("PRSMD_SECRET", "s3cret")
    assert "PRSMD_SECRET" not in await ask(await listening(runtime), "/environment")


async def test_secrets_are_in_a_folder_of_the_run_that_goes_with_it(runtime, tmp_path):
    model = await runtime.images.resolve(MODEL_IMAGE)
    launch = dataclasses.replace(launch_of(model.digest), secrets={"TOKEN": b"canary"})
    container = await runtime.launch(launch)
    await until_line(runtime, container, "listening")
    (kept,) = (tmp_path / "runs").glob("*/secrets/TOKEN")
    assert kept.read_bytes() == b"canary"
    assert [f"{path.stat().st_mode & 0o777:o}" for path in (kept.parent, kept)] == ["700", "400"]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != kept]
    assert not any(b"canary" in path.read_bytes() for path in files)
    await runtime.stop(container.id, 1)
    assert not kept.exists()


async def test_stop_kills_children_that_ignore_sigterm(runtime, tmp_path):
    container = await listening(runtime, CHILDREN="3", IGNORE_TERM="1")
    children = (await ask(container, "/process"))["children"]
    supervisor = supervisor_of(tmp_path)
    await runtime.stop(container.id, 0.1)
    assert len(children) == 3
    assert all(gone(pid) for pid in (*children, container.pid, supervisor))
    assert list((tmp_path / "runs").glob("*/")) == []


async def test_a_crash_takes_the_children_along(runtime):
    container = await listening(runtime, CHILDREN="2")
    children = (await ask(container, "/process"))["children"]
    with contextlib.suppress(ConnectionError):
        await ask(container, "/exit", {"code": 3})
    assert (await until_exited(runtime)).exit_code == 3
    assert all(gone(pid) for pid in children)


async def test_a_killed_model_shows_the_signal_as_docker_does(runtime):
    container = await listening(runtime)
    os.kill(container.pid, signal.SIGKILL)
    assert (await until_exited(runtime)).exit_code == 137


async def test_a_model_does_not_outlive_its_supervisor(runtime, tmp_path):
    container = await listening(runtime)
    supervisor = supervisor_of(tmp_path)
    processes = [os.pidfd_open(pid) for pid in (container.pid, supervisor)]
    os.kill(supervisor, signal.SIGKILL)
    for process in processes:
        await asyncio.to_thread(select.select, [process], [], [])
        os.close(process)
    (ended,) = await runtime.list()
    assert (ended.state, ended.exit_code) == (ContainerState.EXITED, None)


DAEMON = """
import asyncio, os, sys
from pathlib import Path
from prsmd.runtime.process import ProcessRuntime, ProcessSettings
from tests.runtime.harness import launch_of

async def main():
    folder, bundles = map(Path, sys.argv[1:])
    runtime = ProcessRuntime(
        ProcessSettings(instance="ours", state_dir=folder, bundle_dirs=(bundles,))
    )
    image = await runtime.images.resolve("prsmd-test/model:1")
    await runtime.launch(launch_of(image.digest))
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_models_and_their_logs_go_on_when_the_daemon_is_killed(runtime, tmp_path):
    arguments = [str(tmp_path / "runs"), str(MODEL_FOLDER.parent)]
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", DAEMON, *arguments)
    assert await daemon.wait() == -signal.SIGKILL
    (container,) = await runtime.list()
    await until_line(runtime, container, "listening")
    await ask(container, "/log", {"lines": ["nobody is here"]})
    await until_line(runtime, container, "nobody is here")
    with contextlib.suppress(ConnectionError):
        await ask(container, "/exit", {"code": 5})
    assert (await until_exited(runtime)).exit_code == 5


async def test_a_launch_cut_off_before_its_start_is_taken_up_again(runtime, tmp_path):
    container = await listening(runtime)
    (folder,) = (tmp_path / "runs").glob("*/")
    record = (folder / "record.json").read_text()
    await runtime.stop(container.id, 0)
    folder.mkdir()
    (folder / "record.json").write_text(record)
    (half_made,) = await runtime.list()
    assert half_made.state is ContainerState.CREATED
    assert (await listening(runtime)).state is ContainerState.RUNNING


async def test_logs_stay_bounded_and_keep_the_newest(runtime, tmp_path):
    container = await listening(runtime)
    for batch in range(10):
        await ask(container, "/log", {"lines": [f"{batch} {'x' * 1000}"] * 40})
    await ask(container, "/log", {"lines": ["the end"]})
    await until_line(runtime, container, "the end")
    kept = sum(path.stat().st_size for path in (tmp_path / "runs").glob("*/log*"))
    assert kept <= 2 * 64 * 1024
    lines = [line.text async for line in runtime.logs(container.id, LogQuery(tail=2))]
    assert lines == [f"9 {'x' * 1000}", "the end"]


async def test_following_reads_across_a_rotation(runtime):
    container = await listening(runtime)
    seen = []
    async with contextlib.aclosing(runtime.logs(container.id, LogQuery(follow=True))) as lines:
        async for line in lines:
            seen.append(line.text[:4])
            if len(seen) <= 100:
                await ask(container, "/log", {"lines": [f"{len(seen):04}{'x' * 1000}"]})
            else:
                break
    assert seen == ["list", *(f"{number:04}" for number in range(1, 101))]


async def test_a_command_that_is_not_there_says_so_in_the_log(runtime, tmp_path):
    bundle(tmp_path / "bundles" / "broken", 'command = ["/no/such/program"]')
    image = await runtime.images.resolve("broken")
    container = await runtime.launch(launch_of(image.digest))
    assert (await until_exited(runtime)).exit_code == 127
    (line,) = [line async for line in runtime.logs(container.id, LogQuery())]
    assert line.text == "cannot run /no/such/program: No such file or directory"


async def test_a_supervisor_is_small(runtime, tmp_path):
    await listening(runtime)
    memory = psutil.Process(supervisor_of(tmp_path)).memory_full_info()
    assert memory.uss < 12 * MIB


def test_an_edited_bundle_is_another_image(tmp_path):
    folder, bundles = bundle(tmp_path / "one"), Bundles((tmp_path,))
    before = bundles.find("one")
    (folder / "weights").write_text("1")
    after = bundles.find("one")
    assert before.digest != after.digest
    assert bundles.by_digest(after.digest) == after
    with pytest.raises(ImageUnavailableError, match="changed or removed"):
        bundles.by_digest(before.digest)


def test_what_running_leaves_behind_does_not_change_a_bundle(tmp_path):
    folder, bundles = bundle(tmp_path / "one"), Bundles((tmp_path,))
    before = bundles.find("one")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("x")
    assert bundles.find("one") == before


def test_a_link_to_a_folder_elsewhere_is_no_bundle(tmp_path):
    bundle(tmp_path / "elsewhere" / "one")
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "one").symlink_to(tmp_path / "elsewhere" / "one")
    assert Bundles((tmp_path / "bundles",)).find("one") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("command = 'x'", "needs a command"),
        ("", "needs a command"),
        ("command = ['x']\nreferences = 'y'", "references in"),
        ("command = ['x']\n[environment]\nA = 1", "must hold texts"),
        ("command = ['x']\ncomand = 1", "unknown keys: comand"),
        ("command = [", "bad"),
    ],
)
def test_an_unusable_bundle_is_named_with_what_is_wrong(tmp_path, text, problem):
    bundle(tmp_path / "bad", text)
    bundle(tmp_path / "good")
    error = Bundles((tmp_path,)).missing("wanted")
    assert "wanted" in error.message
    assert "there are: good" in error.message
    assert problem in error.message


async def test_a_launch_with_other_arguments_gets_them(runtime, tmp_path):
    image = await runtime.images.resolve(MODEL_IMAGE)
    launch = dataclasses.replace(
        launch_of(image.digest), command=(sys.executable, "-c"), args=("print('mine')",)
    )
    container = await runtime.launch(launch)
    await until_exited(runtime)
    assert [line.text async for line in runtime.logs(container.id, LogQuery())] == ["mine"]
