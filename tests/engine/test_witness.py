"""Inferences reach their log in batches; what cannot be written waits, what is lost is said."""

import asyncio

import pytest

from prsmd.core.chain import Head, Walk, canonical, content_of, digest_of
from prsmd.domain.errors import StorageFullError
from prsmd.engine.flusher import Flusher
from prsmd.engine.witness import Witness
from prsmd.gateway.tape import InferenceNote, Tally, Tape
from prsmd.store import audit
from prsmd.store.db import USAGE, Database
from tests.engine.harness import finished


def note(number=1, **changes):
    values = {
        "at": float(number), "principal": "key:a", "organization": "borrower", "owner": "acme",
        "model_id": "custom_a", "deployment_id": "deploy_a", "revision": 3, "outcome": "ok",
        "seconds": 0.5, "request_bytes": 10, "answer_bytes": 20, "request_id": f"r{number}",
    }  # fmt: skip
    return InferenceNote(**{**values, **changes})


class SometimesFull:
    """A database that refuses writes while it is told to, and may hang in one."""

    def __init__(self, database):
        self.full = False
        self.held = asyncio.Event()
        self.held.set()
        self.reached = asyncio.Event()
        self._database = database

    def read(self):
        return self._database.read()

    async def write(self, transaction):
        if self.full:
            raise StorageFullError("The disk was full a moment ago. Nothing was changed.")
        self.writing = asyncio.create_task(self._database.write(transaction), name="writing")
        self.reached.set()
        await self.held.wait()
        return await self.writing


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path, file=USAGE)
    yield SometimesFull(opened)
    await opened.close()


async def stored(database):
    async with database.read() as tx:
        found = await audit.after(tx, 0, 10**6)
    walk = Walk("inferences", Head())
    for each in found:
        digest = digest_of(canonical(content_of(each)))
        assert walk.step(each.sequence, digest, each.hash) is None
    return found


async def test_a_thousand_notes_become_a_thousand_chained_records_in_order(database):
    tape = Tape()
    for number in range(1000):
        tape.note(note(number))
    await Witness(tape, database).flush(everything=False)
    found = await stored(database)
    assert [each.request_id for each in found] == [f"r{number}" for number in range(1000)]
    first = found[0]
    assert (first.principal, first.organization, first.action) == (
        "key:a", "borrower", "models.infer",
    )  # fmt: skip
    assert (first.subject, first.outcome) == ("custom_a", "ok")
    assert first.details == {
        "owner": "acme", "deployment_id": "deploy_a", "revision": 3, "seconds": 0.5,
        "request_bytes": 10, "answer_bytes": 20,
    }  # fmt: skip


async def test_a_full_disk_keeps_what_was_taken_and_nothing_is_written_twice(database):
    tape = Tape()
    for number in range(300):
        tape.note(note(number))
    witness = Witness(tape, database)
    database.full = True
    for _ in range(3):
        with pytest.raises(StorageFullError):
            await witness.flush(everything=False)
    database.full = False
    tape.note(note(300))
    await witness.flush(everything=False)
    assert [each.request_id for each in await stored(database)] == [f"r{n}" for n in range(301)]


async def test_what_had_no_room_is_on_record_as_a_number(database, caplog):
    tape = Tape(capacity=2)
    for number in range(5):
        tape.note(note(number))
    witness = Witness(tape, database)
    await witness.flush(everything=False)
    await witness.flush(everything=False)
    *kept, lost = await stored(database)
    assert [each.request_id for each in kept] == ["r0", "r1"]
    assert (lost.action, lost.details) == ("audit.lost", {"requests": 3})
    assert "3 inferences came too fast" in caplog.text


async def test_a_flush_that_is_cancelled_while_it_waits_is_not_repeated(database):
    tape = Tape()
    tape.note(note())
    witness = Witness(tape, database)
    database.held.clear()
    flushing = asyncio.create_task(witness.flush(everything=False), name="flush")
    await database.reached.wait()
    await finished(flushing)
    await database.writing
    database.held.set()
    await witness.flush(everything=True)
    assert len(await stored(database)) == 1


async def test_sums_are_written_when_they_are_due_and_at_the_end(database):
    now = 100.0
    tally = Tally()
    witness = Witness(tally, database, due_seconds=60.0, clock=lambda: now)
    for number in range(5):
        tally.note(note(number))
    now = 159.0
    await witness.flush(everything=False)
    assert await stored(database) == []
    now = 160.0
    await witness.flush(everything=False)
    tally.note(note(9))
    await witness.flush(everything=True)
    first, second = await stored(database)
    assert (first.details["requests"], first.details["seconds"]) == (5, 2.5)
    assert "requests" not in second.details


async def test_a_source_that_fails_holds_up_no_other_and_says_so_once(caplog):
    class Source:
        def __init__(self, name, *, fails):
            self.name, self.fails, self.flushed = name, fails, 0

        async def flush(self, *, everything):
            self.flushed += 1
            if self.fails:
                raise StorageFullError("no room")

    bad, good = Source("bad", fails=True), Source("good", fails=False)
    flusher = Flusher([bad, good], 3600.0)
    for _ in range(3):
        await flusher.flush()
    assert good.flushed == 3
    assert caplog.text.count("bad cannot be flushed: no room") == 1
    bad.fails = False
    await flusher.flush()
    bad.fails = True
    await flusher.flush()
    assert caplog.text.count("bad cannot be flushed") == 2


async def test_the_flusher_goes_on_by_itself(database):
    tape = Tape()
    tape.note(note())
    running = asyncio.create_task(Flusher([Witness(tape, database)], 0.001).run(), name="flusher")
    async with asyncio.timeout(20):
        while not await stored(database):
            pass  # each look lets the flusher go on
    await finished(running)
