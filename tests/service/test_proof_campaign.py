"""Random attacks of somebody who owns every file of the state, and copies of each, but no key.

They change the database (its schema too), the checkpoint file, the successions and public keys, and
who the daemon is, and tidy up behind themselves as well as they can. Whatever they do, the daemon
that is started on it says so, or all that is still signed is genuine, and a head that is known from
elsewhere tells of the rest. `PRSMD_TEST_ATTACKS` is how many.
"""

import contextlib
import json
import os
import random
import sqlite3

import pytest

from prsmd.core.chain import ANCHOR, CHECKPOINT, Head, canonical, digest_of, link, signed_text
from prsmd.core.key_rotation import SUCCESSION
from prsmd.core.signing import Trust
from prsmd.engine.notary import Notary, NotarySettings
from prsmd.engine.rotation import Formers, Rotation
from prsmd.service.proof import Prover
from prsmd.store import audit
from prsmd.store.checkpoint_file import CheckpointFile
from prsmd.store.db import Database
from tests.service.proving import SIGNER, STRANGER, TRUST, Ledger, record

ATTACKS = int(os.environ.get("PRSMD_TEST_ATTACKS", "150"))
TABLES = ("audit", "audit_chain", "audit_checkpoints")


class World:
    """The files as they are, copies of them from before, and what is genuine."""

    def __init__(self, ledger, folder):
        self.ledger, self.folder = ledger, folder
        self.copies = []
        self.genuine = {}

    def rows(self, table):
        with contextlib.closing(sqlite3.connect(self.ledger.database.path)) as connection:
            return connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()

    def copy(self):
        state = {table: self.rows(table) for table in TABLES}
        self.genuine.update({row[0]: row for row in state["audit"]})
        return state, self.ledger.path.read_text()

    def keep(self):
        self.copies.append(self.copy())

    def put(self, state, tables=TABLES):
        with contextlib.closing(sqlite3.connect(self.ledger.database.path)) as connection:
            names = "SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view')"
            for kind, name in connection.execute(names).fetchall():
                connection.execute(f"DROP {kind} {name}")
            for table in tables:
                connection.execute(f"DELETE FROM {table}")
                for row in state[table]:
                    marks = ", ".join("?" * len(row))
                    connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)
            connection.commit()

    def reset(self):
        state, file = self.copies[-1]
        self.put(state)
        self.ledger.path.write_text(file)
        (self.folder / "successions.jsonl").unlink(missing_ok=True)


async def daemon(world, instance="instance_1"):
    """A daemon that is started on what is there."""
    ledger = world.ledger
    file = CheckpointFile(ledger.path)
    settings = NotarySettings(instance=instance)
    notary = Notary([ledger.log], SIGNER, TRUST, file, settings, lambda: ledger.now)
    formers = Formers(public_keys=SIGNER.public_pem + STRANGER.public_pem)
    successions = CheckpointFile(world.folder / "successions.jsonl")
    await Rotation(SIGNER, notary.keys, successions, formers, instance, lambda: ledger.now).begin(
        [ledger.log]
    )
    return notary, Prover(notary)


def statement(kind, head, **more):
    """What the attacker signs with a key of their own."""
    whole = {"kind": kind, "log": "changes", "instance": "instance_1", "sequence": head.sequence,
             "hash": head.hash, "at": 500.0, "key": STRANGER.fingerprint, **more}  # fmt: skip

    return {**whole, "signature": STRANGER.sign(signed_text(whole))}


def tidy(world, last):
    """Take away what vouches for more than `last`, in the table and in the file."""
    world.ledger.tamper(f"DELETE FROM audit_checkpoints WHERE sequence > {last}")
    kept = [each for each in world.ledger.filed() if each.get("sequence", 0) <= last]
    world.ledger.path.write_text("".join(canonical(each).decode() + "\n" for each in kept))


def settle(world):
    """Have the chain's row say what the records do."""
    world.ledger.tamper(
        "UPDATE audit_chain SET size = (SELECT coalesce(sum(size), 0) FROM audit), sequence ="
        " coalesce((SELECT max(sequence) FROM audit), sequence), hash = coalesce((SELECT hash FROM"
        " audit ORDER BY sequence DESC LIMIT 1), hash)"
    )


def relinked(rows, first, previous):
    """Link rows anew from `first`."""
    names = ("sequence", "at", "principal", "organization", "action", "subject", "outcome",
             "request_id", "details", "salt", "hash", "size", "address")  # fmt: skip
    changed, at = [], previous
    for row in rows:
        said = dict(zip(names, row, strict=True))
        if said["sequence"] >= first:
            content = {name: said[name] for name in names[:10]}
            content["details"] = json.loads(said["details"])
            if said["address"]:
                content["address"] = said["address"]
            text = canonical(content)
            said["hash"] = link("changes", said["sequence"], at, digest_of(text))
            said["size"] = len(text)
        at = said["hash"]
        changed.append(tuple(said[name] for name in names))
    return changed


def rewrite(world, chance, tidied=0.7):
    """Change a record, and link all that follows."""
    rows = world.rows("audit")
    if not rows:
        return
    place = chance.randrange(len(rows))
    target = list(rows[place])
    target[chance.choice([2, 4, 5, 12])] = "forged"
    before = rows[place - 1][10] if place else Head().hash
    if not place and target[0] > 1:
        before = json.loads(world.rows("audit_chain")[0][4] or '{"hash": ""}')["hash"]
    changed = relinked([*rows[:place], tuple(target), *rows[place + 1 :]], target[0], before)
    world.put({"audit": changed}, ["audit"])
    settle(world)
    if chance.random() < tidied:
        tidy(world, target[0] - 1)


def cut(world, chance):
    rows = world.rows("audit")
    if rows:
        last = chance.choice(rows)[0]
        world.ledger.tamper(f"DELETE FROM audit WHERE sequence > {last}")
        settle(world)
        if chance.random() < 0.7:
            tidy(world, last)


def empty(world, chance):
    """Have the log begin anew."""
    world.ledger.tamper(
        "DELETE FROM audit", "DELETE FROM audit_checkpoints",
        f"UPDATE audit_chain SET sequence = 0, size = 0, anchor = NULL, hash = '{Head().hash}'",
    )  # fmt: skip
    if chance.random() < 0.5:
        world.ledger.path.write_text("")


def behead(world, chance):
    """Delete the oldest, and put a genuine or an own statement in their place."""
    rows = world.rows("audit")
    if not rows:
        return
    sequence, hashed = (row := chance.choice(rows))[0], row[10]
    said = [each for each in world.ledger.filed() if each.get("sequence") == sequence]
    own = statement(ANCHOR, Head(sequence, hashed), previous={"sequence": 0, "hash": Head().hash})
    anchor = chance.choice([own, *said, None])
    world.ledger.tamper(
        f"DELETE FROM audit WHERE sequence <= {sequence}",
        f"DELETE FROM audit_checkpoints WHERE sequence <= {sequence}",
        ("UPDATE audit_chain SET anchor = ?", (anchor and json.dumps(anchor, sort_keys=True),)),
    )
    settle(world)
    if anchor is own:
        with world.ledger.path.open("a") as file:
            file.write(canonical(own).decode() + "\n")


def sign(world, chance):
    """Have an own key vouch for what stands there, as a checkpoint and as a former key."""
    chain = world.rows("audit_chain")[0]
    said = statement(CHECKPOINT, Head(chain[1], chain[2]))
    columns = tuple(said[name] for name in ("sequence", "key", "hash", "at", "signature"))
    if chance.random() < 0.5:
        world.ledger.tamper(("INSERT OR REPLACE INTO audit_checkpoints VALUES (?, ?, ?, ?, ?)",
                             columns))  # fmt: skip
    else:
        with world.ledger.path.open("a") as file:
            file.write(canonical(said).decode() + "\n")
    public = Trust(STRANGER.public_pem).raw(STRANGER.fingerprint)
    through = {"changes": {"sequence": 10**9, "hash": chain[2]}}
    followed = statement(SUCCESSION, Head(), former=STRANGER.fingerprint,
                         former_public_key=public, through=through)  # fmt: skip
    CheckpointFile(world.folder / "successions.jsonl").append([canonical(followed)])


def put_back(world, chance):
    """Put an older copy of one part, or of several, in its place."""
    state, file = chance.choice(world.copies)
    if chance.random() < 0.7:
        world.put(state, chance.choice([TABLES, TABLES[:2], TABLES[1:], TABLES[:1], TABLES[2:]]))
    if chance.random() < 0.5:
        world.ledger.path.write_text(file)


def file_lines(world, chance):
    """Cut, shorten, reorder or damage the checkpoint file."""
    lines = world.ledger.path.read_text().splitlines(keepends=True)
    if lines:
        place = chance.randrange(len(lines))
        changed = chance.choice([
            lines[:place], lines[place + 1 :], [*lines[:place], *lines[place + 1 :]],
            [*lines, lines[place]], [*lines[:place], lines[place].replace("1", "2")],
        ])  # fmt: skip
        world.ledger.path.write_text("".join(changed))


def trigger(world, chance):
    """Have the database undo what is written."""
    undo = "DELETE FROM audit WHERE sequence = new.sequence"
    made = (
        f"CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON audit BEGIN {undo}; END",
        "CREATE VIEW IF NOT EXISTS v AS SELECT * FROM audit",
    )
    world.ledger.tamper(chance.choice(made))


STEPS = (rewrite, rewrite, cut, empty, behead, sign, put_back, put_back, file_lines, trigger)


@pytest.fixture
async def world(tmp_path):
    database = await Database.open(tmp_path / "state")
    made = World(Ledger(database, tmp_path), tmp_path)
    ledger = made.ledger
    await ledger.fill(last=40, every=8)
    made.keep()
    await ledger.fill(41, 80, every=8)
    made.keep()
    ledger.now = 230.0
    assert await ledger.notary.prune(ledger.log) > 0
    made.keep()
    ledger.now = 250.0
    await ledger.fill(81, 120, every=8)
    made.keep()
    yield made
    await database.close()


async def test_nobody_without_the_key_changes_what_is_signed_and_stays_unseen(world):
    first, last = min(row[0] for row in world.rows("audit")), max(world.genuine)
    head = Head(last, world.genuine[last][10])
    chance, unseen = random.Random(11), 0
    assert (await (await daemon(world))[1].verify(world.ledger.log, head)).problem is None
    for _ in range(ATTACKS):
        world.reset()
        steps = chance.choices(STEPS, k=chance.randrange(1, 4))
        for step in steps:
            step(world, chance)
        names = [step.__name__ for step in steps]
        _, prover = await daemon(world, chance.choice(["instance_2", *["instance_1"] * 9]))
        verdict = await prover.verify(world.ledger.log)
        if verdict.problem is not None:
            continue
        unseen += 1
        rows = world.rows("audit")
        changed = [row[0] for row in rows if world.genuine.get(row[0]) != row]
        ends = rows[-1][0] if rows else 0
        bad = min([*changed, *([ends + 1] if ends < last else [])], default=None)
        assert bad is None or bad > verdict.proven, names
        assert not rows or rows[0][0] <= first, names
        if bad is not None:
            known = (await prover.verify(world.ledger.log, head)).problem
            assert known is not None, names
            assert known.sequence <= last, names
    assert unseen < ATTACKS / 2


async def test_the_daemon_signs_nothing_that_contradicts_what_is_signed(world):
    chance = random.Random(12)
    for _ in range(30):
        world.reset()
        rewrite(world, chance, tidied=0.0)
        notary, prover = await daemon(world)
        await world.ledger.database.write(lambda tx: audit.append(tx, record(121)))
        before = world.ledger.path.read_text(), world.rows("audit_checkpoints")
        await notary.attest()
        assert (world.ledger.path.read_text(), world.rows("audit_checkpoints")) == before
        assert not prover.signing
        assert (await prover.verify(world.ledger.log)).problem is not None
