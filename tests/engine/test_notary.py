"""Checkpoints are signed in time, reach the file whatever dies, and pruning is vouched for."""

import json
from pathlib import Path

import pytest

from prsmd.core.chain import Head, signed_text
from prsmd.core.signing import Signer, Trust
from prsmd.domain.errors import StorageFullError
from prsmd.domain.events import AuditRecord
from prsmd.engine.audit_log import AuditLog
from prsmd.engine.notary import Notary, NotarySettings
from prsmd.engine.retention import Retention
from prsmd.store import attestations, audit
from prsmd.store.checkpoint_file import CheckpointFile, keep_public_key
from prsmd.store.db import USAGE, Database

SIGNER, SUCCESSOR = Signer(b"k" * 32), Signer(b"n" * 32)
DAY = 86400.0


def record(at=1.0, subject="deploy_1"):
    return AuditRecord(
        at=at, principal="key:a", organization="acme", action="models.deploy", subject=subject,
        outcome="allowed", request_id="r",
    )  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 1000 * DAY

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path / "state")
    yield opened
    await opened.close()


class Office:
    """A notary with its log, file and clock."""

    def __init__(self, database, folder: Path, signer=SIGNER, file=None, **keep):
        self.clock = Clock()
        self.database = database
        self.path = folder / "audit-checkpoints.jsonl"
        limits = {"keep_seconds": 365 * DAY, "keep_bytes": 10**9, **keep}
        self.log = AuditLog(name="changes", database=database, **limits)
        self.notary = Notary(
            [self.log],
            signer,
            Trust(SIGNER.public_pem + SUCCESSOR.public_pem),
            file or CheckpointFile(self.path),
            NotarySettings(instance="instance_1", every_records=10, every_seconds=300.0),
            self.clock,
        )

    async def happen(self, count=1, **what):
        given = {"at": self.clock.now, **what}
        await self.database.write(
            lambda tx: audit.append_all(tx, [record(**given) for _ in range(count)])
        )

    async def signed(self):
        async with self.database.read() as tx:
            return [c.sequence for c in await attestations.checkpoints(tx, 0, 10**6)]

    def filed(self):
        if not self.path.exists():
            return []
        return [json.loads(line)["sequence"] for line in self.path.read_text().splitlines()]


@pytest.fixture
def office(database, tmp_path):
    return Office(database, tmp_path)


async def test_nothing_new_is_not_signed(office):
    await office.notary.attest()
    await office.happen()
    await office.notary.attest()
    await office.notary.attest()
    assert await office.signed() == office.filed() == [1]


async def test_it_signs_after_so_many_records_or_so_many_seconds(office):
    await office.happen()
    await office.notary.attest(everything=False)
    assert await office.signed() == [1]  # the first at once
    await office.happen(9)
    await office.notary.attest(everything=False)
    assert await office.signed() == [1]
    await office.happen()
    await office.notary.attest(everything=False)
    assert await office.signed() == [1, 11]
    await office.happen()
    office.clock.now += 299
    await office.notary.attest(everything=False)
    assert await office.signed() == [1, 11]
    office.clock.now += 1
    await office.notary.attest(everything=False)
    assert await office.signed() == [1, 11, 12]


async def test_a_checkpoint_is_signed_and_the_same_in_table_file_and_journal(office, caplog):
    caplog.set_level("INFO")
    await office.happen()
    await office.notary.attest()
    [line] = office.path.read_text().splitlines()
    said = json.loads(line)
    async with office.database.read() as tx:
        chain = await attestations.chain(tx)
        [stored] = await attestations.checkpoints(tx, 0, 9)
    assert stored.statement("changes", "instance_1") == said
    assert Head(said["sequence"], said["hash"]) == chain.head
    assert Trust(SIGNER.public_pem).check(said["key"], signed_text(said), said["signature"])
    assert line in caplog.text
    assert office.path.stat().st_mode & 0o777 == 0o600


async def test_what_a_crash_kept_from_the_file_is_filed_by_the_next_daemon(office, tmp_path):
    await office.happen()
    await office.notary.attest()
    await office.happen()
    await office.notary.attest()
    first, second = office.path.read_text().splitlines()
    office.path.write_text(first + "\n" + second[:50])  # the power went in the middle of a line
    successor = Office(office.database, tmp_path)
    await successor.notary.attest(everything=False)
    lines = office.path.read_text().splitlines()
    assert lines == [first, second[:50], second]


async def test_a_disk_that_refuses_the_file_is_said_once_and_made_up_for(office, caplog):
    class Refusing(CheckpointFile):
        refuses = True

        def append(self, lines):
            if self.refuses:
                raise OSError(28, "No space left on device")
            super().append(lines)

    file = Refusing(office.path)
    poor = Office(office.database, office.path.parent, file=file)
    await poor.happen()
    for _ in range(3):
        await poor.notary.attest()
    assert caplog.text.count("cannot be kept") == 1
    file.refuses = False
    await poor.notary.attest()
    assert office.filed() == [1]


async def test_a_new_key_vouches_at_once_and_the_old_ones_word_stays(office, tmp_path):
    await office.happen()
    await office.notary.attest()
    changed = Office(office.database, tmp_path, signer=SUCCESSOR)
    changed.clock.now += 1
    await changed.notary.attest(everything=False)
    await changed.notary.attest(everything=False)
    async with office.database.read() as tx:
        found = await attestations.checkpoints(tx, 0, 9)
    assert [c.key for c in found] == [SIGNER.fingerprint, SUCCESSOR.fingerprint]


def test_the_public_keys_of_earlier_signers_are_kept(tmp_path):
    path = tmp_path / "keys.pem"
    assert keep_public_key(path, SIGNER) == SIGNER.public_pem
    both = keep_public_key(path, SUCCESSOR)
    assert both == SUCCESSOR.public_pem + SIGNER.public_pem
    assert keep_public_key(path, SIGNER) == both == path.read_bytes()


def test_a_checkpoint_file_that_is_large_is_moved_aside(tmp_path):
    path = tmp_path / "checkpoints.jsonl"
    path.write_bytes(b"x" * (16 * 1024**2 + 1))
    CheckpointFile(path).append([b"{}"])
    assert path.read_bytes() == b"{}\n"
    assert (tmp_path / "checkpoints.jsonl.1").stat().st_size > 16 * 1024**2


async def test_a_clock_far_ahead_has_no_evidence_forgotten_for_its_age(database, tmp_path):
    office = Office(database, tmp_path, keep_seconds=10 * DAY)
    await office.happen(5)
    await office.notary.attest()
    retention = Retention([office.log], office.notary, database, "default", office.clock)
    office.clock.now += 365 * DAY
    assert not retention._trusts_the_clock()
    await retention.prune(by_age=retention._trusts_the_clock())
    async with database.read() as tx:
        assert len(await audit.after(tx, 0, 100)) == 5


async def test_what_is_too_old_goes_and_a_signed_anchor_takes_its_place(database, tmp_path):
    office = Office(database, tmp_path, keep_seconds=10 * DAY)
    await office.happen(1500, at=office.clock.now - 11 * DAY)
    await office.happen(5)
    await office.notary.attest()
    retention = Retention([office.log], office.notary, database, "default", office.clock)
    await retention.prune()
    await retention.prune()
    async with database.read() as tx:
        left = await audit.after(tx, 0, 100)
        chain = await attestations.chain(tx)
    assert [each.sequence for each in left] == [1501, 1502, 1503, 1504, 1505, 1506]
    last = left[-1]
    assert (last.action, last.principal, last.details["records"]) == ("audit.prune", "prsmd", 1500)
    assert (chain.anchor["kind"], chain.anchor["sequence"]) == ("anchor", 1500)
    trust = Trust(SIGNER.public_pem)
    assert trust.check(chain.anchor["key"], signed_text(chain.anchor), chain.anchor["signature"])


async def test_what_is_too_much_goes_oldest_first(database, tmp_path):
    office = Office(database, tmp_path, keep_bytes=2000)
    await office.happen(100)
    retention = Retention([office.log], office.notary, database, "default", office.clock)
    await retention.prune()
    async with database.read() as tx:
        chain = await attestations.chain(tx)
    assert chain.size < 2000 + 500  # what was kept, and the record of the pruning
    assert chain.head.sequence == 101


async def test_a_store_that_cannot_be_written_does_not_end_the_notary(database, tmp_path, caplog):
    office = Office(database, tmp_path)
    await office.happen()

    class Full:
        def __getattr__(self, name):
            return getattr(database, name)

        async def write(self, _):
            raise StorageFullError("The disk was full a moment ago.")

    office.notary._logs = [
        AuditLog(name="changes", database=Full(), keep_seconds=1.0, keep_bytes=1)
    ]
    await office.notary.attest()
    assert "cannot be kept" in caplog.text


async def test_what_could_not_be_recorded_of_a_pruning_is_recorded_later(database, tmp_path):
    office = Office(database, tmp_path, keep_seconds=10 * DAY)
    await office.happen(1500, at=office.clock.now - 11 * DAY)

    class Full:
        full = True

        async def write(self, transaction):
            if self.full:
                raise StorageFullError("The disk was full a moment ago.")
            return await database.write(transaction)

    changes = Full()
    retention = Retention([office.log], office.notary, changes, "default", office.clock)
    await retention.prune()
    changes.full = False
    await retention.prune()
    await retention.prune()
    async with database.read() as tx:
        left = await audit.after(tx, 0, 100)
    assert [(r.action, r.details["records"]) for r in left] == [("audit.prune", 1500)]


async def test_a_log_that_is_not_whole_keeps_no_other_from_being_pruned(database, tmp_path, caplog):
    (tmp_path / "other").mkdir()
    other = await Database.open(tmp_path / "other", file=USAGE)
    broken = Office(other, tmp_path / "other", keep_seconds=10 * DAY)
    sound = Office(database, tmp_path, keep_seconds=10 * DAY)
    for office in (broken, sound):
        await office.happen(5, at=office.clock.now - 11 * DAY)
    await other.write(lambda tx: tx.execute_fetchall("UPDATE audit SET subject = 'x'"))
    logs = [broken.log, sound.log]
    await Retention(logs, sound.notary, database, "default", sound.clock).prune()
    async with database.read() as tx:
        assert [r.action for r in await audit.after(tx, 0, 100)] == ["audit.prune"]
    async with other.read() as tx:
        assert len(await audit.after(tx, 0, 100)) == 5
    assert "record 1 was altered" in caplog.text
    await other.close()
