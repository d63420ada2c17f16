"""What systemd and the daemon tell each other, over real sockets and descriptors."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from prsmd import systemd

ROOT = Path(__file__).parents[1]
CHILD = """
import json, os, sys
os.environ["LISTEN_PID"] = sys.argv[1] if sys.argv[1:] else str(os.getpid())
from prsmd import systemd
passed = systemd.passed_sockets()
print(json.dumps({
    "names": [s.getsockname() for s in passed],
    "inheritable": [s.get_inheritable() for s in passed],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
    "again": len(systemd.passed_sockets()),
}))
for s in passed:
    s.detach()
"""
AS_SYSTEMD_DOES = """
import os, sys
for place, fd in enumerate(map(int, sys.argv[1].split(",")), start=3):
    os.dup2(fd, place)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.fixture
def notified(tmp_path, monkeypatch):
    """A real socket in the place of systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", receiver.getsockname())
        yield receiver


def test_a_message_reaches_systemd(notified):
    systemd.notify("READY=1")
    systemd.notify("STOPPING=1")

    assert [notified.recv(100), notified.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_who_does_not_listen_costs_messages_and_holds_nobody_up(notified):
    for _ in range(30):  # more than a socket of the kernel keeps for who does not read
        systemd.notify("WATCHDOG=1")

    assert notified.recv(100) == b"WATCHDOG=1"


def test_a_message_reaches_an_abstract_socket(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0prsmd-test-" + str(os.getpid()))
        receiver.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + receiver.getsockname()[1:].decode())

        systemd.notify("WATCHDOG=1")

        assert receiver.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "/nowhere/at/all"])
def test_without_systemd_a_message_is_no_error(monkeypatch, address):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    systemd.notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        ("30000000", str(os.getpid()), 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
    ids=["everyone's", "ours", "another's", "none", "empty", "no number", "not set"],
)
def test_the_watchdog_is_ours_only_if_it_names_us(monkeypatch, microseconds, pid, seconds):
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)

    assert systemd.watchdog_seconds() == seconds


def child(sockets, *arguments, **environment):
    """Run a process with the sockets at 3 and up, and return what it found."""
    numbers = ",".join(str(each.fileno()) for each in sockets)
    done = subprocess.run(
        [sys.executable, "-c", AS_SYSTEMD_DOES, numbers, "-c", CHILD, *arguments],
        pass_fds=[each.fileno() for each in sockets],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture
def sockets(tmp_path):
    # Numbers far from 3, so that passing them cannot overwrite one with another.
    unix, tcp = socket.socket(socket.AF_UNIX), socket.socket()
    unix.bind(str(tmp_path / "s"))
    tcp.bind(("127.0.0.1", 0))
    with unix, tcp:
        assert min(unix.fileno(), tcp.fileno()) > 4
        yield [unix, tcp]


def test_passed_sockets_are_taken_once_and_not_handed_on(sockets):
    found = child(sockets, LISTEN_FDS="2", LISTEN_FDNAMES="unix:tcp")

    assert found["names"] == [sockets[0].getsockname(), list(sockets[1].getsockname())]
    assert found["inheritable"] == [False, False]
    assert found["left"] == []
    assert found["again"] == 0


def test_sockets_for_another_process_are_left_alone(sockets):
    assert child(sockets, "1", LISTEN_FDS="2")["names"] == []


def test_a_number_that_is_none_passes_nothing(sockets):
    assert child(sockets, LISTEN_FDS="many")["names"] == []
