"""Keeps one folder for each run of the embedded runtime, and reads from it what became of the run.

    record.json    who it is: labels and port
    process.json   the pids of the supervisor and of the model's first process
    exit.json      how it ended
    log, log.1     its output
    lock           held by the supervisor for as long as anything of the run is alive
    scratch/       its home and temporary files
    secrets/       the files of its secrets

The lock decides whether a run is alive: it goes with the last process that has it, however that
ended, and no reused pid can take its place. A run of which a file is damaged counts as ended: it
is told once, and stopping it ends its processes. Blocking; call from one thread.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prsmd.domain.errors import EngineError
from prsmd.domain.replica import Endpoint

from .base import Container, ContainerState, Labels
from .process_records import DamagedFileError, exit_of, processes_of, record_of

log = logging.getLogger(__name__)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_LOOPBACK = "127.0.0.1"
_END_SECONDS, _KILL_SECONDS = 10.0, 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a run executes, where, with which variables, and how many bytes of log it may keep."""

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    log_bytes: int


class Runs:
    """The runs of one instance in one state folder."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._folder = folder
        self._instance = instance
        self._told: set[str] = set()

    def prepare(self) -> None:
        """Make the state folder and the file whose change tells that a run ended."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / "changed").touch(0o600)

    def path(self, run_id: str) -> Path:
        """Return the run's folder. EngineError for what cannot be an id."""
        if _ID.fullmatch(run_id) is None:
            raise EngineError(f"not a container id: {run_id[:80]!r}")
        return self._folder / run_id

    def all(self) -> list[Container]:
        """Return this instance's runs."""
        if not self._folder.is_dir():
            return []
        names = sorted(path.name for path in self._folder.iterdir() if path.is_dir())
        looked = (self.look(name) for name in names if _ID.fullmatch(name))
        return [run for run in looked if run and run.labels.instance == self._instance]

    def look(self, run_id: str) -> Container | None:
        """Return what is known of a run of any instance; a damaged one counts as ended."""
        path = self.path(run_id)
        try:
            return self._look(path)
        except DamagedFileError as error:
            return self._damaged(path, str(error))

    def _look(self, path: Path) -> Container | None:
        found = record_of(path)
        if found is None:
            return None
        labels, port = found
        alive, exit_ = _locked(path), exit_of(path)
        processes = processes_of(path)
        if alive and exit_ is None:
            state = ContainerState.RUNNING
        else:
            state = ContainerState.EXITED if processes else ContainerState.CREATED
        running = state is ContainerState.RUNNING
        return Container(
            id=path.name,
            labels=labels,
            state=state,
            endpoint=Endpoint(_LOOPBACK, port) if running else None,
            pid=processes["leader"] if processes and running else None,
            own_cgroup=False,
            exit_code=exit_["code"] if exit_ else None,
            finished_at=exit_["at"] if exit_ else None,
        )

    def _damaged(self, path: Path, problem: str) -> Container | None:
        """Return a run as ended, None where its record was lost before anything started."""
        if problem not in self._told:
            self._told.add(problem)
            log.error("%s: the run counts as ended, what is left of it is ended", problem)
        try:
            found = record_of(path)
        except DamagedFileError:
            if _holder(path) is None and not (path / "process.json").exists():
                return None
            found = None
        labels = found[0] if found else self._labels_of_lost(path)
        return Container(id=path.name, labels=labels, state=ContainerState.EXITED)

    def _labels_of_lost(self, path: Path) -> Labels:
        """Return labels for a run without a record: its supervisor knows whose it is."""
        holder = _holder(path)
        return Labels(
            instance=holder.instance if holder else self._instance,
            organization="",
            deployment="",
            revision=0,
            slot=0,
            replica=path.name,
            spec_hash="",
        )

    def ours(self, run_id: str) -> Container | None:
        """Return the run, None if it is gone. EngineError if another instance made it."""
        run = self.look(run_id)
        if run is not None and run.labels.instance != self._instance:
            raise EngineError(f"container {run_id} is not of this instance: left alone")
        return run

    @contextlib.contextmanager
    def claim(self, labels: Labels) -> Iterator[int | None]:
        """Give the lock of a run that may be started now, None where it has been already."""
        path = self.path(labels.replica)
        path.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield None if (path / "process.json").exists() else lock
        finally:
            os.close(lock)

    def record(self, labels: Labels, port: int) -> None:
        """Write who the run is, before it starts."""
        path = self.path(labels.replica)
        value = {"labels": dataclasses.asdict(labels), "port": port}
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(path / "record.new", flags, 0o600), "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave it empty under its last name
        (path / "record.new").rename(path / "record.json")
        (path / "scratch").mkdir(exist_ok=True, mode=0o700)

    def keep_secrets(self, run_id: str, values: Mapping[str, bytes]) -> None:
        """Write the files of a run's secrets, which only this user can read."""
        folder = self.path(run_id) / "secrets"
        shutil.rmtree(folder, ignore_errors=True)  # of a launch that was cut off
        if values:
            folder.mkdir(mode=0o700)
        for name, value in values.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(descriptor, "wb") as file:
                file.write(value)

    def start(self, run_id: str, lock: int, command: Command, limit_seconds: float) -> None:
        """Start the run's supervisor, which takes over the lock; return once its command runs."""
        ready, writer = os.pipe()
        try:
            starter = subprocess.Popen(  # noqa: S603 - running the bundle's command is the purpose
                [
                    *(sys.executable, "-I", "-S", str(_SUPERVISOR), str(self.path(run_id))),
                    *(str(writer), str(lock), str(command.log_bytes), self._instance),
                    *command.arguments,
                ],
                cwd=command.folder,
                env=dict(command.environment),
                pass_fds=(writer, lock),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            os.close(writer)
            writer = -1
            starter.wait(limit_seconds)
            answered, _, _ = select.select([ready], [], [], limit_seconds)
            if not answered or not os.read(ready, 1):
                raise EngineError(f"the supervisor of {run_id} did not start")
        except subprocess.TimeoutExpired as error:
            starter.kill()
            raise EngineError(f"the supervisor of {run_id} did not start") from error
        finally:
            os.close(ready)
            if writer >= 0:
                os.close(writer)

    def open_supervisor(self, run_id: str) -> int | None:
        """Return a pidfd of the run's supervisor, None when nothing of the run is alive.

        EngineError where it is alive and its supervisor cannot be told.
        """
        path = self.path(run_id)
        pid = _supervisor_of(path)
        if pid is None or not _locked(path):
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        if _locked(path):  # so the pid was, and the descriptor is, the supervisor's
            return descriptor
        os.close(descriptor)
        return None

    def remove(self, run_id: str) -> None:
        """Remove everything of a run that ended."""
        shutil.rmtree(self.path(run_id), ignore_errors=True)

    def free_port(self) -> int:
        """Return a loopback port that nobody listens on and no run was given."""
        given = set()
        for path in self._folder.glob("*/record.json"):
            with contextlib.suppress(DamagedFileError):
                found = record_of(path.parent)
                given.add(found[1] if found else 0)
        while True:
            with socket.socket() as probe:
                probe.bind((_LOOPBACK, 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                return port


@dataclasses.dataclass(frozen=True, slots=True)
class _Supervisor:
    """A process that supervises a run: of which folder and instance, with which lock."""

    pid: int
    folder: str
    lock: str
    instance: str


def supervisors(folder: Path) -> list[int]:
    """Return the pids of what supervises runs of this folder, whether it is still there or not."""
    return [each.pid for each in _supervising(folder)]


def end_unmanaged(folder: Path, instance: str) -> list[int]:
    """End the runs of an instance whose run folders are gone from `folder`; return their pids.

    Another instance's are left alone. EngineError, with their pids, if some cannot be ended.
    """
    lost = [
        each
        for each in _supervising(folder)
        if each.instance == instance and not _locked(folder / Path(each.folder).name)
    ]
    with contextlib.ExitStack() as stack:
        opened = {}
        for each in lost:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(each.pid)
                stack.callback(os.close, descriptor)
                if each == _supervisor(each.pid):  # the pid is not another's by now
                    opened[descriptor] = each.pid
        left = _signalled(opened, signal.SIGTERM, _END_SECONDS)
        left = _signalled(left, signal.SIGUSR1, _KILL_SECONDS)
        if left:
            pids = ", ".join(map(str, left.values()))
            raise EngineError(f"the supervisors {pids} cannot be ended")
    return list(opened.values())


def _signalled(processes: dict[int, int], number: int, seconds: float) -> dict[int, int]:
    """Signal processes, by pidfd, and wait; return those that are still there."""
    for descriptor in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(descriptor, number)
    left, until = dict(processes), time.monotonic() + seconds
    while left and (patience := until - time.monotonic()) > 0:
        for ended in select.select(list(left), [], [], patience)[0]:
            del left[ended]
    return left


def _supervising(folder: Path) -> Iterator[_Supervisor]:
    ours = f"{folder.absolute()}/"
    return (each for each in _all_supervisors() if each.folder.startswith(ours))


def _all_supervisors() -> Iterator[_Supervisor]:
    for path in Path("/proc").glob("[0-9]*"):
        found = _supervisor(int(path.name))
        if found is not None:
            yield found


def _supervisor(pid: int) -> _Supervisor | None:
    """Return what a process supervises, None if it is no supervisor or not for us to see."""
    try:
        given = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    program, *arguments = [os.fsdecode(each) for each in given[3:9]] or [""]
    if Path(program).name != _SUPERVISOR.name or len(arguments) < 5:
        return None
    folder, _, lock, _, instance = arguments
    return _Supervisor(pid, folder, lock, instance)


def _holder(path: Path) -> _Supervisor | None:
    """Return the supervisor that holds the lock of a run's folder."""
    for each in _all_supervisors():
        with contextlib.suppress(OSError):
            if (path / "lock").samefile(f"/proc/{each.pid}/fd/{each.lock}"):
                return each
    return None


def _supervisor_of(path: Path) -> int | None:
    """Return the pid of a run's supervisor, None for one that never started or has ended."""
    with contextlib.suppress(DamagedFileError):
        processes = processes_of(path)
        if processes is not None:
            pid: int = processes["supervisor"]
            return pid
    if not _locked(path):
        return None
    holder = _holder(path)
    if holder is None:
        raise EngineError(f"no supervisor of {path.name} is found, and it has no process.json")
    return holder.pid


def _locked(path: Path) -> bool:
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
