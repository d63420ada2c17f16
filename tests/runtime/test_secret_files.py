"""Secrets as files: in memory, for their container alone, and gone with it."""

import os
import shutil
import uuid
from pathlib import Path

import pytest

from prsmd.domain.errors import EngineError
from prsmd.runtime.secret_files import SecretFiles


@pytest.fixture
def root():
    folder = Path("/dev/shm") / f"prsmd-test-{uuid.uuid4().hex}"
    yield folder
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def files(root):
    return SecretFiles(root, "ours")


def test_nobody_else_comes_near_and_the_container_can_read(root, files):
    folder = files.give("r-1", {"TOKEN": b"\x00binary\xff"})
    assert (folder / "TOKEN").read_bytes() == b"\x00binary\xff"
    modes = [
        path.stat().st_mode & 0o777 for path in (root, root / "ours", folder, folder / "TOKEN")
    ]
    assert [f"{mode:o}" for mode in modes] == ["700", "700", "555", "444"]


def test_each_launch_has_a_folder_of_its_own(files):
    assert files.give("r-1", {"A": b"1"}) != files.give("r-1", {"A": b"2"})


def test_a_sweep_leaves_what_is_being_launched_and_what_runs(files):
    launching = files.give("r-1", {"A": b"1"})
    running, gone = files.give("r-2", {"A": b"1"}), files.give("r-3", {"A": b"1"})
    for folder in (running, gone):
        files.settle(folder)
    files.sweep(files.settled(), {"r-2"})
    assert [folder.exists() for folder in (launching, running, gone)] == [True, True, False]


def test_a_launch_that_ends_while_the_engine_is_asked_is_not_swept(files):
    folder = files.give("r-1", {"A": b"1"})
    before = files.settled()
    files.settle(folder)
    files.sweep(before, ())
    assert folder.exists()


def test_a_new_life_of_the_daemon_sweeps_what_a_crash_left(root, files):
    left = files.give("r-1", {"A": b"1"})
    after = SecretFiles(root, "ours")
    after.sweep(after.settled(), ())
    assert not left.exists()


def test_another_instance_is_left_alone(root, files):
    theirs = SecretFiles(root, "theirs").give("r-1", {"A": b"1"})
    files.sweep(files.settled(), ())
    assert theirs.exists()


def test_what_a_container_had_goes_with_it_and_with_no_other(files):
    mine, other = files.give("r-1", {"A": b"1"}), files.give("r-10", {"A": b"1"})
    files.forget("r-1")
    assert not mine.exists()
    assert other.exists()


def test_nothing_there_is_nothing_to_sweep(files):
    assert files.settled() == frozenset()
    files.sweep(frozenset(), ())
    files.forget("r-1")


def test_a_disk_is_refused(tmp_path):
    with pytest.raises(EngineError, match=r"is on a disk: secrets may only be in memory"):
        SecretFiles(tmp_path / "secrets", "ours").give("r-1", {"A": b"1"})
    assert not [*(tmp_path / "secrets" / "ours").iterdir()]


def test_a_folder_that_others_prepared_is_refused(root, tmp_path):
    root.symlink_to(tmp_path)
    try:
        with pytest.raises(EngineError, match="is not a folder of prsmd's own"):
            SecretFiles(root, "ours").give("r-1", {"A": b"1"})
    finally:
        root.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away, which takes root")
def test_a_folder_of_another_user_is_refused(root):
    root.mkdir()
    os.chown(root, 65534, 65534)
    with pytest.raises(EngineError, match="is not a folder of prsmd's own"):
        SecretFiles(root, "ours").give("r-1", {"A": b"1"})


def test_too_open_a_folder_is_closed(root, files):
    root.mkdir()
    root.chmod(0o755)
    files.give("r-1", {"A": b"1"})
    assert root.stat().st_mode & 0o777 == 0o700
