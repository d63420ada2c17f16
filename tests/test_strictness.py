"""What others can write or read: refused or warned of, with the command that mends it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prsmd.settings import (
    AccessSection,
    AuditSection,
    DaemonSection,
    ImagesSection,
    Settings,
    TcpSection,
)
from prsmd.strictness import findings

ROOT = Path(__file__).parents[1]
SECRETS = ("audit-key", "pepper", "envelope-key")
FILES = ("control.db", "control.db-wal", "control.head", "usage.db", "audit-checkpoints.jsonl")


@pytest.fixture
def state(tmp_path):
    """A state folder as the daemon makes it, and a settings file."""
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    for name in (*SECRETS, *FILES):
        (folder / name).touch(0o600)
    (tmp_path / "prsmd.toml").touch(0o644)
    return folder


def refused(folder, **sections):
    return told(folder, refused=True, **sections)


def told(folder, *, refused, **sections):
    settings = Settings(daemon=DaemonSection(state_dir=folder), **sections)
    found = findings(settings, [folder.parent / "prsmd.toml"])
    return [each.words for each in found if each.refused is refused]


def test_what_only_its_owner_can_write_is_good(state):
    assert refused(state) == []
    assert told(state, refused=False) == []


@pytest.mark.parametrize("mode", [0o702, 0o707, 0o720, 0o770, 0o777])
def test_a_state_folder_that_others_can_write_is_refused(state, mode):
    state.chmod(mode)

    [words] = refused(state)
    assert str(state) in words
    assert "chmod g" in words


@pytest.mark.parametrize("mode", [0o705, 0o755])
def test_a_state_folder_that_others_can_read_is_warned_of(state, mode):
    state.chmod(mode)

    assert refused(state) == []
    assert told(state, refused=False) == [f"{state}: others can look into it: chmod 700 {state}"]


@pytest.mark.parametrize("name", [*SECRETS, *FILES, "../prsmd.toml"])
@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_can_write_is_refused(state, name, mode):
    (state / name).chmod(mode)

    found = refused(state)
    assert any(f"chmod go-w {state.parent}" in w or "chmod g-w" in w for w in found)
    assert all(Path(name).name in words for words in found)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644])
def test_a_secret_that_others_can_read_is_refused(state, name, mode):
    (state / name).chmod(mode)

    assert refused(state) == [
        f"{state}/{name}: others can read this secret: chmod 600 {state}/{name}"
    ]


@pytest.mark.parametrize(("mode", "good"), [(0o600, True), (0o640, True), (0o644, False)])
def test_a_secret_that_an_operator_keeps_may_be_read_by_a_group_only(state, mode, good):
    secret = state.parent / "given"
    secret.touch()
    secret.chmod(mode)
    tls = TcpSection(cert=state.parent / "prsmd.toml", key=secret)

    assert (refused(state, tcp=tls) == []) is good
    for name in ("pepper_file", "audit_key_file", "envelope_key_file"):
        assert (refused(state, access=AccessSection(**{name: secret})) == []) is good


def test_a_list_that_everybody_can_write_is_refused(state):
    listed = state.parent / "list"
    listed.touch()
    listed.chmod(0o666)
    images = ImagesSection(trusted_keys=(listed,), signed_lists=(state.parent / "prsmd.toml",))

    assert refused(state, images=images) == [
        f"{listed}: everybody can write it: chmod go-w {listed}"
    ]


def test_a_folder_above_in_which_others_can_put_another_is_refused(state):
    state.parent.chmod(0o777)
    assert any("and so replace" in words for words in refused(state))
    state.parent.chmod(0o1777)
    assert not any("and so replace" in words for words in refused(state))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_state_of_another_user_is_told(state):
    os.chown(state, 4711, -1)

    assert any("belongs to user 4711" in words for words in told(state, refused=False))


def test_a_link_is_judged_by_what_it_leads_to(state):
    (state.parent / "link").symlink_to(state)
    assert refused(state.parent / "link") == []
    state.chmod(0o777)
    assert refused(state.parent / "link") != []


def test_settings_in_a_folder_that_others_can_write_are_refused_but_for_a_sticky_one(state):
    state.parent.chmod(0o777)
    assert f"{state.parent}: everybody can write it: chmod go-w {state.parent}" in refused(state)
    state.parent.chmod(0o1777)
    assert refused(state) == []


def test_what_is_not_there_yet_is_no_finding(tmp_path):
    assert refused(tmp_path / "nowhere") == []


@pytest.mark.parametrize("flag", ["--check", "--version"])
def test_check_tells_it_and_exits_78(state, flag):
    state.chmod(0o777)
    command = [sys.executable, "-m", "prsmd", flag, "--config"]
    command += [str(state.parent / "prsmd.toml"), "--set", f'daemon.state_dir="{state}"']
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    if flag == "--check":
        assert ended.returncode == 78
        assert f"{state}: everybody can write it: chmod go-w {state}" in ended.stderr
    else:
        assert ended.returncode == 0


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["a FIFO", "a folder"])
@pytest.mark.parametrize(
    "name",
    [*SECRETS, "control.db", "control.head"]
    + [f"audit-{log}.jsonl{end}" for log in ("checkpoints", "successions") for end in ("", ".1")],
)
def test_what_is_no_file_is_refused_and_not_waited_for(state, name, make):
    (state / name).unlink(missing_ok=True)
    make(state / name)
    (state / name).chmod(0o700)

    assert any(f"{name}: is no file" in words for words in refused(state))


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch], ids=["a FIFO", "a file"])
@pytest.mark.parametrize("name", ["runs", "logs"])
def test_what_is_no_folder_is_refused(state, name, make):
    make(state / name)
    (state / name).chmod(0o600)

    assert refused(state) == [
        f"{state}/{name}: is no folder: put back the one that belongs there, or move this one away"
    ]


def test_whatever_is_in_the_place_of_the_usage_file_stops_nothing(state):
    (state / "usage.db").unlink()
    os.mkfifo(state / "usage.db", 0o600)

    assert refused(state) == []


@pytest.mark.parametrize("mode", [0o602, 0o620])
def test_a_copy_of_the_checkpoints_that_others_can_write_is_warned_of(state, mode):
    copy = state.parent / "copy.jsonl"
    copy.touch()
    copy.chmod(mode)
    audit = AuditSection(checkpoint_copy=copy)

    assert refused(state, audit=audit) == []
    [words] = told(state, refused=False, audit=audit)
    assert str(copy) in words
