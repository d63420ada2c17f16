"""TCP with a certificate: the same API, nothing in plain text, the same patience."""

import shutil
import ssl
import subprocess

import pytest

from prsmd.listeners import tls_context
from prsmd.settings import TcpSection
from tests.api.conftest import SETTINGS
from tests.api.wire import connected, parts, until_closed
from tests.support.daemon import running_daemon

ME = b"GET /v1/auth/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-API-Key: %s\r\n\r\n"


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A daemon with a certificate of its own, and a context that trusts it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    making = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    making += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {cert}"
    subprocess.run([openssl, *making.split()], check=True, capture_output=True)
    paths = {"tcp.cert": f'"{cert}"', "tcp.key": f'"{key}"'}
    with running_daemon(folder, {**SETTINGS, **paths}) as daemon:
        yield daemon, ssl.create_default_context(cafile=str(cert))


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
