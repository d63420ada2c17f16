"""Measures this host with psutil: cpu, memory, and what replicas' processes use of them."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from prsmd.domain.node import HostSample

from .cgroup import Cgroups

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHORTEST_WINDOW = 0.5  # seconds over which cpu use is averaged; below, ticks are too coarse
_MEMBERS_SECONDS = 5.0  # how long it may take until a replica's new child is counted


@dataclasses.dataclass(frozen=True, slots=True)
class _Stat:
    """What is needed of /proc/PID/stat. cpu counts the children that have ended."""

    group: int
    session: int
    cpu_seconds: float
    memory_bytes: int


class PsutilHost:
    """This machine. Blocking calls of microseconds, a scan of /proc every few seconds at most."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, proc: Path = Path("/proc")
    ) -> None:
        self._clock = clock
        self._proc = proc
        self._cgroups = Cgroups(proc)
        self._cpu_percent = 0.0
        self._cpu_measured_at = clock()
        self._cpu_times = _busy_and_total()
        self._members: Mapping[int, list[int]] = {}
        self._members_read_at: float | None = None
        self._sample = self._measure()

    def sample(self) -> HostSample:
        """Return cpu use since about the last call, and memory now.

        What was measured last where /proc cannot be read: `taken_at` tells.
        """
        with contextlib.suppress(OSError):
            self._sample = self._measure()
        return self._sample

    def _measure(self) -> HostSample:
        self._measure_cpu()
        memory = psutil.virtual_memory()
        return HostSample(
            cpu_count=os.cpu_count() or 1,
            cpu_percent=self._cpu_percent,
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            taken_at=time.time(),
        )

    def replica_usage(self, pid: int, *, own_cgroup: bool) -> tuple[float, int] | None:
        """Return (cpu seconds so far, memory bytes now) of a replica; None once it is gone.

        Without `own_cgroup` it is the sum over the process groups and the session that `pid`
        leads; pages that its processes share are counted once for each.
        """
        if own_cgroup:
            usage = self._cgroups.usage(pid)
            return None if usage is None else (usage.cpu_seconds, usage.memory_bytes)
        leader = self._stat(pid)
        if leader is None:
            return None
        others = (self._stat(member) for member in self._members_of(pid) if member != pid)
        stats = [leader, *(s for s in others if s is not None and pid in {s.group, s.session})]
        return sum(s.cpu_seconds for s in stats), sum(s.memory_bytes for s in stats)

    def belongs_to(self, pid: int, replica_pids: Sequence[int]) -> bool:
        """Tell whether `pid` runs in the cgroup or process group of one of the replicas' pids."""
        stat = self._stat(pid)
        if stat is None:
            return False
        if {pid, stat.group, stat.session} & set(replica_pids):
            return True
        group = self._cgroups.path(pid)
        return group is not None and any(self._holds(r, group) for r in replica_pids)

    def _holds(self, replica_pid: int, group: str) -> bool:
        """Tell whether `group` is, or is within, a group that is the replica's own."""
        own = self._cgroups.path(replica_pid)
        if own is None or own in {"/", self._cgroups.path(os.getpid())}:
            return False  # shared with everything else that was started as we were
        return group == own or group.startswith(own + "/")

    def _measure_cpu(self) -> None:
        now = self._clock()
        if now - self._cpu_measured_at < _SHORTEST_WINDOW:
            return
        busy, total = _busy_and_total()
        was_busy, was_total = self._cpu_times
        if total > was_total:
            share = (busy - was_busy) / (total - was_total)
            self._cpu_percent = round(min(max(share, 0.0), 1.0) * 100, 1)
        self._cpu_times = busy, total
        self._cpu_measured_at = now

    def _members_of(self, leader: int) -> Sequence[int]:
        now = self._clock()
        if self._members_read_at is None or now - self._members_read_at >= _MEMBERS_SECONDS:
            self._members = self._read_members()
            self._members_read_at = now
        return self._members.get(leader, ())

    def _read_members(self) -> Mapping[int, list[int]]:
        """Return every process by the leader of its group and of its session."""
        members: dict[int, list[int]] = {}
        for name in os.listdir(self._proc):  # noqa: PTH208 - names are all that is needed of hundreds
            if name.isdecimal() and (stat := self._stat(int(name))) is not None:
                for leader in {stat.group, stat.session}:
                    members.setdefault(leader, []).append(int(name))
        return members

    def _stat(self, pid: int) -> _Stat | None:
        try:
            with open(f"{self._proc}/{pid}/stat", "rb", buffering=0) as stat:  # noqa: PTH123 - a third of pathlib's time, hundreds of times
                text = stat.read()
        except OSError:
            return None
        # The name in parentheses may hold anything; columns are numbered in proc_pid_stat(5).
        fields = text[text.rfind(b")") + 2 :].split()
        if len(fields) < 22 or fields[0] in {b"Z", b"X"}:
            return None
        return _Stat(
            group=int(fields[2]),
            session=int(fields[3]),
            cpu_seconds=sum(map(int, fields[11:15])) / _TICKS,
            memory_bytes=int(fields[21]) * _PAGE,
        )


def _busy_and_total() -> tuple[float, float]:
    times = psutil.cpu_times()
    # guest time is in user and nice already
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total
