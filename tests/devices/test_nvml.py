"""What the NVML driver tells of GPUs: the real pynvml on a steered machine."""

import os
from pathlib import Path

import psutil
import pytest

from prsmd.domain.quantity import GIB, MIB
from tests.devices.samples import Driver, fresh, gpu_of, helpers, stale
from tests.support import gpus as steering


async def test_every_field_of_a_gpu_is_what_the_driver_tells(driver: Driver) -> None:
    uuid = driver.steered.add("NVIDIA T4", 15 * GIB)
    driver.steered.change(
        uuid,
        memory_used_bytes=3 * GIB,
        utilization_percent=71,
        memory_bandwidth_percent=33,
        temperature_celsius=64,
        power_milliwatts=61_500,
    )
    await driver.start()
    sample = await driver.samples.next()
    gpu = gpu_of(sample, uuid)
    assert sample.driver_version == steering.DRIVER
    assert (sample.error, sample.stale_since, sample.supported) == (None, None, True)
    assert (gpu.index, gpu.name) == (0, "NVIDIA T4")
    assert (gpu.memory_total_bytes, gpu.memory_used_bytes) == (15 * GIB, 3 * GIB)
    assert (gpu.utilization_percent, gpu.memory_bandwidth_percent) == (71, 33)
    assert (gpu.temperature_celsius, gpu.power_watts) == (64, 61.5)
    assert (gpu.mig_parent, gpu.xid_errors, gpu.unhealthy) == (None, (), None)


async def test_processes_of_all_kinds_are_told_once_with_names(driver: Driver) -> None:
    uuid, own = driver.steered.add(), os.getpid()
    driver.steered.run(uuid, own, 2 * GIB)
    driver.steered.run(uuid, own, 2 * GIB, kind="graphics")
    driver.steered.run(uuid, 999_999_999, 512 * MIB, kind="mps")
    driver.steered.run(uuid, 1, None)
    await driver.start()
    gpu = gpu_of(await driver.samples.next(), uuid)
    named = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in (own, 1)}  # noqa: ASYNC240 - procfs
    told = {process.pid: (process.memory_bytes, process.name) for process in gpu.processes}
    assert told == {
        own: (2 * GIB, named[own]),
        999_999_999: (512 * MIB, ""),
        1: (None, named[1]),
    }


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "utilization_percent"),
        ("nvmlDeviceGetUtilizationRates", "memory_bandwidth_percent"),
        ("nvmlDeviceGetTemperature", "temperature_celsius"),
        ("nvmlDeviceGetPowerUsage", "power_watts"),
    ],
)
async def test_what_a_gpu_does_not_support_is_none_and_the_rest_stays(
    driver: Driver, function: str, field: str
) -> None:
    uuid = driver.steered.add()
    driver.steered.fail(function, steering.NOT_SUPPORTED)
    await driver.start()
    gpu = gpu_of(await driver.samples.next(), uuid)
    assert getattr(gpu, field) is None
    assert gpu.memory_used_bytes == 450 * MIB
    assert gpu.unhealthy is None


async def test_a_gpu_that_supports_only_memory_is_usable(driver: Driver) -> None:
    uuid = driver.steered.add()
    for function in (
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetSupportedEventTypes",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    ):
        driver.steered.fail(function, steering.NOT_SUPPORTED)
    await driver.start()
    gpu = gpu_of(await driver.samples.next(), uuid)
    assert (gpu.unhealthy, gpu.processes) == (None, ())


async def test_a_gpu_without_memory_of_its_own_reports_the_hosts(driver: Driver) -> None:
    uuid = driver.steered.add("NVIDIA GB10")
    driver.steered.fail("nvmlDeviceGetMemoryInfo", steering.NOT_SUPPORTED)
    await driver.start()
    gpu = gpu_of(await driver.samples.next(), uuid)
    assert gpu.memory_total_bytes == psutil.virtual_memory().total
    assert 0 < gpu.memory_used_bytes < gpu.memory_total_bytes


async def test_a_driver_that_is_loaded_later_is_found(driver: Driver) -> None:
    uuid = driver.steered.add()
    driver.steered.refuse(steering.DRIVER_NOT_LOADED)
    await driver.start(retry_seconds=0.01)
    without = await driver.samples.next()
    assert (without.supported, without.error) == (False, "the NVIDIA driver is not loaded")
    driver.steered.recover()
    sample = await driver.samples.until(fresh)
    assert [gpu.uuid for gpu in sample.gpus] == [uuid]


async def test_a_driver_that_is_unloaded_leaves_its_gpus_listed_and_stale(driver: Driver) -> None:
    uuid = driver.steered.add()
    await driver.start()
    await driver.samples.next()
    driver.steered.unload_driver()
    sample = await driver.samples.until(stale)
    assert (sample.supported, sample.error) == (True, "the NVIDIA driver is not loaded")
    assert [gpu.uuid for gpu in sample.gpus] == [uuid]
    driver.steered.recover()
    await driver.samples.until(fresh)


async def test_a_version_mismatch_is_explained_with_what_to_do(driver: Driver) -> None:
    driver.steered.add()
    driver.steered.refuse(steering.VERSION_MISMATCH)
    await driver.start()
    sample = await driver.samples.next()
    assert (sample.supported, stale(sample)) == (True, True)
    assert "different versions" in (sample.error or "")
    assert "reboot" in (sample.error or "")


async def test_a_lost_gpu_is_unhealthy_and_the_others_are_measured(driver: Driver) -> None:
    lost, other = driver.steered.add(), driver.steered.add()
    driver.steered.run(lost, 1)
    await driver.start(retry_seconds=60)
    await driver.samples.next()
    driver.steered.lose(lost)
    gpu = await driver.samples.gpu_until(lost, lambda g: g.unhealthy is not None)
    assert "GPU is lost" in (gpu.unhealthy or "")
    assert (gpu.name, gpu.memory_total_bytes) == ("NVIDIA T4", 15 * GIB)
    assert (gpu.processes, gpu.utilization_percent) == ((), None)
    sample = driver.samples.seen[-1]
    assert fresh(sample)
    assert gpu_of(sample, other).unhealthy is None


async def test_a_lost_gpu_is_looked_for_with_a_new_helper_and_found(driver: Driver) -> None:
    uuid = driver.steered.add()
    await driver.start(retry_seconds=0.05)
    await driver.samples.next()
    gone = driver.steered.unplug(uuid)
    await driver.samples.gpu_until(uuid, lambda g: g.unhealthy is not None)
    gpu = await driver.samples.gpu_until(uuid, lambda g: "no longer reports" in str(g.unhealthy))
    assert gpu.memory_total_bytes == 15 * GIB
    driver.steered.plug(gone)
    assert (await driver.samples.gpu_until(uuid, lambda g: not g.unhealthy)).name == "NVIDIA T4"
    assert not any(map(stale, driver.samples.seen))  # looking afresh is not a failure


async def test_a_gpu_that_was_never_opened_is_listed_as_unhealthy(driver: Driver) -> None:
    bad, good = driver.steered.add(), driver.steered.add()
    driver.steered.lose(bad)
    await driver.start()
    sample = await driver.samples.next()
    assert [gpu.uuid for gpu in sample.gpus] == ["index-0", good]
    assert "GPU is lost" in (sample.gpus[0].unhealthy or "")


async def test_a_gpu_that_needs_a_reset_says_so(driver: Driver) -> None:
    uuid = driver.steered.add()
    driver.steered.change(uuid, error=steering.RESET_REQUIRED)
    await driver.start()
    assert "needs a reset" in ((await driver.samples.next()).gpus[0].unhealthy or "")


async def test_the_drivers_recovery_action_survives_the_daemon(driver: Driver) -> None:
    uuid = driver.steered.add()
    driver.steered.change(uuid, recovery_action=1)
    await driver.start()
    gpu = gpu_of(await driver.samples.next(), uuid)
    assert gpu.unhealthy == "the driver asks for a reset of the GPU"


async def test_mig_instances_are_gpus_and_their_parent_is_not_placeable(driver: Driver) -> None:
    parent = driver.steered.add("NVIDIA H100 80GB HBM3", 80 * GIB)
    instance = driver.steered.add_instance(parent, "1g.10gb", 10 * GIB)
    driver.steered.run(instance, 1, 2 * GIB)
    await driver.start()
    sample = await driver.samples.next()
    whole, part = gpu_of(sample, parent), gpu_of(sample, instance)
    assert "MIG is enabled" in (whole.unhealthy or "")
    assert part.unhealthy is None
    assert (part.mig_parent, part.name) == (parent, "NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    assert (part.memory_total_bytes, part.utilization_percent) == (10 * GIB, None)
    assert [process.pid for process in part.processes] == [1]


async def test_a_mig_instance_that_was_removed_is_forgotten(driver: Driver) -> None:
    parent = driver.steered.add("NVIDIA H100 80GB HBM3", 80 * GIB)
    kept, removed = driver.steered.add_instance(parent), driver.steered.add_instance(parent)
    await driver.start()
    await driver.samples.until(lambda s: len(s.gpus) == 3)
    driver.steered.unplug(removed)
    sample = await driver.samples.until(lambda s: len(s.gpus) == 2)
    assert [gpu.uuid for gpu in sample.gpus] == [parent, kept]


async def test_mig_instances_of_a_lost_gpu_stay_listed_as_unhealthy(driver: Driver) -> None:
    parent = driver.steered.add("NVIDIA H100 80GB HBM3", 80 * GIB)
    instance = driver.steered.add_instance(parent)
    await driver.start(retry_seconds=60)
    await driver.samples.next()
    driver.steered.lose(parent)
    assert await driver.samples.gpu_until(instance, lambda g: g.unhealthy is not None)


async def test_a_critical_xid_makes_the_gpu_unhealthy_for_good(driver: Driver) -> None:
    hit, other = driver.steered.add(), driver.steered.add()
    await driver.start()
    await driver.samples.next()
    driver.steered.xid(hit, 31)
    application = await driver.samples.gpu_until(hit, lambda g: bool(g.xid_errors))
    assert (application.xid_errors, application.unhealthy) == ((31,), None)
    driver.steered.xid(hit, 48)
    gpu = await driver.samples.gpu_until(hit, lambda g: g.unhealthy is not None)
    assert gpu.xid_errors == (31, 48)
    assert "XID 48: an uncorrectable memory error" in (gpu.unhealthy or "")
    helpers()[0].kill()
    await driver.samples.until(stale)
    sample = await driver.samples.until(fresh)
    assert gpu_of(sample, hit).unhealthy == gpu.unhealthy
    assert gpu_of(sample, other).unhealthy is None


async def test_a_critical_xid_of_a_gpu_takes_its_mig_instances_along(driver: Driver) -> None:
    parent = driver.steered.add("NVIDIA H100 80GB HBM3", 80 * GIB)
    instance = driver.steered.add_instance(parent)
    await driver.start()
    await driver.samples.next()
    driver.steered.xid(parent, 95)
    gpu = await driver.samples.gpu_until(instance, lambda g: g.unhealthy is not None)
    assert "XID 95" in (gpu.unhealthy or "")
