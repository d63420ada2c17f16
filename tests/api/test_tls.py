"""TCP with a certificate: the same API, nothing in plain text, the same patience."""

import contextlib
import http.client
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from prsmd.listeners import tls_context
from prsmd.settings import TcpSection
from tests.api.conftest import SETTINGS
from tests.api.wire import connected, parts, until_closed
from tests.support.daemon import Daemon, running_daemon

ME = b"GET /v1/auth/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-API-Key: %s\r\n\r\n"


def certified(folder: Path) -> dict[str, str]:
    """Make a certificate and return the settings that name it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed to make a certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    making = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    making += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {cert}"
    subprocess.run([openssl, *making.split()], check=True, capture_output=True)
    return {"tcp.cert": f'"{cert}"', "tcp.key": f'"{key}"'}


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A daemon with a certificate of its own, and a context that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    with running_daemon(folder, {**SETTINGS, **certified(folder)}) as daemon:
        yield daemon, ssl.create_default_context(cafile=str(folder / "cert.pem"))


def test_a_key_opens_the_door_over_tls(secured):
    daemon, trusting = secured
    key = daemon.key("viewer").encode()
    with (
        connected(("127.0.0.1", daemon.tcp_port)) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(ME % key)
        status, _, body = parts(until_closed(client))

    assert (status, body["role"]) == (200, "viewer")


def test_plain_text_gets_no_answer(secured):
    daemon, _ = secured
    with connected(("127.0.0.1", daemon.tcp_port)) as client:
        client.sendall(ME % b"none")
        assert b"HTTP" not in until_closed(client)


def test_versions_before_tls_1_2_are_refused(secured):
    folder = secured[0].folder
    context = tls_context(TcpSection(cert=folder / "cert.pem", key=folder / "key.pem"))

    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_slow_head_ends_the_connection_over_tls_too(secured):
    daemon, trusting = secured
    with (
        connected(("127.0.0.1", daemon.tcp_port)) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert until_closed(client) == b""


def test_the_endpoint_is_named_with_https(secured):
    daemon, _ = secured
    body = {
        "model_name": "a",
        "deployment_config": {
            "container_image": "company/legal-analyzer:v2.1",
            "scaling": {"min_replicas": 0},
        },
    }
    made = daemon.call("POST", "/v1/custom-models/deploy", body)
    assert made.json["endpoint_url"].startswith(f"https://127.0.0.1:{daemon.tcp_port}/")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_stop_loses_no_request_on_kept_connections_and_waits_for_no_silent_client(
    tmp_path, version
):
    patient = {"limits.header_timeout_seconds": "300", "daemon.stop_timeout_seconds": "300"}
    settings = {**SETTINGS, **certified(tmp_path), **patient}
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running_daemon(tmp_path, settings))
        trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        trusting.minimum_version = trusting.maximum_version = version
        key = daemon.key("viewer")
        for silent in (b"", b"\x16\x03\x01\x02\x00\x01"):
            client = stack.enter_context(connected(("127.0.0.1", daemon.tcp_port)))
            client.sendall(silent)
        clients = [Kept(daemon, trusting, key) for _ in range(4)]
        assert daemon.stop() == 0
        for client in clients:
            client.join(60)

    assert [client.failed for client in clients] == [None] * len(clients)
    assert all(client.answered for client in clients)


class Kept(threading.Thread):
    """Asks over one connection, again and again, until it is told to close it."""

    def __init__(self, daemon: Daemon, trusting: ssl.SSLContext, key: str) -> None:
        super().__init__()
        self.answered = 0
        self.failed: Exception | None = None
        self._key = key
        self._connection = http.client.HTTPSConnection(
            "localhost", daemon.tcp_port, context=trusting, timeout=60
        )
        self._ask()
        self.start()

    def run(self) -> None:
        with contextlib.closing(self._connection):
            try:
                while self._ask() != "close":
                    pass
            except (OSError, http.client.HTTPException) as error:
                self.failed = error

    def _ask(self) -> str | None:
        self._connection.request("GET", "/v1/auth/me", headers={"X-API-Key": self._key})
        answer = self._connection.getresponse()
        answer.read()
        self.answered += answer.status == 200
        return answer.getheader("Connection")
