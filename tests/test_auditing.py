"""What of inferences is recorded by which policy, and that the policy itself is on record."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.auditing import Auditing, Books, auditing_of
from prsmd.config import ConfigurationError
from prsmd.core.signing import Signer, Trust
from prsmd.settings import AccessSection, AuditSection, DaemonSection, Settings
from prsmd.store import audit
from prsmd.store.beside import Beside
from prsmd.store.continuity import CHECKPOINTS
from prsmd.store.db import USAGE, Database
from prsmd.store.errors import StoreDamagedError
from tests.engine.test_witness import note


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    changes = await Database.open(tmp_path)
    usage = await Database.open(tmp_path, file=USAGE)
    yield Books(changes, usage, "instance_1", lambda: 1000.0)
    await usage.close()
    await changes.close()


def made(folder: Path, books: Books, policy: Any, **access: Any) -> Auditing:
    given = Settings(
        daemon=DaemonSection(state_dir=folder),
        audit=AuditSection(inferences=policy),
        access=AccessSection(**access),
    )
    return auditing_of(given, books)


async def recorded(database: Database | None) -> list[Any]:
    assert database is not None
    async with database.read() as tx:
        return await audit.after(tx, 0, 100)


@pytest.mark.parametrize(("policy", "requests"), [("each", [1, 1, 1]), ("summary", [3])])
async def test_inferences_are_recorded_one_by_one_or_added_up(
    tmp_path: Path, books: Books, policy: str, requests: list[int]
) -> None:
    auditing = made(tmp_path, books, policy)
    assert auditing.notes is not None
    for number in range(3):
        auditing.notes.note(note(number))
    await auditing.settle()
    found = await recorded(books.usage)
    assert [record.details.get("requests", 1) for record in found] == requests


async def test_with_the_policy_off_nobody_listens(tmp_path: Path, books: Books) -> None:
    auditing = made(tmp_path, books, "off")
    assert auditing.notes is None
    await auditing.settle()
    assert await recorded(books.usage) == []


async def test_each_begin_is_on_record_with_its_policy_and_key(
    tmp_path: Path, books: Books
) -> None:
    await made(tmp_path, books, "off").begin()
    (tmp_path / "another").write_bytes(b"n" * 32)
    await made(tmp_path, books, "each", audit_key_file=tmp_path / "another").begin()
    first, second = await recorded(books.changes)
    assert (first.action, first.principal, first.outcome) == ("audit.begin", "prsmd", "allowed")
    assert (first.details["inferences"], second.details["inferences"]) == ("off", "each")
    assert first.details["key"] != second.details["key"]


async def test_a_begin_that_cannot_be_recorded_keeps_nobody_from_serving(
    tmp_path: Path, books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    auditing = made(tmp_path, books, "each")
    books.changes.path.unlink()
    await auditing.begin()
    assert "is not on record" in caplog.text


async def test_what_is_no_key_is_refused_by_the_name_of_its_setting(
    tmp_path: Path, books: Books
) -> None:
    (tmp_path / "bad").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="audit_key_file"):
        made(tmp_path, books, "each", audit_key_file=tmp_path / "bad")


async def signed(auditing: Auditing) -> bool:
    await auditing.begin()
    await auditing.notary.attest()
    return auditing.notary.signing


async def test_a_key_that_was_changed_without_the_operators_word_signs_nothing_of_the_old_log(
    tmp_path: Path, books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    first = Signer(b"a" * 32)
    for name, letter in (("first", b"a"), ("second", b"b")):
        (tmp_path / name).write_bytes(letter * 32)
    assert await signed(made(tmp_path, books, "off", audit_key_file=tmp_path / "first"))
    second = {"audit_key_file": tmp_path / "second"}
    assert not await signed(made(tmp_path, books, "off", **second))
    assert f"is signed with key {first.fingerprint}" in caplog.text

    vouched = {**second, "audit_former_keys": (first.fingerprint,)}
    assert await signed(made(tmp_path, books, "off", **vouched))
    last = (await recorded(books.changes))[-1]
    assert (last.action, last.subject) == ("audit.succeed", f"audit-key:{first.fingerprint}")
    again = made(tmp_path, books, "off", **second)
    assert await signed(again)
    trusted = Trust(again.service._public_keys())
    assert trusted.fingerprints == {Signer(b"b" * 32).fingerprint, first.fingerprint}


async def test_with_the_former_key_itself_both_sign_that_one_follows_the_other(
    tmp_path: Path, books: Books
) -> None:
    for name, letter in (("first", b"a"), ("second", b"b")):
        (tmp_path / name).write_bytes(letter * 32)
    assert await signed(made(tmp_path, books, "off", audit_key_file=tmp_path / "first"))
    (tmp_path / "audit-public-keys.pem").unlink()
    keys = {
        "audit_key_file": tmp_path / "second",
        "audit_former_key_file": tmp_path / "first",
    }
    assert await signed(made(tmp_path, books, "off", **keys))
    assert '"former_signature"' in (tmp_path / "audit-successions.jsonl").read_text()
    with pytest.raises(ConfigurationError, match="audit_former_key_file"):
        made(tmp_path, books, "off", **(keys | {"audit_former_key_file": tmp_path / "gone"}))


async def test_a_key_that_lies_in_the_folder_is_shown_to_nobody_as_trusted(
    tmp_path: Path, books: Books
) -> None:
    (tmp_path / "audit-public-keys.pem").write_bytes(Signer(b"s" * 32).public_pem)
    auditing = made(tmp_path, books, "off")
    await auditing.begin()
    shown = Trust(auditing.service._public_keys())
    assert Signer(b"s" * 32).fingerprint not in shown.fingerprints


@pytest.mark.parametrize("harm", ["removed", "emptied", "shortened", "a folder", "none"])
async def test_a_copy_that_lost_checkpoints_is_told_and_goes_on(
    tmp_path: Path, books: Books, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    copy = tmp_path / "copy.jsonl"
    given = Settings(
        daemon=DaemonSection(state_dir=tmp_path), audit=AuditSection(checkpoint_copy=copy)
    )
    first = auditing_of(given, books)
    await first.begin()
    await first.settle()
    assert not caplog.records
    whole = copy.read_bytes()
    copy.unlink()
    if harm == "a folder":
        copy.mkdir()
    elif harm != "removed":
        kept = {"emptied": b"", "shortened": whole[: len(whole) // 3], "none": whole}
        copy.write_bytes(kept[harm])

    again = auditing_of(given, books)
    told = [line.getMessage() for line in caplog.records]
    assert [str(copy) in line for line in told] == ([] if harm == "none" else [True])
    if harm == "removed":
        await again.begin()
        await again.settle()
        assert copy.read_bytes()


def _folder(path: Path) -> None:
    path.mkdir()


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


UNREADABLE = {"a folder": _folder, "a FIFO": os.mkfifo, "a link to itself": _link_to_itself}
OWN = [f"{name}{end}" for name in (CHECKPOINTS, "audit-successions.jsonl") for end in ("", ".1")]


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_a_copy_that_cannot_be_used_stops_nothing_and_gets_what_it_lacks(
    tmp_path: Path, books: Books, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    copy = tmp_path / "copy.jsonl"
    UNREADABLE[kind](copy)
    given = Settings(
        daemon=DaemonSection(state_dir=tmp_path), audit=AuditSection(checkpoint_copy=copy)
    )
    auditing = auditing_of(given, books)
    await auditing.begin()
    await auditing.settle()
    await auditing.retention.prune()
    assert auditing.notary.signing
    signed = (tmp_path / CHECKPOINTS).read_bytes().splitlines()
    assert len(signed) == 1
    told = [line.getMessage() for line in caplog.records if line.levelname == "ERROR"]
    assert told
    assert all(str(copy) in words for words in told)

    copy.rmdir() if copy.is_dir() else copy.unlink()
    await auditing.begin()
    await auditing.settle()
    assert copy.read_bytes() == (tmp_path / CHECKPOINTS).read_bytes()


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", OWN)
async def test_a_file_of_the_audit_that_cannot_be_read_refuses_the_start_in_words(
    tmp_path: Path, books: Books, name: str, kind: str
) -> None:
    (tmp_path / "audit-key").write_bytes(b"k" * 32)
    UNREADABLE[kind](tmp_path / name)
    auditing = made(tmp_path, books, "off")
    with pytest.raises(StoreDamagedError, match=rf"{name} is damaged: .* Restore a backup, or"):
        await auditing.begin()
    await auditing.retention.prune()
    await auditing.notary.attest()


@pytest.mark.parametrize("name", OWN)
async def test_one_that_cannot_be_read_any_more_is_told_and_ends_nothing(
    tmp_path: Path, books: Books, name: str
) -> None:
    auditing = made(tmp_path, books, "off")
    beside = Beside(tmp_path, None)
    await auditing.begin()
    await auditing.settle()
    if not (tmp_path / name).exists():
        (tmp_path / name).touch()
    beside.look()
    assert not beside.needed
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    await auditing.begin() if name == CHECKPOINTS else await books.changes.ping()
    await auditing.settle()
    await auditing.retention.prune()
    beside.look()
    assert [str(tmp_path / name) in words for words in beside.needed] == [True]
