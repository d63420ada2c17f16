"""Where a request comes from: as records, limits of keys and the log take it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import SETTINGS, small
from tests.api.wire import exchange
from tests.support.daemon import Daemon, running_daemon

_LIST = "GET /v1/custom-models"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {
        **SETTINGS,
        "audit.flush_seconds": "0.05",
        "tcp.trusted_proxies": '["127.0.0.1/32", "10.0.0.0/8"]',
    }
    with running_daemon(tmp_path_factory.mktemp("origins"), settings) as started:
        deployment = started.deploy(small("seen"))
        started.until_ready(deployment, 1)
        yield started


def ask(
    daemon: Daemon, key: str, header: str = "", request: str = "GET /v1/custom-models"
) -> bytes:
    head = f"{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-API-Key: {key}\r\n"
    raw = f"{head}{header}\r\n".encode()
    return exchange(("127.0.0.1", daemon.tcp_port), raw)


def last(daemon: Daemon, query: str) -> Any:
    return daemon.call("GET", f"/v1/audit?limit=1&{query}").json["records"][0]


def test_a_record_has_the_address_of_whoever_a_trusted_proxy_names(daemon: Daemon) -> None:
    key = daemon.key("owner")
    header = "X-Forwarded-For: 192.0.2.66, 198.51.100.7, 10.2.3.4\r\n"
    delete = "DELETE /v1/custom-models/seen2"
    assert b" 404 " in ask(daemon, key, header, delete)
    assert last(daemon, "outcome=denied")["address"] == "198.51.100.7"


def test_a_local_caller_is_on_record_by_user_and_process(daemon: Daemon) -> None:
    daemon.key("viewer")
    address = last(daemon, "action=keys.create")["address"]
    found = re.fullmatch(r"unix:uid=(\d+),pid=(\d+)", address)
    assert found is not None
    assert int(found[1]) == os.geteuid()
    assert int(found[2]) == os.getpid()


def test_the_address_of_an_inference_is_on_record(daemon: Daemon) -> None:
    answer = daemon.call("POST", "/v1/models/seen/infer", {"inputs": {"text": "a"}})
    assert answer.status == 200, answer
    daemon.until(
        "the inference's record",
        lambda: daemon.call("GET", "/v1/audit?log=inferences").json["records"],
    )
    assert last(daemon, "log=inferences")["address"].startswith("unix:uid=")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("X-Forwarded-For: 198.51.100.7\r\n", b" 200 "),
        ("X-Forwarded-For: 198.51.100.7, 203.0.113.1\r\n", b" 401 "),
        ("Forwarded: for=198.51.100.7\r\n", b" 401 "),
        ("", b" 401 "),
        ("X-Forwarded-For: 198.51.100.7, nonsense\r\n", b" 400 "),
        ("X-Forwarded-For: \r\n", b" 400 "),
    ],
)
def test_a_keys_networks_are_compared_with_the_clients_address(
    daemon: Daemon, header: str, status: bytes
) -> None:
    made = daemon.call(
        "POST", "/v1/api-keys", {"name": "n", "role": "viewer", "networks": ["198.51.100.0/24"]}
    )
    assert made.status == 201, made
    assert status in ask(daemon, made.json["key"], header).split(b"\r\n")[0] + b" "


def test_whoever_is_no_trusted_proxy_is_not_believed(tmp_path: Path) -> None:
    with running_daemon(tmp_path, SETTINGS) as daemon:
        key = daemon.key("owner")
        header = "X-Forwarded-For: 198.51.100.7\r\nForwarded: for=198.51.100.8\r\n"
        assert b" 404 " in ask(daemon, key, header, "DELETE /v1/custom-models/none")
        assert last(daemon, "outcome=denied")["address"] == "127.0.0.1"
        assert b" 200 " in ask(daemon, key, "X-Forwarded-For: nonsense\r\n")
