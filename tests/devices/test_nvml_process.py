"""The helper process: hangs, deaths, its parent's death, its size; and machines without NVML."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest
import uvloop

from prsmd.devices.nvml import NvmlGpus, NvmlSettings
from prsmd.domain.quantity import MIB
from tests.devices.samples import HELPER, Driver, fresh, gpu_of, helpers, stale
from tests.support import gpus as steering


async def test_a_hanging_driver_makes_the_last_sample_stale_and_recovery_fresh(
    driver: Driver,
) -> None:
    uuid = driver.steered.add()
    await driver.start(deadline_seconds=0.5)
    last = await driver.samples.next()
    driver.steered.hang("nvmlDeviceGetUtilizationRates")
    hung = await driver.samples.until(stale)
    assert hung.stale_since == hung.taken_at >= last.taken_at
    assert "did not answer within 0.5 s" in (hung.error or "")
    assert gpu_of(hung, uuid).unhealthy is None
    driver.steered.recover()
    back = await driver.samples.until(fresh)
    assert (back.error, back.taken_at > hung.taken_at) == (None, True)


async def test_a_driver_that_hangs_at_the_first_call_costs_its_deadline_only(
    driver: Driver,
) -> None:
    driver.steered.add()
    driver.steered.hang("nvmlInitWithFlags")
    gpus = await driver.start(start_deadline_seconds=0.5)
    assert gpus.sample().stale_since is not None  # start does not wait for the driver
    sample = await driver.samples.until(stale)
    assert (sample.gpus, sample.supported) == ((), True)
    assert "did not answer within 0.5 s" in (sample.error or "")


async def test_a_hung_helper_is_gone_before_another_is_started(driver: Driver) -> None:
    driver.steered.add()
    await driver.start(deadline_seconds=0.5)
    await driver.samples.next()
    (first,) = helpers()
    driver.steered.hang("nvmlDeviceGetMemoryInfo")
    await driver.samples.until(stale)
    assert first not in helpers()
    driver.steered.recover()
    await driver.samples.until(fresh)
    assert len(helpers()) == 1


async def test_a_killed_helper_is_replaced(driver: Driver) -> None:
    driver.steered.add()
    await driver.start()
    await driver.samples.next()
    (first,) = helpers()
    first.send_signal(signal.SIGKILL)
    sample = await driver.samples.until(stale)
    assert "killed by signal 9" in (sample.error or "")
    await driver.samples.until(fresh)
    (second,) = helpers()
    assert second.pid != first.pid


async def test_a_driver_library_that_crashes_takes_only_the_helper_down(driver: Driver) -> None:
    driver.steered.add()
    await driver.start()
    await driver.samples.next()
    driver.steered.crash("nvmlDeviceGetMemoryInfo")
    sample = await driver.samples.until(stale)
    assert f"killed by signal {signal.SIGABRT}" in (sample.error or "")
    driver.steered.recover()
    await driver.samples.until(fresh)


async def test_without_the_library_nothing_is_supported_and_no_process_stays() -> None:
    arrived = asyncio.Event()
    nowhere = {"LD_LIBRARY_PATH": "/nonexistent"}
    gpus = NvmlGpus(NvmlSettings(environment=nowhere), on_sample=lambda _: arrived.set())
    await gpus.start()
    await arrived.wait()
    sample = gpus.sample()
    assert (sample.supported, sample.gpus, sample.stale_since) == (False, (), None)
    assert "libnvidia-ml.so.1 was not found" in (sample.error or "")
    assert helpers() == []
    await gpus.close()


async def test_closing_ends_the_helper_even_while_the_driver_hangs(driver: Driver) -> None:
    driver.steered.add()
    gpus = await driver.start(deadline_seconds=60)
    await driver.samples.next()
    driver.steered.hang("nvmlDeviceGetMemoryInfo")
    (helper,) = helpers()
    await gpus.close()
    assert not helper.is_running()


async def test_a_defect_above_is_logged_and_leaves_the_sample_stale(
    steered: steering.SteeredGpus, caplog: pytest.LogCaptureFixture
) -> None:
    uuid = steered.add()

    def defective(_: object) -> None:
        raise RuntimeError("the reader broke")

    settings = NvmlSettings(environment=steered.environment())
    gpus = NvmlGpus(settings, on_sample=defective)
    await gpus.start()
    assert gpus._task is not None
    await asyncio.wait({gpus._task})
    sample = gpus.sample()
    assert [gpu.uuid for gpu in sample.gpus] == [uuid]
    assert stale(sample)
    assert "the reader broke" in (sample.error or "")
    assert "the reader broke" in caplog.text


async def test_closing_twice_or_before_starting_is_harmless() -> None:
    gpus = NvmlGpus()
    await gpus.close()
    await gpus.close()
    assert gpus.sample().error == "not yet sampled"


PARENT = """
import os, subprocess, sys
helper = subprocess.Popen(
    [sys.executable, "-I", sys.argv[1], str(os.getpid())],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
)
print(helper.pid, flush=True)
for line in sys.stdin:
    helper.stdin.write(b"\\n")
    if line == "sample\\n":
        helper.stdout.readline()
    print("done", flush=True)
"""


@pytest.mark.parametrize("last_request", ["sample", "hang"])
def test_the_helper_dies_with_its_parent(steered: steering.SteeredGpus, last_request: str) -> None:
    steered.add()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(HELPER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **steered.environment()},
        bufsize=0,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        ended = os.pidfd_open(int(parent.stdout.readline()))
        parent.stdin.write(b"sample\n")
        parent.stdout.readline()
        if last_request == "hang":  # then it no longer looks at its standard input
            steered.hang("nvmlDeviceGetMemoryInfo")
            parent.stdin.write(b"hang\n")
            parent.stdout.readline()
        parent.kill()
        parent.wait()
        assert select.select([ended], [], [], 30)[0]
        os.close(ended)


def test_the_helper_ends_when_nobody_asks_any_more(steered: steering.SteeredGpus) -> None:
    steered.add()
    done = subprocess.run(
        [sys.executable, "-I", HELPER, str(os.getpid())],
        input=b"\n\n",
        capture_output=True,
        env={**os.environ, **steered.environment()},
        check=True,
        timeout=30,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0])["driver"] == steering.DRIVER


async def test_the_helper_is_small(driver: Driver) -> None:
    for _ in range(8):
        driver.steered.add()
    await driver.start()
    for _ in range(50):
        await driver.samples.next()
    (helper,) = helpers()
    assert helper.memory_info().rss < 16 * MIB


def test_all_of_it_works_on_the_daemons_event_loop(steered: steering.SteeredGpus) -> None:
    uuid = steered.add()

    async def hang_and_recover() -> None:
        async with AsyncExitStack() as stack:
            driver = Driver(steered, stack)
            await driver.start(deadline_seconds=0.5)
            await driver.samples.next()
            steered.hang("nvmlDeviceGetMemoryInfo")
            await driver.samples.until(stale)
            steered.recover()
            sample = await driver.samples.until(fresh)
            assert [gpu.uuid for gpu in sample.gpus] == [uuid]

    uvloop.run(hang_and_recover())
    assert helpers() == []
