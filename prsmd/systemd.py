"""What systemd and the daemon tell each other: readiness, watchdog, passed sockets."""

import contextlib
import os
import socket

_FIRST_PASSED_FD = 3  # SD_LISTEN_FDS_START
_PATIENCE_SECONDS = 0.05


def notify(state: str) -> None:
    """Send an `sd_notify` message such as `READY=1`; does nothing outside systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        channel.settimeout(_PATIENCE_SECONDS)  # who does not listen costs the message, not the loop
        channel.sendto(state.encode(), address)


def watchdog_seconds() -> float | None:
    """Return how often systemd wants to hear `WATCHDOG=1` at the latest; None without watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or microseconds == "0" or pid != str(os.getpid()):
        return None
    return int(microseconds) / 1e6


def passed_sockets() -> list[socket.socket]:
    """Return the listening sockets that socket activation passed, and forget the variables."""
    count = os.environ.pop("LISTEN_FDS", "0")
    pid = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    passed = []
    for fd in range(_FIRST_PASSED_FD, _FIRST_PASSED_FD + int(count)):
        os.set_inheritable(fd, False)  # noqa: FBT003 - the only form it takes
        passed.append(socket.socket(fileno=fd))
    return passed
