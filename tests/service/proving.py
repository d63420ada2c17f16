"""A stored log with its notary and prover, and ways to change it behind the daemon's back."""

import dataclasses
import json
import sqlite3

from prsmd.core.chain import Head, digest_of, link, text_of
from prsmd.core.signing import Signer, Trust
from prsmd.core.transcript import Transcript
from prsmd.domain.events import AuditRecord
from prsmd.engine.audit_log import AuditLog
from prsmd.engine.notary import Notary, NotarySettings
from prsmd.service.proof import Prover
from prsmd.store import audit
from prsmd.store.checkpoint_file import CheckpointFile

SIGNER, STRANGER = Signer(b"k" * 32), Signer(b"s" * 32)
TRUST = Trust(SIGNER.public_pem)
RECORDS = 450  # several slices


def record(number):
    return AuditRecord(
        at=float(number), principal="key:a", organization="acme" if number % 3 else "rival",
        action="models.deploy", subject=f"model-{number}", outcome="allowed", request_id="r",
        details={"n": number, "text": "müller"},
    )  # fmt: skip


class Ledger:
    """A log with its notary and prover; `tamper` changes its file behind the daemon's back."""

    def __init__(self, database, folder, signer=SIGNER):
        self.database = database
        self.log = AuditLog(name="changes", database=database, keep_seconds=200.0, keep_bytes=10**9)
        self.now = 0.0
        self.path = folder / "checkpoints.jsonl"
        settings = NotarySettings(instance="instance_1")
        file = CheckpointFile(self.path)
        self.notary = Notary([self.log], signer, TRUST, file, settings, lambda: self.now)
        self.prover = Prover(self.notary)

    async def fill(self, first=1, last=RECORDS, every=100):
        for start in range(first, last + 1, every):
            numbers = range(start, min(start + every, last + 1))
            await self.database.write(
                lambda tx, n=numbers: audit.append_all(tx, [record(i) for i in n])
            )
            await self.notary.attest()

    def tamper(self, *statements):
        with sqlite3.connect(self.database.path) as connection:
            for statement in statements:
                sql, values = statement if isinstance(statement, tuple) else (statement, ())
                connection.execute(sql, values)
        connection.close()

    def filed(self):
        """The lines of the checkpoint file."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def value(self, column, sequence):
        connection = sqlite3.connect(self.database.path)
        query = f"SELECT {column} FROM audit WHERE sequence = ?"
        [[found]] = connection.execute(query, (sequence,)).fetchall()
        connection.close()
        return found

    async def verdict(self):
        return await self.prover.verify(self.log)

    async def export(self, organization=None, since=None):
        pieces = [piece async for piece in self.prover.export(self.log, organization, since)]
        return b"".join(pieces).splitlines(keepends=True)

    async def rewrite(self, change):
        """Change every record, and link the whole log anew; without the key no more can be done."""
        head = await self.rewrite_first(10**6, change)
        total = "UPDATE audit_chain SET hash = ?, size = (SELECT sum(size) FROM audit)"
        self.tamper((total, (head.hash,)), "DELETE FROM audit_checkpoints")

    async def rewrite_first(self, count, change):
        """Change the first records, and link them anew; those after them stay as they are."""
        async with self.database.read() as tx:
            records = await audit.after(tx, 0, count)
        head, statements = Head(), []
        for each in records:
            changed = dataclasses.replace(each, **change)
            text = text_of(changed)
            head = Head(each.sequence, link("changes", each.sequence, head.hash, digest_of(text)))
            names = (*change, "hash", "size")
            given = (*change.values(), head.hash, len(text), each.sequence)
            columns = ", ".join(f"{name} = ?" for name in names)
            statements.append((f"UPDATE audit SET {columns} WHERE sequence = ?", given))
        self.tamper(*statements)
        return head


def read(lines, trust=TRUST):
    transcript = Transcript(trust.check)
    for line in lines:
        transcript.feed(line)
    return transcript.verdict()
