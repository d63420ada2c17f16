"""The listeners: who can connect is settled before anyone can, and nobody's file is removed."""

import datetime as dt
import grp
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from prsmd import listeners
from prsmd.config import ConfigurationError
from prsmd.settings import TcpSection, UnixSection

NO_GROUP = "no-such-group-here"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prsmd.sock"


def opened(path, **values):
    return listeners.open_unix(UnixSection(path=path, **{"group": NO_GROUP, **values}))


@pytest.mark.parametrize("mode", ["0660", "0600", "666"])
def test_the_socket_has_its_mode_whatever_the_umask(path, mode):
    before = os.umask(0)
    try:
        with opened(path, mode=mode):
            assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
            assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_the_mode_is_set_by_the_bind_itself_so_that_no_moment_is_left(path, monkeypatch):
    seen = []

    class Watched(socket.socket):
        def listen(self, backlog):
            seen.append(stat.S_IMODE(path.stat().st_mode))
            super().listen(backlog)

        def bind(self, address):
            super().bind(address)
            seen.append(stat.S_IMODE(path.stat().st_mode))

    monkeypatch.setattr(listeners.socket, "socket", Watched)
    with opened(path):
        assert seen == [0o660, 0o660]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other groups")
def test_the_socket_belongs_to_the_configured_group(path):
    group = grp.getgrnam("daemon")

    with opened(path, group="daemon"):
        assert path.stat().st_gid == group.gr_gid


def test_an_unknown_group_is_a_warning_that_names_it(path, caplog):
    with opened(path):
        assert NO_GROUP in caplog.text


def test_missing_folders_are_made_and_can_be_entered(tmp_path):
    path = tmp_path / "run" / "prsmd" / "s"

    with opened(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert stat.S_IMODE(path.parent.stat().st_mode) & 0o500 == 0o500


def test_a_socket_that_a_dead_daemon_left_is_replaced(path):
    opened(path).close()
    assert path.exists()

    with opened(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_on_which_somebody_answers_is_refused_and_left(path):
    with opened(path), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(ConfigurationError, match="another daemon answers"):
            opened(path)
        client.connect(str(path))


def test_a_file_that_is_no_socket_is_refused_and_left(path, tmp_path):
    path.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(path)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nothing")

    for taken in (path, tmp_path, link, dangling):
        with pytest.raises(ConfigurationError, match="is not a socket"):
            opened(taken)
    assert path.read_text() == "precious"
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("place", "why"), [("x" * 120, "too long"), ("file/inside", "Not a directory")]
)
def test_a_place_where_no_socket_can_be_is_refused_in_words(tmp_path, place, why):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match=why):
        opened(tmp_path / place)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_tcp_listens_where_it_is_told(host):
    if host == "::1" and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this machine has no IPv6")
    with listeners.open_tcp(TcpSection(host=host, port=0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection((host, port), timeout=10).close()


def test_a_busy_port_is_refused_by_name():
    with listeners.open_tcp(TcpSection(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"tcp: 127.0.0.1:{port}: Address already"):
            listeners.open_tcp(TcpSection(port=port))


def test_no_tls_without_a_certificate_and_a_clear_error_for_a_wrong_one(tmp_path):
    assert listeners.tls_context(TcpSection()) is None
    (tmp_path / "cert").write_text("no certificate")
    for name, key, said in (
        ("cert", "key", f"tcp.key: {tmp_path}/key: No such file or directory"),
        ("absent", "cert", f"tcp.cert: {tmp_path}/absent: No such file or directory"),
        ("cert", "cert", f"tcp.cert, tcp.key: {tmp_path}/cert and {tmp_path}/cert are no "),
    ):
        section = TcpSection(cert=tmp_path / name, key=tmp_path / key)
        with pytest.raises(ConfigurationError, match=re.escape(said)):
            listeners.tls_context(section)


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(tmp_path):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a passphrase"),
    )
    (tmp_path / "cert").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key").write_bytes(sealed)

    with pytest.raises(ConfigurationError, match="is sealed with a passphrase"):
        listeners.tls_context(TcpSection(cert=tmp_path / "cert", key=tmp_path / "key"))


def test_another_user_cannot_connect(path):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    path.parent.chmod(0o755)
    for parent in path.parents[:3]:
        parent.chmod(0o755)
    trying = "import os, socket, sys; os.setgroups([]); os.setgid(54321); os.setuid(54321);"
    trying += "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    with opened(path):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", trying, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "PermissionError" in done.stderr
