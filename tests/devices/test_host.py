"""This real machine, its real processes, and a laid-out procfs where a test needs the odd case."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from prsmd.devices.base import Host
from prsmd.devices.cgroup import Cgroups
from prsmd.devices.fake import InMemoryHost
from prsmd.devices.host import PsutilHost
from prsmd.domain.quantity import MIB
from tests.support.exhausted import no_descriptors

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")

LEADER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c",
    "held = bytearray(64 * 1024**2); print('up', flush=True); input()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A process that leads a session, and its child that holds 64 MiB."""
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdout is not None
    assert leader.stdin is not None
    with leader.stdin, leader.stdout:
        yield leader.pid, int(leader.stdout.readline())
        os.killpg(leader.pid, 9)
        leader.wait()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("host", [PsutilHost(), InMemoryHost()])
def test_a_sample_is_within_what_a_machine_can_be(host: Host) -> None:
    sample = host.sample()
    assert sample.cpu_count >= 1
    assert 0 <= sample.cpu_percent <= 100
    assert 0 < sample.memory_available_bytes <= sample.memory_total_bytes


@pytest.mark.parametrize("host", [PsutilHost(), InMemoryHost()])
def test_a_process_that_is_gone_uses_nothing_and_belongs_nowhere(host: Host) -> None:
    assert host.replica_usage(2**22 + 1, own_cgroup=False) is None
    assert host.replica_usage(2**22 + 1, own_cgroup=True) is None
    assert not host.belongs_to(2**22 + 1, [os.getpid()])


def test_the_sample_is_this_machine() -> None:
    sample = PsutilHost().sample()
    assert sample.cpu_count == os.cpu_count()
    assert sample.memory_total_bytes == psutil.virtual_memory().total


def test_cpu_use_of_the_machine_is_averaged_and_not_over_an_instant() -> None:
    clock = Clock()
    host = PsutilHost(clock=clock)
    clock.now += 0.1
    assert host.sample().cpu_percent == 0.0  # too short to say
    deadline = psutil.cpu_times().user + 0.2
    while psutil.cpu_times().user < deadline:
        pass
    clock.now += 1.0
    assert host.sample().cpu_percent > 0.0


def test_usage_of_a_process_group_counts_its_children(family: tuple[int, int]) -> None:
    leader, _ = family
    usage = PsutilHost().replica_usage(leader, own_cgroup=False)
    assert usage is not None
    cpu_seconds, memory_bytes = usage
    both = sum(psutil.Process(pid).memory_info().rss for pid in family)
    assert memory_bytes == pytest.approx(both, rel=0.1)
    assert memory_bytes > 64 * MIB
    assert cpu_seconds > 0


def test_a_child_that_ended_is_no_longer_counted(family: tuple[int, int]) -> None:
    leader, child = family
    host = PsutilHost()
    before = host.replica_usage(leader, own_cgroup=False)
    ended = os.pidfd_open(child)
    psutil.Process(child).kill()
    assert select.select([ended], [], [], 30)[0]
    os.close(ended)
    after = host.replica_usage(leader, own_cgroup=False)
    assert before is not None
    assert after is not None
    assert after[1] < before[1] - 60 * MIB


def test_usage_of_a_cgroup_is_this_processes_own_group() -> None:
    usage = PsutilHost().replica_usage(os.getpid(), own_cgroup=True)
    direct = Cgroups().usage(os.getpid())
    if direct is None:
        pytest.skip("this machine shows no cgroup with cpu and memory to its processes")
    assert usage is not None
    assert usage[0] > 0
    assert usage[1] > 0


def test_the_processes_of_a_session_belong_to_its_leader(family: tuple[int, int]) -> None:
    leader, child = family
    host = PsutilHost()
    assert host.belongs_to(child, [1, leader])
    assert host.belongs_to(leader, [leader])
    assert not host.belongs_to(os.getpid(), [leader])  # though it runs in the same cgroup
    assert not host.belongs_to(child, [])


class Procfs:
    """Processes with cgroups, laid out as the kernel does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.process(os.getpid(), "/system.slice/prsmd.service")

    def process(self, pid: int, group: str, *, name: str = "python", leader: int = 1) -> None:
        folder = self.path / str(pid)
        folder.mkdir()
        cpu = " ".join(str(int(seconds * TICKS)) for seconds in (1.5, 0.5, 0.25, 0.25))
        rest = f"0 0 0 0 0 0 {cpu} 0 0 1 0 9 1000 300 0"
        (folder / "stat").write_text(f"{pid} ({name}) S 1 {leader} {leader} 0 {rest}\n")
        (folder / "cgroup").write_text(f"0::{group}\n")


@pytest.mark.parametrize(
    ("replica", "other", "belongs"),
    [
        ("/docker/ab", "/docker/ab", True),
        ("/docker/ab", "/docker/ab/init.scope", True),
        ("/docker/ab", "/docker/abc", False),
        ("/docker/ab", "/docker/cd", False),
        ("/", "/user.slice", False),
        ("/", "/", False),
        ("/system.slice/prsmd.service", "/system.slice/prsmd.service", False),
    ],
)
def test_a_process_belongs_to_a_replica_by_a_cgroup_that_is_the_replicas_own(
    tmp_path: Path, replica: str, other: str, *, belongs: bool
) -> None:
    procfs = Procfs(tmp_path)
    procfs.process(2_000_001, replica)
    procfs.process(2_000_002, other)
    assert PsutilHost(proc=procfs.path).belongs_to(2_000_002, [2_000_001]) is belongs


def test_a_new_child_is_counted_within_seconds(tmp_path: Path) -> None:
    procfs, clock = Procfs(tmp_path), Clock()
    procfs.process(2_000_001, "/", leader=2_000_001)
    host = PsutilHost(proc=procfs.path, clock=clock)
    assert host.replica_usage(2_000_001, own_cgroup=False) == (2.5, 300 * PAGE)
    procfs.process(2_000_002, "/", leader=2_000_001)
    clock.now += 6
    assert host.replica_usage(2_000_001, own_cgroup=False) == (5.0, 600 * PAGE)


def test_a_process_name_cannot_forge_the_columns_after_it(tmp_path: Path) -> None:
    procfs = Procfs(tmp_path)
    procfs.process(2_000_001, "/", leader=2_000_001)
    procfs.process(2_000_002, "/", name=") S 1 2000001 2000001 0 (")
    host = PsutilHost(proc=procfs.path)
    assert not host.belongs_to(2_000_002, [2_000_001])
    assert host.replica_usage(2_000_001, own_cgroup=False) == (2.5, 300 * PAGE)


def test_a_machine_that_cannot_be_measured_is_as_it_was() -> None:
    clock = Clock()
    host = PsutilHost(clock=clock)
    before = host.sample()
    clock.now += 10
    with no_descriptors():
        assert host.sample() == before
    assert host.sample().taken_at > before.taken_at
