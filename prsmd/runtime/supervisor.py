"""The parent of one model process in the embedded runtime; a program of its own, not a module.

    python -I -S supervisor.py FOLDER READY_FD LOCK_FD LOG_BYTES INSTANCE COMMAND [ARG...]

Owns one run: starts the command in a session of its own, writes its output with times to a log of
bounded size, ends it with everything it started, and leaves the exit code in FOLDER. INSTANCE only
tells who lists processes whose it is. It needs
nothing from the daemon, so models and their logs go on when the daemon dies. It holds the lock of
FOLDER for as long as anything of the run is alive. SIGTERM asks the run to end, and SIGUSR1 after
that kills it; every other signal that can be is ignored, so that one sent to the whole service
(`systemctl kill`) harms no model.
Imports nothing of prsmd and little else: one such process stands beside every model.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LONGEST_LINE = 16 * 1024
_FAULTS = {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE}
_FAULTS |= {signal.SIGSEGV, signal.SIGSYS}
_LEFT = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores the last
_HEARD = tuple(signal.valid_signals() - _FAULTS - _LEFT)
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Log:
    """Lines as `<epoch seconds> <stream> <text>`, in two files that together stay bounded."""

    def __init__(self, folder: str, max_bytes: int) -> None:
        self._path = f"{folder}/log"
        self._half = max(max_bytes // 2, _LONGEST_LINE)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = 0
        self._open = {"stdout": b"", "stderr": b""}

    def feed(self, stream: str, data: bytes) -> None:
        """Write the lines that are complete with `data`; empty `data` is the end of the stream."""
        *lines, rest = (self._open[stream] + data).split(b"\n")
        if len(rest) >= _LONGEST_LINE or (not data and rest):
            lines.append(rest)
            rest = b""
        self._open[stream] = rest
        stamp = b"%.6f %s " % (time.time(), stream.encode())
        self._write(b"".join(stamp + line[:_LONGEST_LINE] + b"\n" for line in lines))

    def _write(self, data: bytes) -> None:
        # A full disk costs log lines, never the model.
        with contextlib.suppress(OSError):
            if self._size and self._size + len(data) > self._half:
                os.rename(self._path, self._path + ".1")  # noqa: PTH104 - pathlib costs memory
                os.close(self._file)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                self._size = 0
            self._size += os.write(self._file, data)


def _start(command: list[str], outputs: dict[str, int]) -> int:
    """Start the command as leader of a new session that dies with this process."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(137)
        os.dup2(outputs["stdout"], 1)
        os.dup2(outputs["stderr"], 2)
        signal.set_wakeup_fd(-1)
        for number in (*_HEARD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 - starting the bundle's command is the purpose
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _kill_rest(leader: int) -> None:
    """Kill the leader's group, then whatever else was left to us, until nothing is."""
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)
    while True:
        children = f"/proc/self/task/{os.getpid()}/children"
        with contextlib.suppress(OSError), open(children) as file:  # noqa: PTH123 - as above
            for pid in file.read().split():
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _write_json(path: str, value: object) -> None:
    """Write a file that is either whole or not there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(os.open(path + ".new", flags, 0o600), "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave it empty under its last name
    os.rename(path + ".new", path)  # noqa: PTH104 - as above


def _wait(leader: int, log: Log, readers: dict[int, str], wakeup: int) -> int:
    """Carry output to the log until the leader ends; return its exit code."""
    poll = select.poll()
    for reader in (*readers, wakeup):
        poll.register(reader, select.POLLIN)
    code, asked_to_end = None, False
    while code is None:
        for reader, _ in poll.poll():
            if reader == wakeup:
                asked_to_end = _pass_on(os.read(wakeup, 64), leader, asked_to_end)
            elif not _carry(reader, readers[reader], log):
                poll.unregister(reader)
        code = _reap(leader)
    return code if code >= 0 else 128 - code


def _reap(leader: int) -> int | None:
    """Reap what ended, adopted processes too; return the leader's code if it is among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == leader:
            return os.waitstatus_to_exitcode(status)
        if not pid:
            return None


def _pass_on(numbers: bytes, leader: int, asked_to_end: bool) -> bool:  # noqa: FBT001 - as above
    """Pass on what asks for the end, and kill who was asked before; tell whether it was asked."""
    for number in numbers:
        if number == signal.SIGTERM:
            _send(signal.SIGTERM, leader)
            asked_to_end = True
        elif number == signal.SIGUSR1 and asked_to_end:
            _send(signal.SIGKILL, leader)
    return asked_to_end


def _send(number: int, leader: int) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:  # it has not made its own group yet
        os.kill(leader, number)


def _carry(reader: int, stream: str, log: Log) -> bool:
    data = os.read(reader, 65536)
    log.feed(stream, data)
    return bool(data)


def _signals() -> int:
    """Return a descriptor on which the number of each signal can be read."""
    wakeup, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in _HEARD:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return wakeup


def main() -> NoReturn:
    """Run one command to its end."""
    folder, ready, lock, log_bytes, _, *command = sys.argv[1:]
    if os.fork():
        os._exit(0)  # the daemon waits only for this one, and is nobody's parent afterwards
    os.setsid()
    for descriptor in (int(lock), int(ready)):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no keyword
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    log, wakeup = Log(folder, int(log_bytes)), _signals()
    pipes = {"stdout": os.pipe(), "stderr": os.pipe()}
    leader = _start(command, {stream: writer for stream, (_, writer) in pipes.items()})
    for _, writer in pipes.values():
        os.close(writer)
    _write_json(f"{folder}/process.json", {"supervisor": os.getpid(), "leader": leader})
    os.write(int(ready), b"1")
    os.close(int(ready))
    readers = {reader: stream for stream, (reader, _) in pipes.items()}
    code = _wait(leader, log, readers, wakeup)
    _kill_rest(leader)
    for reader, stream in readers.items():
        while _carry(reader, stream, log):
            pass
    _write_json(f"{folder}/exit.json", {"code": code, "at": time.time()})
    with contextlib.suppress(OSError):
        os.utime(f"{folder}/../changed")
    os._exit(0)


if __name__ == "__main__":
    main()
