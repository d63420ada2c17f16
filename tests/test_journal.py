"""How the daemon logs: the journal's own protocol, JSON and text, each with the same fields."""

import io
import json
import logging
import socket
import struct
import sys

import pytest

from prsmd import journal

FIELDS = {
    "deployment": "deploy_1",
    "organization": "company",
    "replica": "r1",
    "reason": "Ready",
    "request_id": "req_1",
}


@pytest.fixture
def journald(tmp_path):
    """A real datagram socket in the place of journald's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(10)
        yield receiver


@pytest.fixture
def handler(journald):
    made = journal.JournalHandler(journald.getsockname())
    yield made
    made.close()


def record(message="it happened", level=logging.INFO, *args, **fields):
    made = logging.LogRecord("prsmd.test", level, "file.py", 1, message, args, None)
    made.__dict__.update(fields)
    return made


def failed(message="it failed"):
    try:
        int("inner reason")
    except ValueError:
        made = record(message, logging.ERROR)
        made.exc_info = sys.exc_info()
        return made


def decoded(datagram):
    """Read journald's native protocol: KEY=value lines, or KEY, a 64-bit length and the value."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            [length] = struct.unpack("<Q", rest[:8])
            name, value = line, rest[8 : 8 + length]
            assert rest[8 + length : 9 + length] == b"\n"
            rest = rest[9 + length :]
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields


def test_an_entry_reaches_the_journal_with_all_its_fields(journald, handler):
    handler.emit(record(**FIELDS))

    assert decoded(journald.recv(65536)) == {
        "MESSAGE": "it happened",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "prsmd",
        "LOGGER": "prsmd.test",
        "PRSMD_DEPLOYMENT": "deploy_1",
        "PRSMD_ORGANIZATION": "company",
        "PRSMD_REPLICA": "r1",
        "PRSMD_REASON": "Ready",
        "PRSMD_REQUEST_ID": "req_1",
    }


def test_a_field_cannot_forge_another_one(journald, handler):
    handler.emit(record("first\nPRIORITY=0", request_id="x\nMESSAGE=forged\n", reason="a=b"))

    found = decoded(journald.recv(65536))

    assert found["MESSAGE"] == "first\nPRIORITY=0"
    assert found["PRIORITY"] == "6"
    assert found["PRSMD_REQUEST_ID"] == "x\nMESSAGE=forged\n"
    assert found["PRSMD_REASON"] == "a=b"


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.WARNING, "4"), (logging.ERROR, "3")],
)
def test_levels_become_priorities(journald, handler, level, priority):
    handler.emit(record(level=level))

    assert decoded(journald.recv(65536))["PRIORITY"] == priority


def test_a_traceback_is_part_of_the_message(journald, handler):
    handler.emit(failed())

    message = decoded(journald.recv(65536))["MESSAGE"]
    assert message.startswith("it failed\nTraceback")
    assert "inner reason" in message


def test_text_that_is_no_unicode_is_sent_all_the_same(journald, handler):
    handler.emit(record("half \ud800 a character"))

    assert decoded(journald.recv(65536))["MESSAGE"] == "half ? a character"


def test_what_the_journal_does_not_take_goes_to_stderr(tmp_path, capsys):
    absent = journal.JournalHandler(str(tmp_path / "absent"))
    absent.emit(record("nobody listens"))
    absent.close()

    assert capsys.readouterr().err == "nobody listens\n"


def test_an_entry_too_large_for_a_datagram_goes_to_stderr(handler, capsys):
    handler.emit(record("x" * 10_000_000))

    assert len(capsys.readouterr().err) == 10_000_001


def test_a_record_that_cannot_be_formatted_does_not_fail_its_writer(handler, capsys):
    handler.emit(record("%d", logging.INFO, "no number"))

    assert "Logging error" in capsys.readouterr().err


def test_json_is_one_object_on_one_line():
    text = journal.JsonFormatter().format(record("two\nlines", **FIELDS))

    assert "\n" not in text
    found = json.loads(text)
    assert found.pop("at") > 0
    assert found == {"level": "info", "logger": "prsmd.test", "message": "two\nlines", **FIELDS}


def test_json_has_the_traceback_in_a_field_of_its_own():
    text = journal.JsonFormatter().format(failed())

    assert "\n" not in text
    assert "inner reason" in json.loads(text)["traceback"]
    assert json.loads(text)["message"] == "it failed"


def test_text_has_the_fields_behind_the_message():
    text = journal.TextFormatter().format(record(**FIELDS))

    assert "INFO    it happened  deployment=deploy_1 organization=company" in text


@pytest.fixture
def logging_restored():
    """Give back the root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield root
    for made in root.handlers:
        made.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("form", "kind"),
    [("json", journal.JsonFormatter), ("text", journal.TextFormatter)],
)
def test_the_form_is_chosen_by_name(logging_restored, form, kind):
    journal.configure("warning", form)

    [made] = logging_restored.handlers
    assert isinstance(made.formatter, kind)
    assert logging_restored.level == logging.WARNING


def test_by_itself_it_chooses_the_journal_only_where_stderr_leads_there(
    logging_restored, monkeypatch, tmp_path
):
    with (tmp_path / "stderr").open("w") as stream:
        found = (tmp_path / "stderr").stat()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        journal.configure("info", "auto")
        assert isinstance(logging_restored.handlers[0], journal.JournalHandler)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:0")
        logging_restored.handlers[0].close()
        journal.configure("info", "auto")
        assert isinstance(logging_restored.handlers[0].formatter, journal.JsonFormatter)


def test_without_a_journal_a_terminal_gets_text(logging_restored, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())

    journal.configure("info", "auto")

    assert isinstance(logging_restored.handlers[0].formatter, journal.TextFormatter)


def test_a_journald_that_does_not_read_costs_entries_and_never_blocks(tmp_path):
    address = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(address)
        handler = journal.JournalHandler(address)
        for _ in range(5000):
            record = logging.LogRecord("prsmd", logging.INFO, "f.py", 1, "x" * 1000, None, None)
            handler.emit(record)
        assert handler.dropped > 0
        handler.close()


@pytest.mark.parametrize("form", ["journal", "json", "text"])
def test_no_line_has_the_secret_of_a_key(form, journald, handler):
    secret = "0123456789" * 3 + "abcdefgh"
    key = f"prsm_0123456789_{secret}"
    made = failed(f"GET /{key} 404")
    made.__dict__.update(dict.fromkeys(FIELDS, key))
    if form == "journal":
        handler.emit(made)
        said = journald.recv(65536).decode(errors="replace")
    else:
        form = journal.JsonFormatter() if form == "json" else journal.TextFormatter()
        said = form.format(made)

    assert secret not in said
    assert said.count("prsm_0123456789_***") == 1 + len(FIELDS)


def test_what_a_caller_sent_begins_no_line_of_the_text_log():
    forged = "x\n2026-01-01 00:00:00,000 WARNING key revoked\x1b[2J"
    made = failed(f"a wrong token: {forged}")
    made.reason = forged
    made.exc_info = (ValueError, ValueError(forged), None)

    first, *below = journal.TextFormatter().format(made).split("\n")

    assert first.count("\\x0a2026-01-01") == 2
    assert any("key revoked" in line for line in below)
    assert all(line.startswith("  ") for line in below)
    assert not any("\x1b" in line for line in (first, *below))
