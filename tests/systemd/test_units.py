"""The unit files agree with the daemon's settings and stay hardened."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from prsmd.domain.quantity import parse_memory
from prsmd.settings import Settings

UNITS = Path(__file__).parents[2] / "systemd"
SETTINGS = Settings()


def read(name):
    class Repeated(dict):
        def __setitem__(self, key, value):
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(strict=False, dict_type=Repeated, interpolation=None)
    parser.optionxform = str
    parser.read(UNITS / name)
    return parser


def values(parser, section, key):
    return [value for value in parser.get(section, key).split("\n") if value]


@pytest.mark.systemd
def test_exposure_of_the_service_is_at_most_two_of_ten():
    analyze = shutil.which("systemd-analyze")
    command = [analyze, "security", "--offline=true", "--threshold=20", UNITS / "prsmd.service"]
    verdict = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert verdict.returncode == 0, verdict.stdout[-200:] + verdict.stderr


def test_the_sockets_are_the_default_listeners():
    socket = read("prsmd.socket")
    tcp = f"{SETTINGS.tcp.host}:{SETTINGS.tcp.port}"
    assert values(socket, "Socket", "ListenStream") == [str(SETTINGS.unix.path), tcp]
    assert socket.get("Socket", "SocketMode") == SETTINGS.unix.mode
    assert socket.get("Socket", "SocketGroup") == SETTINGS.unix.group


def test_secrets_of_running_containers_outlive_a_restart_in_a_folder_of_the_service():
    service = read("prsmd.service")
    assert SETTINGS.runtime.secrets_dir.parent == Path("/run") / service.get(
        "Service", "RuntimeDirectory"
    )
    assert service.get("Service", "RuntimeDirectoryPreserve") == "yes"


def test_the_memory_that_callers_may_use_leaves_the_daemon_as_much_again():
    service = read("prsmd.service")
    high, most = (
        parse_memory(f"{service.get('Service', key)}i") for key in ("MemoryHigh", "MemoryMax")
    )
    assert 3 * parse_memory(SETTINGS.limits.memory) <= high < most


def test_systemd_waits_longer_for_the_end_than_the_daemon_takes():
    service = read("prsmd.service")
    patience = float(service.get("Service", "TimeoutStopSec"))
    assert patience > SETTINGS.daemon.stop_timeout_seconds


def test_the_end_of_the_daemon_ends_no_model():
    assert read("prsmd.service").get("Service", "KillMode") == "process"


def test_a_refused_configuration_is_not_tried_again():
    assert read("prsmd.service").get("Service", "RestartPreventExitStatus") == "78"
