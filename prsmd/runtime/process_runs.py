"""Keeps one folder for each run of the embedded runtime, and reads from it what became of the run.

    record.json    who it is: labels and port
    process.json   the pids of the supervisor and of the model's first process
    exit.json      how it ended
    log, log.1     its output
    lock           held by the supervisor for as long as anything of the run is alive
    scratch/       its home and temporary files
    secrets/       the files of its secrets

The lock decides whether a run is alive: it goes with the last process that has it, however that
ended, and no reused pid can take its place. Blocking; call from one thread.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prsmd.domain.errors import EngineError
from prsmd.domain.replica import Endpoint

from .base import Container, ContainerState, Labels

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_LOOPBACK = "127.0.0.1"


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

    def prepare(self) -> None:
        """Make the state folder and the file whose change tells that a run ended."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / "changed").touch()

    def path(self, run_id: str) -> Path:
        """Return the run's folder. EngineError for what cannot be an id."""
        if _ID.fullmatch(run_id) is None:
            raise EngineError(f"not a container id: {run_id[:80]!r}")
        return self._folder / run_id

    def all(self) -> list[Container]:
        """Return this instance's runs."""
        if not self._folder.is_dir():
            return []
        looked = (self.look(path.name) for path in sorted(self._folder.iterdir()) if path.is_dir())
        return [run for run in looked if run and run.labels.instance == self._instance]

    def look(self, run_id: str) -> Container | None:
        """Return what is known of a run of any instance."""
        path = self.path(run_id)
        record = _read(path / "record.json")
        if record is None:
            return None
        alive, exit_ = _locked(path), _read(path / "exit.json")
        processes = _read(path / "process.json")
        if alive and exit_ is None:
            state = ContainerState.RUNNING
        else:
            state = ContainerState.EXITED if processes else ContainerState.CREATED
        running = state is ContainerState.RUNNING
        return Container(
            id=run_id,
            labels=Labels(**record["labels"]),
            state=state,
            endpoint=Endpoint(_LOOPBACK, record["port"]) if running else None,
            pid=processes["leader"] if processes and running else None,
            own_cgroup=False,
            exit_code=exit_["code"] if exit_ else None,
            finished_at=exit_["at"] if exit_ else None,
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
        (path / "record.new").write_text(json.dumps(value))
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
                    *(str(writer), str(lock), str(command.log_bytes), *command.arguments),
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
        """Return a pidfd of the run's supervisor, None when nothing of the run is alive."""
        path = self.path(run_id)
        processes = _read(path / "process.json")
        if processes is None or not _locked(path):
            return None
        try:
            descriptor = os.pidfd_open(processes["supervisor"])
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
        given = {
            record["port"] for path in self._folder.glob("*/record.json") if (record := _read(path))
        }
        while True:
            with socket.socket() as probe:
                probe.bind((_LOOPBACK, 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                return port


def supervisors(folder: Path) -> list[int]:
    """Return the pids of what supervises runs of this folder, whether it is still there or not."""
    ours, found = os.fsencode(f"{folder.absolute()}/"), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:  # it ended, or is not for us to see
            continue
        program = [Path(os.fsdecode(each)).name for each in arguments[3:4]]
        if program == [_SUPERVISOR.name] and arguments[4].startswith(ours):
            found.append(int(path.parent.name))
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return content


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
