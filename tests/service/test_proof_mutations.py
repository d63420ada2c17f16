"""Thousands of random changes of a stored log: each is found, at the first record that it touched.

What is expected is told by comparing the rows of before and after, not by anything of the daemon.
`PRSMD_TEST_MUTATIONS` is how many (of each log).
"""

import contextlib
import os
import random
import sqlite3
import struct

import pytest

from prsmd.core.signing import Signer, Trust
from prsmd.domain.events import AuditRecord
from prsmd.engine.audit_log import AuditLog
from prsmd.engine.notary import Notary, NotarySettings
from prsmd.service.proof import Prover
from prsmd.store import audit
from prsmd.store.checkpoint_file import CheckpointFile
from prsmd.store.db import CONTROL, USAGE, Database

MUTATIONS = int(os.environ.get("PRSMD_TEST_MUTATIONS", "300"))
RECORDS, EVERY = 40, 7
SIGNER = Signer(b"k" * 32)
COLUMNS = ("sequence", "at", "principal", "organization", "action", "subject", "outcome",
           "request_id", "details", "salt", "hash", "address", "size")  # fmt: skip
ROWS = "SELECT sequence, at, " + ", ".join(f"CAST({name} AS BLOB)" for name in COLUMNS[2:-1])
ROWS += ", size FROM audit ORDER BY sequence"
INSERT = f"INSERT INTO audit ({', '.join(COLUMNS)}) VALUES (?, ?, "
INSERT += ", ".join(["CAST(? AS TEXT)"] * 10) + ", ?)"


def record(number):
    return AuditRecord(
        at=1_767_225_600.5 + number, principal="key:a", organization="acme" if number % 3 else "b",
        action="models.deploy", subject=f"müller-{number}", outcome="allowed", request_id="r",
        details={"n": number, "seconds": 1e-06, "text": "müller"},
        address="192.0.2.1" if number > 15 else "",  # the oldest are from before it was noted
    )  # fmt: skip


def flip(rows, chance):
    """Change one bit of one column of one record."""
    at, column = chance.randrange(len(rows)), chance.randrange(1, len(COLUMNS))
    row = list(rows[at])
    bit = 1 << chance.randrange(8)
    if row[column] == b"":
        row[column] = b"x"
    elif isinstance(row[column], bytes):
        raw = bytearray(row[column])
        raw[chance.randrange(len(raw))] ^= bit
        row[column] = bytes(raw)
    elif isinstance(row[column], float):
        raw = bytearray(struct.pack("<d", row[column]))
        raw[chance.randrange(8)] ^= bit
        [row[column]] = struct.unpack("<d", raw)
    else:
        row[column] ^= bit
    return [*rows[:at], tuple(row), *rows[at + 1 :]]


def delete(rows, chance):
    at = chance.randrange(len(rows))
    return [*rows[:at], *rows[at + 1 :]]


def truncate(rows, chance):
    return rows[: chance.randrange(len(rows))]


def behead(rows, chance):
    return rows[chance.randrange(1, len(rows)) :]


def reorder(rows, chance):
    """Exchange what two places hold."""
    one, other = chance.sample(range(len(rows)), 2)
    mixed = list(rows)
    mixed[one] = (rows[one][0], *rows[other][1:])
    mixed[other] = (rows[other][0], *rows[one][1:])
    return mixed


def move(rows, chance):
    """Take a record out and put it elsewhere; those between move up."""
    numbers, contents = [row[0] for row in rows], [row[1:] for row in rows]
    taken = contents.pop(chance.randrange(len(rows)))
    contents.insert(chance.randrange(len(rows)), taken)
    return [(number, *content) for number, content in zip(numbers, contents, strict=True)]


def repeat(rows, chance):
    """Put a copy of a record over another one, or behind the last."""
    number = chance.choice([row[0] for row in rows] + [rows[-1][0] + 1])
    copy = (number, *chance.choice(rows)[1:])
    return sorted([row for row in rows if row[0] != number] + [copy])


def renumber(rows, chance):
    at = chance.randrange(len(rows))
    return [*rows[:at], *rows[at + 1 :], (rows[-1][0] + 1, *rows[at][1:])]


MUTATE = (flip, flip, flip, flip, delete, truncate, behead, reorder, move, repeat, renumber)


def first_changed(before, after):
    """The first record that is not what it was; None: all are."""
    is_now = {row[0]: row for row in after}
    changed = [row[0] for row in before if is_now.get(row[0]) != row]
    added = [number for number in is_now if number not in {row[0] for row in before}]
    return min(changed or added, default=None)


def put(connection, rows):
    """Have the table hold these rows; False if it refuses them."""
    try:
        with connection:
            connection.execute("DELETE FROM audit")
            connection.executemany(INSERT, rows)
    except sqlite3.IntegrityError:
        return False
    return True


@pytest.mark.parametrize("file", [CONTROL, USAGE], ids=["changes", "inferences"])
async def test_each_of_many_mutations_is_found_at_the_first_record_that_it_touched(tmp_path, file):
    database = await Database.open(tmp_path, file=file)
    name = "changes" if file is CONTROL else "inferences"
    log = AuditLog(name=name, database=database, keep_seconds=1e9, keep_bytes=10**9)
    kept = CheckpointFile(tmp_path / "checkpoints.jsonl")
    settings = NotarySettings(instance="instance_1")
    notary = Notary([log], SIGNER, Trust(SIGNER.public_pem), kept, settings)
    for start in range(1, RECORDS + 1, EVERY):
        part = [record(n) for n in range(start, min(start + EVERY, RECORDS + 1))]
        await database.write(lambda tx, part=part: audit.append_all(tx, part))
        await notary.attest()
    prover, chance, done = Prover(notary), random.Random(7), 0
    with contextlib.closing(sqlite3.connect(database.path)) as connection:
        before = connection.execute(ROWS).fetchall()
        while done < MUTATIONS:
            mutate = chance.choice(MUTATE)
            after = mutate(before, chance)
            expected = first_changed(before, after)
            if expected is None or not put(connection, after):
                continue
            done += 1
            problem = (await prover.verify(log)).problem
            assert problem is not None, (mutate.__name__, expected)
            assert problem.sequence == expected, (mutate.__name__, expected, problem)
        assert put(connection, before)
    assert (await prover.verify(log)).problem is None
    await database.close()
