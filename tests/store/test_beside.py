"""Files beside the databases that vanish or change under a running daemon are missed."""

import os

import pytest

from prsmd import strictness
from prsmd.store import continuity
from prsmd.store.beside import JUDGES, MOVED, Beside
from prsmd.store.continuity import CHECKPOINTS
from prsmd.store.head import Head, HeadFile
from tests.support.exhausted import no_descriptors


def watched(folder):
    """Return the head and the watch of a folder that has all of its files."""
    for each in JUDGES:
        (folder / each).write_bytes(b"1" * 64 + b"\n")
    head = HeadFile(folder)
    head.begin(Head("instance_1"))
    beside = Beside(folder, [b"1" * 64 + b"\n", b"2" * 64].__contains__)
    beside.look()
    return head, beside


@pytest.mark.parametrize("harm", ["removed", "emptied", "garbled", "a FIFO"])
@pytest.mark.parametrize("name", sorted(JUDGES))
def test_a_file_that_a_next_start_needs_is_missed_until_it_is_back(name, harm, tmp_path):
    head, beside = watched(tmp_path)
    assert not beside.problems

    path, aside = tmp_path / name, tmp_path / "aside"
    path.rename(aside)
    if harm == "emptied":
        path.write_bytes(b"")
    elif harm == "garbled":
        path.write_bytes(b"\xff" * aside.stat().st_size)
    elif harm == "a FIFO":
        os.mkfifo(path)
    beside.look()
    assert list(beside.problems) == [name]
    assert beside.needed == [*beside.problems.values()][name == "lock" :]

    aside.replace(path)
    beside.look()
    head.close()
    assert not beside.problems


def test_what_the_daemon_changes_itself_is_no_harm(tmp_path):
    log = tmp_path / CHECKPOINTS
    (tmp_path / "envelope-key").write_bytes(b"1" * 64 + b"\n")
    (tmp_path / "audit-public-keys.pem").write_bytes(b"a key\n")
    log.write_bytes(b"{}\n" * 4000)
    head = HeadFile(tmp_path)
    head.begin(Head("instance_1"))
    beside = Beside(tmp_path, [b"1" * 64 + b"\n", b"2" * 64].__contains__)
    beside.look()

    head.note(17)
    (tmp_path / "next").write_bytes(b"2" * 64)
    (tmp_path / "next").replace(tmp_path / "envelope-key")
    (tmp_path / "audit-public-keys.pem").write_bytes(b"another key\na key\n")
    with log.open("ab") as file:
        file.write(b"{}\n")
    beside.look()
    assert not beside.problems
    log.rename(tmp_path / f"{CHECKPOINTS}.1")
    log.write_bytes(b"{}\n")
    (tmp_path / "pepper").write_bytes(b"3" * 32)
    beside.look()
    head.close()
    assert not beside.problems


def test_every_file_of_the_state_is_watched():
    """Those of `continuity` and of what others must not write, but for what is told otherwise."""
    databases = {
        f"{name}{end}" for name in ("control.db", "usage.db") for end in ("", "-wal", "-shm")
    }
    moved = {*MOVED, "envelope-key.next", "runs", "logs"}
    assert {*continuity.TRACES, *strictness.KEPT} - databases - moved <= set(JUDGES)


def test_an_envelope_key_that_is_kept_elsewhere_may_go_from_the_folder(tmp_path):
    (tmp_path / "envelope-key").write_bytes(b"1" * 32)
    beside = Beside(tmp_path, None)
    beside.look()
    (tmp_path / "envelope-key").unlink()
    beside.look()
    assert not beside.problems


@pytest.mark.parametrize("harm", ["removed", "emptied"])
def test_a_copy_elsewhere_is_missed_until_it_is_back(harm, tmp_path):
    copy = tmp_path / "elsewhere" / "copy.jsonl"
    copy.parent.mkdir()
    copy.write_bytes(b"{}\n" * 4000)
    beside = Beside(tmp_path, None, copy)
    beside.look()
    with copy.open("ab") as file:
        file.write(b"{}\n")
    beside.look()
    assert not beside.problems

    whole = copy.read_bytes()
    copy.unlink()
    if harm == "emptied":
        copy.touch()
    beside.look()
    [problem] = beside.problems.values()
    assert str(copy) in problem
    assert beside.needed == []
    copy.write_bytes(whole)
    beside.look()
    assert not beside.problems


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_what_cannot_be_read_for_want_of_descriptors_is_as_it_was(name, tmp_path):
    head, beside = watched(tmp_path)
    (tmp_path / name).rename(tmp_path / "aside")
    beside.look()
    missed = dict(beside.problems)
    with no_descriptors():
        beside.look()
    head.close()
    assert list(missed) == [name]
    assert beside.problems == missed


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_a_judge_that_can_open_nothing_finds_no_harm(name, tmp_path, monkeypatch):
    """The file itself is read with the last descriptor."""
    head, beside = watched(tmp_path)
    judge = beside._judges[name]
    monkeypatch.setitem(beside._judges, name, lambda *given: _without_descriptors(judge, *given))
    beside.look()
    head.close()
    assert not beside.problems


def _without_descriptors(judge, *given):
    with no_descriptors():
        return judge(*given)
