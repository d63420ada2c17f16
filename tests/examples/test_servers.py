"""The example models, run as the embedded runtime runs them, speak the native contract."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NAMES = ("language-id", "file-type")
SAMPLE = {
    "language-id": {"text": "Der Vertrag wird zwischen den folgenden Parteien geschlossen."},
    "file-type": {"text": "import os\n\nfor name in os.listdir():\n    print(name)\n"},
}


def start(name):
    subprocess.run([ROOT / "scripts/example-bundle", name, sys.executable], check=True, timeout=300)
    bundle = tomllib.loads((EXAMPLES / name / "bundle.toml").read_text())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable if word == "{python}" else word for word in bundle["command"]],
        cwd=EXAMPLES / name,
        env={"PATH": os.environ["PATH"], "PORT": str(port), **bundle["environment"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "listening" in process.stdout.readline()
    return process, port


@pytest.fixture(scope="module", params=NAMES)
def server(request):
    process, port = start(request.param)
    yield request.param, port
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture
def connection(server):
    connection = http.client.HTTPConnection("127.0.0.1", server[1], timeout=30)
    yield connection
    connection.close()


def ask(connection, body, path="/infer"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, content)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_health_answers_once_it_listens(connection):
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200


def test_each_example_recognizes_its_sample(server, connection):
    expected = {"language-id": "de", "file-type": "python"}[server[0]]
    status, answer = ask(connection, {"inputs": SAMPLE[server[0]]})
    assert status == 200
    assert answer["outputs"]["classification"] == expected
    assert 0.5 < answer["outputs"]["confidence"] <= 1


def test_confidence_below_the_threshold_is_said_not_guessed(server, connection):
    body = {"inputs": SAMPLE[server[0]], "parameters": {"confidence_threshold": 1}}
    status, answer = ask(connection, body)
    assert status == 200
    assert answer["outputs"]["classification"] in {"und", "unknown"}


def test_unknown_inputs_and_parameters_of_the_document_are_accepted(server, connection):
    inputs = {"text": "This is a legal document for review", "document_type": "contract"}
    parameters = {"confidence_threshold": 0.0, "return_entities": True}
    assert ask(connection, {"inputs": inputs, "parameters": parameters})[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        {"inputs": None},
        {"inputs": {}},
        {"inputs": {"text": 7}},
        {"inputs": {"text": "x"}, "parameters": []},
        {"inputs": {"text": "x"}, "parameters": {"confidence_threshold": "high"}},
        {"inputs": {"text": "x"}, "parameters": {"confidence_threshold": 1.5}},
    ],
    ids=str,
)
def test_bad_input_is_400_with_the_reason_and_the_connection_lives(server, connection, body):
    status, answer = ask(connection, body)
    assert status == 400
    assert answer["error"]
    assert ask(connection, {"inputs": SAMPLE[server[0]]})[0] == 200


def test_unknown_paths_are_404(connection):
    assert ask(connection, {}, path="/")[0] == 404


def test_a_body_over_the_limit_is_413_unread(connection):
    connection.putrequest("POST", "/infer")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    assert connection.getresponse().status == 413


@pytest.mark.parametrize("name", NAMES)
def test_sigterm_lets_a_running_request_finish(name):
    process, port = start(name)
    body = json.dumps({"inputs": SAMPLE[name]}).encode()
    head = f"POST /infer HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head.encode())
        assert client.recv(1024).startswith(b"HTTP/1.1 100")
        client.sendall(body[:5])
        process.send_signal(signal.SIGTERM)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as idle:
            idle.settimeout(30)  # kept open: an idle connection must not hold up the end
            client.sendall(body[5:])
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200")
            output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert output.endswith("stopped\n")


def test_file_type_takes_base64_content():
    process, port = start("file-type")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    content = base64.b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64)).decode()
    status, answer = ask(connection, {"inputs": {"content": content}})
    assert (status, answer["outputs"]["mime_type"]) == (200, "image/png")
    assert ask(connection, {"inputs": {"content": "%%%"}})[0] == 400
    assert ask(connection, {"inputs": {"content": content, "text": "both"}})[0] == 400
    connection.close()
    process.terminate()
    process.communicate(timeout=30)


def test_both_examples_serve_http_with_the_same_code():
    marker = "# The native contract over HTTP"
    plumbing = {(EXAMPLES / name / "server.py").read_text().split(marker)[1] for name in NAMES}
    assert len(plumbing) == 1
