"""SIGHUP on a real daemon: what changed holds, what is under way goes on."""

import contextlib
import hashlib
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.daemon.conftest import PROCESS
from tests.support.daemon import Daemon, running_daemon


class ConfiguredDaemon(Daemon):
    """A daemon whose settings under test stand in a file."""

    @property
    def file(self) -> Path:
        return self.folder / "prsmd.toml"

    def reload(self, text: str | None = None) -> str:
        """Write the file, send SIGHUP, and return what the daemon says of it."""
        if text is not None:
            self.file.write_text(text)
        self.begin_log()
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        self.until(
            "the reload", lambda: "settings reloaded:" in self.log or "not reloaded" in self.log
        )
        return self.log

    def _spawn(self, command, log):
        return super()._spawn([*command, "--config", str(self.file)], log)


@pytest.fixture
def notified(tmp_path):
    """A real socket in the place of systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(10)
        yield receiver


@pytest.fixture
def daemon(tmp_path, notified):
    make_certificate(tmp_path, "first")
    (tmp_path / "prsmd.toml").write_text(with_certificate(tmp_path))
    environment = {"NOTIFY_SOCKET": notified.getsockname()}
    with running_daemon(tmp_path, PROCESS, environment, ConfiguredDaemon) as started:
        yield started


def make_certificate(folder: Path, name: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed to make a certificate")
    making = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    making += f" -keyout {folder}/{name}.key -out {folder}/{name}.pem"
    subprocess.run([openssl, *making.split()], check=True, capture_output=True)
    for kind in ("key", "pem"):
        shutil.copy(folder / f"{name}.{kind}", folder / f"tls.{kind}")


def with_certificate(folder: Path, more: str = "") -> str:
    return f'tcp.cert = "{folder}/tls.pem"\ntcp.key = "{folder}/tls.key"\n{more}'


def digest(folder: Path, name: str) -> str:
    der = ssl.PEM_cert_to_DER_cert((folder / f"{name}.pem").read_text())
    return hashlib.sha256(der).hexdigest()


@contextlib.contextmanager
def connected(daemon: Daemon):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", daemon.tcp_port), timeout=10) as plain,
        context.wrap_socket(plain) as client,
    ):
        yield client


def shown(client: ssl.SSLSocket) -> str:
    certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    return hashlib.sha256(certificate).hexdigest()


def health(client: ssl.SSLSocket) -> bytes:
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client.recv(4096)


def test_a_new_certificate_is_for_new_connections_and_old_ones_go_on(daemon):
    with connected(daemon) as old:
        assert shown(old) == digest(daemon.folder, "first")
        make_certificate(daemon.folder, "second")
        said = daemon.reload()

        assert "tcp.cert: reloaded" in said
        assert health(old).startswith(b"HTTP/1.1 200")
    with connected(daemon) as new:
        assert shown(new) == digest(daemon.folder, "second")
        assert health(new).startswith(b"HTTP/1.1 200")


BROKEN = {
    "another key": "tls.key is not the key of ",
    "no certificate": "tls.key are no certificate and key in PEM",
    "nothing there": "tls.pem: No such file or directory",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_pair_keeps_the_old_one(daemon, broken):
    folder = daemon.folder
    if broken == "another key":
        make_certificate(folder, "second")
        shutil.copy(folder / "first.key", folder / "tls.key")
    elif broken == "no certificate":
        (folder / "tls.pem").write_text("no certificate")
    else:
        (folder / "tls.pem").unlink()
    said = daemon.reload(with_certificate(folder, 'limits.body = "1Mi"\n'))

    assert "ERROR   tcp.cert" in said
    assert BROKEN[broken] in said
    assert "what was there stays" in said
    assert "limits.body: 16Mi -> 1Mi" in said
    with connected(daemon) as client:
        assert shown(client) == digest(folder, "first")


def test_limits_hosts_roles_and_the_log_hold_from_the_reload_on(daemon):
    body = {"name": "x" * 2000, "role": "viewer"}
    assert daemon.call("POST", "/v1/api-keys", body).status != 413
    said = daemon.reload(
        with_certificate(
            daemon.folder,
            'limits.body = "1Ki"\ndaemon.log_level = "debug"\ntcp.allowed_hosts = ["other"]\n',
        )
    )

    assert "limits.body: 16Mi -> 1Ki" in said
    assert "daemon.log_level: info -> debug" in said
    assert daemon.call("POST", "/v1/api-keys", body).status == 413
    with connected(daemon) as client:
        assert not health(client).startswith(b"HTTP/1.1 200")


def test_an_invalid_file_changes_nothing_and_the_daemon_serves_on(daemon):
    said = daemon.reload("limits.bodi = 3\n")

    assert "settings not reloaded" in said
    assert "unknown key; did you mean body?" in said
    with connected(daemon) as client:
        assert shown(client) == digest(daemon.folder, "first")
        assert health(client).startswith(b"HTTP/1.1 200")
    [record] = daemon.call("GET", "/v1/audit?action=settings.reload").json["records"]
    assert (record["outcome"], record["details"]["by"]) == ("failed", "SIGHUP")


def test_systemd_hears_when_a_reload_begins_and_ends(daemon, notified):
    while notified.recv(200) != b"READY=1":
        pass
    daemon.reload()

    begun = notified.recv(200).decode().splitlines()
    assert begun[0] == "RELOADING=1"
    assert begun[1].removeprefix("MONOTONIC_USEC=").isdecimal()
    assert notified.recv(200) == b"READY=1"


def test_many_reloads_at_once_end_nothing_though_nobody_hears_of_them(daemon):
    for _ in range(20):
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.call("GET", "/healthz").status == 200
    daemon.until("a reload", lambda: "settings reloaded:" in daemon.log)
    assert daemon.process.poll() is None
