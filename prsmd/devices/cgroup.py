"""Reads what a process's control group uses, on cgroup v1, v2 and hosts that mix both.

Only reads: limits are set by the container engine. A process may end between any two reads; then
the answer is None.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

_UNLIMITED = 2**60  # v1 says "no limit" with a number near 2**63


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CgroupUsage:
    """What a group used so far and uses now.

    `memory_bytes` is the working set: all that is charged less file pages that the kernel drops
    first. `memory_limit_bytes` is None without a limit. `oom_kills` counts the kernel's kills.
    """

    cpu_seconds: float
    memory_bytes: int
    memory_limit_bytes: int | None = None
    oom_kills: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Mount:
    """Where a hierarchy is mounted, and which of its groups is the mount's root."""

    point: Path
    root: str


class Cgroups:
    """The control groups of this host. `proc` is where its procfs is mounted."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._mounts: Mapping[str, _Mount] | None = None

    def usage(self, pid: int) -> CgroupUsage | None:
        """Return what the group of `pid` uses; None once the process or its group is gone."""
        groups = self._groups(pid)
        try:
            if "memory" in groups:
                return _usage_v1(self._folder("memory", groups), self._folder("cpuacct", groups))
            return _usage_v2(self._folder("", groups))
        except (OSError, ValueError, KeyError):
            return None

    def path(self, pid: int) -> str | None:
        """Return the group of `pid` as the kernel names it (its memory controller's on v1)."""
        groups = self._groups(pid)
        return groups.get("memory", groups.get(""))

    def _groups(self, pid: int) -> Mapping[str, str]:
        """Return the group of `pid` by controller; "" is the v2 hierarchy."""
        try:
            lines = (self._proc / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return {}
        groups = {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            groups.update(dict.fromkeys(controllers.split(","), path))
        return groups

    def _folder(self, controller: str, groups: Mapping[str, str]) -> Path:
        if self._mounts is None:
            self._mounts = _read_mounts(self._proc / "self" / "mountinfo")
        mount = self._mounts[controller]
        path = groups[controller]
        if mount.root != "/" and (path + "/").startswith(mount.root + "/"):
            path = path[len(mount.root) :]  # a container sees only its own branch
        return mount.point / path.lstrip("/")


def _usage_v2(folder: Path) -> CgroupUsage:
    limit = (folder / "memory.max").read_text().strip()
    return CgroupUsage(
        cpu_seconds=_fields(folder / "cpu.stat")["usage_usec"] / 1e6,
        memory_bytes=_working_set(folder, "memory.current", "inactive_file"),
        memory_limit_bytes=None if limit == "max" else int(limit),
        oom_kills=_fields(folder / "memory.events").get("oom_kill", 0),
    )


def _usage_v1(memory: Path, cpuacct: Path) -> CgroupUsage:
    limit = _number(memory / "memory.limit_in_bytes")
    return CgroupUsage(
        cpu_seconds=_number(cpuacct / "cpuacct.usage") / 1e9,
        memory_bytes=_working_set(memory, "memory.usage_in_bytes", "total_inactive_file"),
        memory_limit_bytes=None if limit >= _UNLIMITED else limit,
        oom_kills=_fields(memory / "memory.oom_control").get("oom_kill", 0),
    )


def _working_set(folder: Path, usage: str, inactive: str) -> int:
    return max(0, _number(folder / usage) - _fields(folder / "memory.stat").get(inactive, 0))


def _number(file: Path) -> int:
    return int(file.read_text())


def _fields(file: Path) -> Mapping[str, int]:
    return {key: int(value) for key, value in map(str.split, file.read_text().splitlines())}


def _read_mounts(mountinfo: Path) -> Mapping[str, _Mount]:
    """Return the mounted hierarchies by controller; see proc_pid_mountinfo(5) for the columns."""
    mounts = {}
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in {"cgroup", "cgroup2"}:
            continue
        columns = before.split(" ")
        mount = _Mount(point=Path(columns[4]), root=columns[3])
        names = [""] if kind == "cgroup2" else options.split(",")
        mounts.update(dict.fromkeys(names, mount))
    return mounts
