"""The list of hardening defaults, each proven by what the kernel says inside a running container.

What an engine was asked for is no proof: here nothing is read from an inspect.
"""

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from prsmd.domain.quantity import MIB
from prsmd.domain.spec import Security
from prsmd.runtime.docker import DockerRuntime, DockerSettings
from tests.runtime.harness import ask, launch_of, until_line
from tests.support.engine import CLASS, MODEL_IMAGE

pytestmark = pytest.mark.engine

LOOK = """
import json, os, pathlib, resource, socket
def first(*paths):
    for path in paths:
        try:
            return pathlib.Path(path).read_text().strip()
        except OSError:
            continue
group = "/sys/fs/cgroup"
print(json.dumps({
    "memory": first(f"{group}/memory.max", f"{group}/memory/memory.limit_in_bytes"),
    "swap": first(f"{group}/memory.swap.max", f"{group}/memory/memory.memsw.limit_in_bytes"),
    "pids": first(f"{group}/pids.max", f"{group}/pids/pids.max"),
    "cpu": first(f"{group}/cpu.max") or " ".join(
        first(f"{group}/cpu/cpu.cfs_{part}_us") for part in ("quota", "period")),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "namespaces": {n: os.readlink(f"/proc/self/ns/{n}") for n in os.listdir("/proc/self/ns")},
    "devices": sorted(os.listdir("/dev")),
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "groups": os.getgroups(),
    "host": socket.gethostname(),
    "processes": sorted(int(n) for n in os.listdir("/proc") if n.isdigit()),
    "mounts": [line.split() for line in open("/proc/self/mounts")],
    "writable": [line.split()[1] for line in open("/proc/self/mounts")
                 if os.access(line.split()[1], os.W_OK) and os.path.isdir(line.split()[1])],
    "resolver": first("/etc/resolv.conf"),
    "capabilities": {
        line.split()[0]: line.split()[1] for line in open("/proc/self/status") if "Cap" in line},
    "sockets": [p for p in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd")
                if os.path.exists(p)],
}))
"""


DANGEROUS = ("/proc/sys", "/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/proc/timer_list")


def ids_of_the_hosts(names):
    return {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in names}


@pytest.fixture
async def runtime(engine):
    driver = DockerRuntime(
        DockerSettings(
            instance="ours", base_url=engine.url, pids_limit=64, secrets_dir=engine.secrets_dir
        )
    )
    yield driver
    await driver.close()


async def running(runtime, **changes):
    model = (await runtime.images.resolve(MODEL_IMAGE)).digest
    launch = launch_of(model, **changes)
    container = await runtime.launch(launch)
    await until_line(runtime, container, "listening")
    return container


async def look(container):
    told = await ask(container, "/run", {"source": LOOK})
    assert told["code"] == 0, told
    return json.loads(told["out"])


async def test_the_kernel_bounds_memory_swap_processor_and_processes(runtime):
    found = await look(await running(runtime))
    assert int(found["memory"]) == 128 * MIB
    assert found["swap"] in {"0", str(128 * MIB), None}  # version 2, version 1, no swap accounting
    assert int(found["pids"]) == 64
    quota, period = map(int, found["cpu"].split())
    assert quota / period == 0.5
    assert found["core"] == [0, 0]


async def test_no_namespace_is_the_hosts_and_no_process_of_it_is_seen(runtime):
    found = await look(await running(runtime))
    host = ids_of_the_hosts(found["namespaces"])
    shared = {name for name, id_ in found["namespaces"].items() if id_ == host[name]}
    assert shared <= {"user", "time", "time_for_children"}
    assert found["host"] != socket.gethostname()
    assert len(found["processes"]) < 6
    assert found["interfaces"] == ["eth0", "lo"]


async def test_no_capability_is_left_in_any_set_and_no_group_either(runtime):
    found = await look(await running(runtime))
    assert set(found["capabilities"].values()) == {"0" * 16}
    assert len(found["capabilities"]) == 5
    assert set(found["groups"]) <= {65534}


async def test_there_are_no_devices_but_the_harmless_ones(runtime):
    found = await look(await running(runtime))
    assert set(found["devices"]) <= {
        *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero", "console"),
    }
    assert found["sockets"] == []


async def test_every_mount_is_memory_the_images_own_or_read_only(runtime):
    found = await look(await running(runtime))
    kernels = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "tmpfs"}
    for _, place, kind, options, *_ in found["mounts"]:
        flags = set(options.split(","))
        if kind not in kernels:
            assert "ro" in flags, (place, kind, options)
            assert place == "/" or place.startswith(("/etc/", "/usr/sbin/docker-init", "/sbin/"))
    assert set(found["writable"]) <= {"/tmp", "/dev/shm", "/dev/mqueue"}
    masked = {place for _, place, *_ in found["mounts"] if place.startswith("/proc/")}
    assert {place for place in DANGEROUS if Path(place).exists()} <= masked  # noqa: ASYNC240
    places = {place: set(options.split(",")) for _, place, _, options, *_ in found["mounts"]}
    assert {"noexec", "nosuid", "nodev"} <= places["/tmp"]
    assert {"noexec", "nosuid", "nodev", "size=65536k"} <= places["/dev/shm"]


async def test_names_are_asked_of_nobody(runtime):
    found = await look(await running(runtime))
    servers = [line.split()[1] for line in found["resolver"].splitlines() if "nameserver" in line]
    assert set(servers) <= {"127.0.0.1", "127.0.0.11"}


async def test_a_runtime_class_reaches_the_engine_and_confines_as_much(runtime, engine):
    plain = await running(runtime)
    assert plain.id not in engine.calls_of_class()
    container = await running(runtime, replica="replica-2", security=Security(runtime_class=CLASS))
    calls = [line for line in engine.calls_of_class().splitlines() if container.id in line]
    assert any(" create " in f" {line} " for line in calls), calls
    found = await look(container)
    assert (int(found["memory"]), int(found["pids"])) == (128 * MIB, 64)
    assert set(found["capabilities"].values()) == {"0" * 16}


async def test_the_class_of_the_appliance_is_for_who_asks_for_none(engine):
    settings = DockerSettings(
        instance="ours",
        base_url=engine.url,
        secrets_dir=engine.secrets_dir,
        default_class=CLASS,
    )
    runtime = DockerRuntime(settings)
    theirs = await running(runtime)
    own = await running(runtime, replica="replica-2", security=Security(runtime_class="runc"))
    assert theirs.id in engine.calls_of_class()
    assert own.id not in engine.calls_of_class()
    await runtime.close()


async def test_a_secret_is_for_its_container_and_no_other_of_the_same_user(runtime):
    model = (await runtime.images.resolve(MODEL_IMAGE)).digest
    launch = dataclasses.replace(launch_of(model), secrets={"TOKEN": b"canary-4711"})
    own = await runtime.launch(launch)
    await until_line(runtime, own, "listening")
    other = await running(runtime, replica="replica-2")
    seen = await ask(own, "/read", {"path": "/run/secrets/TOKEN"})
    assert seen["text"] == "canary-4711"
    source = """
import os
for root in ("/run", "/tmp", "/dev/shm", "/proc/1/root/run"):
    for path, _, names in os.walk(root):
        print(*(f"{path}/{name}" for name in names if name == "TOKEN"), end="")
print("looked as", os.getuid())
"""
    told = await ask(other, "/run", {"source": source})
    assert told["out"].strip() == "looked as 65534"
