"""Control groups of both versions, laid out in a folder as the kernel lays them out."""

from pathlib import Path

import pytest

from prsmd.devices.cgroup import Cgroups, CgroupUsage

V2 = {
    "memory.current": "5000\n",
    "memory.stat": "anon 3000\nfile 2000\ninactive_file 1500\n",
    "memory.max": "8000\n",
    "memory.events": "low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
}
V1_MEMORY = {
    "memory.usage_in_bytes": "5000\n",
    "memory.stat": "cache 1\ninactive_file 7\ntotal_inactive_file 1500\n",
    "memory.limit_in_bytes": "8000\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
}
V1_CPU = {"cpuacct.usage": "2500000000\n"}
EXPECTED = CgroupUsage(cpu_seconds=2.5, memory_bytes=3500, memory_limit_bytes=8000, oom_kills=2)


class Kernel:
    """A procfs and cgroup hierarchies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.mounted = folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self._mountinfo = ["21 1 0:1 / / rw - overlay overlay rw"]

    def mount(self, kind: str, name: str, options: str, root: str = "/") -> None:
        point = self.mounted / name
        self._mountinfo.append(f"30 21 0:28 {root} {point} rw,nosuid - {kind} {kind} {options}")
        (self.proc / "self" / "mountinfo").write_text("\n".join(self._mountinfo) + "\n")

    def process(self, pid: int, groups: str) -> None:
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "cgroup").write_text(groups)

    def group(self, path: str, files: dict[str, str]) -> Path:
        folder = self.mounted / path
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def v2(kernel: Kernel) -> Path:
    kernel.mount("cgroup2", "", "rw,nsdelegate")
    kernel.process(42, "0::/system.slice/docker-ab.scope\n")
    return kernel.group("system.slice/docker-ab.scope", V2)


def v1_hybrid(kernel: Kernel) -> Path:
    kernel.mount("cgroup", "memory", "rw,memory")
    kernel.mount("cgroup", "cpu,cpuacct", "rw,cpu,cpuacct")
    kernel.mount("cgroup2", "unified", "rw")
    kernel.process(42, "9:name=systemd:/\n4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n0::/\n")
    kernel.group("cpu,cpuacct/docker/ab", V1_CPU)
    return kernel.group("memory/docker/ab", V1_MEMORY)


@pytest.mark.parametrize("layout", [v2, v1_hybrid])
def test_usage_is_cpu_working_set_limit_and_oom_kills(kernel: Kernel, layout) -> None:
    layout(kernel)
    assert Cgroups(kernel.proc).usage(42) == EXPECTED


@pytest.mark.parametrize(
    ("layout", "file", "unlimited"),
    [
        (v2, "memory.max", "max\n"),
        (v1_hybrid, "memory.limit_in_bytes", "9223372036854771712\n"),
    ],
)
def test_a_group_without_limit_has_none(kernel: Kernel, layout, file: str, unlimited: str) -> None:
    (layout(kernel) / file).write_text(unlimited)
    usage = Cgroups(kernel.proc).usage(42)
    assert usage is not None
    assert usage.memory_limit_bytes is None


@pytest.mark.parametrize("layout", [v2, v1_hybrid])
@pytest.mark.parametrize("file", ["memory.stat"])
def test_a_group_that_vanishes_between_two_reads_is_none(kernel: Kernel, layout, file: str) -> None:
    (layout(kernel) / file).unlink()
    assert Cgroups(kernel.proc).usage(42) is None


@pytest.mark.parametrize("layout", [v2, v1_hybrid])
def test_a_process_that_is_gone_has_no_usage_and_no_path(kernel: Kernel, layout) -> None:
    layout(kernel)
    cgroups = Cgroups(kernel.proc)
    assert (cgroups.usage(43), cgroups.path(43)) == (None, None)


def test_a_mount_that_shows_one_branch_is_followed_from_that_branch(kernel: Kernel) -> None:
    kernel.mount("cgroup2", "", "rw", root="/outer/box")
    kernel.process(42, "0::/outer/box/docker/ab\n")
    kernel.group("docker/ab", V2)
    assert Cgroups(kernel.proc).usage(42) == EXPECTED


def test_a_path_is_the_memory_controllers_or_the_unified_one(kernel: Kernel) -> None:
    kernel.process(1, "9:name=systemd:/a\n4:memory:/b\n0::/c\n")
    kernel.process(2, "0::/c\n")
    cgroups = Cgroups(kernel.proc)
    assert (cgroups.path(1), cgroups.path(2)) == ("/b", "/c")


def test_an_inactive_cache_larger_than_the_usage_reads_as_nothing(kernel: Kernel) -> None:
    (v2(kernel) / "memory.current").write_text("1000\n")
    usage = Cgroups(kernel.proc).usage(42)
    assert usage is not None
    assert usage.memory_bytes == 0
