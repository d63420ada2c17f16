"""`prsmctl image` and `prsmctl registry`, against answers a test prescribes and a real daemon."""

import gzip
import io
import json
import sys

import pytest

from tests.sdk.wire_server import answers, refuses

IMAGES, PRUNE, LOGINS = "/v1/images", "/v1/images/prune", "/v1/registries"
LOADED = {
    "archive_digest": "sha256:1",
    "images": [
        {
            "reference": "a:1",
            "digest": "sha256:new",
            "size_bytes": 12_000_000,
            "replaced_digest": "sha256:old",
            "still_run_by": [{"model_id": "custom_a", "revision": 3}],
        }
    ],
}
LOGIN = {"server": "r.example", "username": "robot", "organization": "acme"}


class Stdin:
    """What a pipe to prsmctl holds."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)
        self._text = io.StringIO(content.decode())

    def readline(self) -> str:
        return self._text.readline()

    def isatty(self) -> bool:
        return False


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "archive.tar"
    path.write_bytes(b"the archive")
    return path


def test_load_sends_the_file_itself_and_tells_what_came_of_it(ctl, server, archive):
    server.on("POST", IMAGES, answers(LOADED))
    code, out, err = ctl("image", "load", str(archive), "--name", "a:1")

    [seen] = server.seen
    assert (seen.body, seen.query) == ("the archive", {"name": "a:1"})
    assert seen.headers["Content-Type"] == "application/x-tar"
    assert seen.headers["Content-Length"] == "11"
    assert "Idempotency-Key" in seen.headers
    assert code == 0
    assert "a:1    sha256:new  12 MB" in out
    assert "a:1 meant sha256:old before; custom_a revision 3 goes on with that" in err


def test_load_reads_standard_input_and_never_sends_it_twice(ctl, server, monkeypatch):
    server.on("POST", IMAGES, answers(LOADED))
    monkeypatch.setattr(sys, "stdin", Stdin(b"from a pipe"))
    assert ctl("image", "load", "-")[0] == 0
    [seen] = server.seen
    assert seen.body == "from a pipe"
    assert seen.headers["Transfer-Encoding"] == "chunked"
    assert "Idempotency-Key" not in seen.headers


def test_load_unpacks_what_is_gzipped(ctl, server, tmp_path):
    server.on("POST", IMAGES, answers(LOADED))
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(gzip.compress(b"the archive"))
    assert ctl("image", "load", str(path))[0] == 0
    assert server.seen[0].body == "the archive"


def test_load_says_what_the_server_refused(ctl, server, archive):
    server.on("POST", IMAGES, refuses(507, "STORAGE_FULL", "1 GiB is free and 2 GiB are needed"))
    code, _, err = ctl("image", "load", str(archive))
    assert code == 1
    assert "2 GiB are needed" in err


@pytest.mark.parametrize("arguments", [("/no/such/file",), ("x", "--digest", "sha256:1"), ()])
def test_load_refuses_what_cannot_be_loaded(ctl, server, arguments):
    assert ctl("image", "load", *arguments)[0] in {2, 78}
    assert server.seen == []


def test_list_shows_who_uses_an_image_and_why_it_stays(ctl, server):
    body = {
        "images": [
            {
                "id": "sha256:" + "1" * 64,
                "references": ["a:1"],
                "digests": ["a@sha256:" + "2" * 64],
                "size_bytes": 5_000_000,
                "origin": "pulled",
                "used_by": [{"model_id": "custom_a", "revision": 3}],
                "kept_for": "revision 3 of custom_a may need it",
            },
            {"id": "sha256:" + "3" * 64, "kept_for": None},
        ],
        "total": 2,
    }
    server.on("GET", IMAGES, answers(body))
    code, out, _ = ctl("image", "list")
    assert code == 0
    assert "custom_a r3" in out
    assert "revision 3 of custom_a may need it" in out
    assert "a prune removes it" in out
    assert json.loads(ctl("image", "list", "-o", "json")[1]) == body


def test_prune_sends_what_was_asked_and_tells_what_went(ctl, server):
    gone = {"id": "sha256:1", "names": ["a:1"], "size_bytes": 5_000_000}
    server.on(
        "POST", PRUNE, answers({"dry_run": True, "removed": [gone], "freed_bytes": 5_000_000})
    )
    code, out, err = ctl("image", "prune", "--keep-revisions", "2", "--dry-run")
    assert code == 0
    assert server.seen[0].body == {"dry_run": True, "keep_revisions": 2}
    assert "a:1" in out
    assert "1 images would go, at most 5 MB" in err


def test_a_login_takes_its_password_from_standard_input(ctl, server, monkeypatch):
    server.on("POST", LOGINS, answers(LOGIN))
    monkeypatch.setattr(sys, "stdin", Stdin(b"s3cret with spaces \n"))
    code, out, err = ctl("registry", "add", "r.example", "-u", "robot", "--password-stdin")
    assert code == 0
    assert server.seen[0].body == {
        "server": "r.example",
        "username": "robot",
        "password": "s3cret with spaces ",
    }
    assert "s3cret" not in out + err


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_password_is_refused(ctl, server, monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    assert ctl("registry", "add", "r.example", "-u", "robot", "--password-stdin")[0] == 2
    assert server.seen == []


def test_without_a_terminal_nothing_is_asked(ctl, server, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b"x\n"))
    code, _, err = ctl("registry", "add", "r.example", "-u", "robot")
    assert code == 2
    assert "--password-stdin" in err


def test_no_option_takes_a_password(ctl):
    assert ctl("registry", "add", "r.example", "-u", "robot", "--password", "x")[0] == 2


def test_logins_are_listed_and_forgotten(ctl, server):
    server.on("GET", LOGINS, answers({"registries": [LOGIN], "total": 1}))
    server.on("DELETE", f"{LOGINS}/r.example%3A5000", answers(LOGIN))
    server.on("DELETE", f"{LOGINS}/r.example:5000", answers(LOGIN))
    assert "robot" in ctl("registry", "list")[1]
    code, out, _ = ctl("registry", "remove", "r.example:5000", "--organization", "acme")
    assert (code, out) == (0, "acme no longer logs in to r.example\n")
    assert server.seen[-1].query == {"organization": "acme"}
