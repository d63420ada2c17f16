"""`prsmctl secret`: where values come from, and that none is ever shown."""

import base64
import io
import sys

import pytest

from tests.sdk.wire_server import answers, refuses

SECRETS, TOKEN, ROTATE = "/v1/secrets", "/v1/secrets/token", "/v1/secrets/rotate-key"
SECRET = {"name": "token", "organization": "acme", "version": 3, "used_by": ["custom_a"]}


class Pipe:
    """What is piped to prsmctl."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("piped", "value"),
    [(b"s3cret\n", b"s3cret"), (b"a\nb\n\n", b"a\nb\n"), (b"\x00\xff", b"\x00\xff")],
)
def test_a_piped_value_is_sent_without_the_end_of_its_line(ctl, server, monkeypatch, piped, value):
    server.on("PUT", TOKEN, answers(SECRET))
    monkeypatch.setattr(sys, "stdin", Pipe(piped))
    code, out, err = ctl("secret", "set", "token")
    [seen] = server.seen
    assert base64.b64decode(seen.body["value_base64"]) == value
    assert code == 0
    assert "token of acme is version 3" in out
    assert "custom_a" in out
    assert "s3cret" not in out + err


def test_a_file_is_sent_as_it_is(ctl, server, tmp_path):
    server.on("PUT", TOKEN, answers(SECRET))
    (tmp_path / "cert").write_bytes(b"cert\n")
    assert ctl("secret", "set", "token", "--file", str(tmp_path / "cert"))[0] == 0
    [seen] = server.seen
    assert base64.b64decode(seen.body["value_base64"]) == b"cert\n"


@pytest.mark.parametrize("arguments", [(), ("--file", "/no/such/file")])
def test_without_a_value_nothing_is_sent(ctl, server, monkeypatch, arguments):
    monkeypatch.setattr(sys, "stdin", Pipe(b""))
    assert ctl("secret", "set", "token", *arguments)[0] == 2
    assert server.seen == []


def test_a_value_on_the_command_line_is_no_argument(ctl, server):
    assert ctl("secret", "set", "token", "s3cret")[0] == 2
    assert server.seen == []


def test_list_shows_versions_and_who_uses_them(ctl, server):
    server.on("GET", SECRETS, answers({"secrets": [SECRET], "total": 1}))
    code, out, _ = ctl("secret", "list")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["token", "3"]
    assert "custom_a" in out


def test_remove_says_why_not_and_can_be_forced(ctl, server):
    server.on("DELETE", TOKEN, refuses(409, "CONFLICT", message="used by custom_a"))
    code, _, err = ctl("secret", "remove", "token")
    assert (code, "used by custom_a" in err) == (1, True)


def test_remove_can_be_forced(ctl, server):
    server.on("DELETE", TOKEN, answers(SECRET))
    assert ctl("secret", "remove", "token", "--force", "--organization", "acme")[0] == 0
    assert server.seen[-1].query == {"force": "true", "organization": "acme"}


def test_rotate_key_tells_what_was_sealed_anew(ctl, server):
    done = {"key_id": "0a1b", "resealed_secrets": 2, "resealed_registries": 1}
    server.on("POST", ROTATE, answers(done))
    code, out, _ = ctl("secret", "rotate-key")
    assert code == 0
    assert "key 0a1b seals from now on; sealed anew: 2 secrets, 1 registry passwords" in out
    assert "take it out of the settings" in out


def test_a_deploy_names_secrets_by_their_variables(ctl, server):
    server.on("POST", "/v1/custom-models/deploy", refuses(409, "CONFLICT", message="no"))
    ctl("deploy", "legal", "--image", "a:1", "--secret", "TOKEN=token")
    body = server.seen[0].body
    assert body["deployment_config"]["secrets"] == {"TOKEN": "token"}
