"""Proves a stored audit log, and writes it out so that a copy can be proven elsewhere.

Works in slices of a few milliseconds and gives the loop away in between: a log can be long.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from typing import Any

from prsmd.core.chain import (
    CHECKPOINT,
    Head,
    Problem,
    ProblemKind,
    Verdict,
    Walk,
    canonical,
    content_of,
    digest_of,
    signed_text,
    start_head,
)
from prsmd.core.signing import Trust
from prsmd.core.transcript import END, EXPORT, FOREIGN, FORMAT, RECORD
from prsmd.domain.errors import ConflictError
from prsmd.domain.events import AuditRecord
from prsmd.engine.notary import AuditLog, Notary
from prsmd.store import attestations, audit
from prsmd.store.attestations import Chain, Checkpoint

_SLICE = 100
_ATTEMPTS = 3  # when pruning overtakes a verification


class _OvertakenError(Exception):
    """What was to be read next was pruned meanwhile."""


class Prover:
    """Verifies and exports logs. One at a time verifies: it is as much work as the log is long."""

    def __init__(self, notary: Notary, trust: Trust) -> None:
        self._notary = notary
        self._trust = trust
        self._one_at_a_time = asyncio.Lock()

    async def verify(self, audited: AuditLog) -> Verdict:
        """Return whether the log is whole, as of now, and the first thing that is wrong."""
        async with self._one_at_a_time:
            for _ in range(_ATTEMPTS):
                try:
                    return await self._verify(audited)
                except _OvertakenError:
                    continue
        raise ConflictError("Old records are being pruned just now; try again in a minute.")

    async def export(
        self, audited: AuditLog, organization: str | None, since: float | None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the log's lines, many at a time, from the last checkpoint before `since`.

        With an organization, the records of others are there as digests only.
        ConflictError when old records are pruned before they were read.
        """
        chain = await _chain(audited)
        start = await self._start(audited, chain, since)
        context = {
            "log": audited.name,
            "instance": self._notary.instance,
            "organization": organization,
        }
        head = {"kind": EXPORT, "format": FORMAT, "start": start, **context}
        yield canonical(self._notary.signed(head)) + b"\n"
        counts = dict.fromkeys((RECORD, FOREIGN, CHECKPOINT), 0)
        at = start_head(start)
        while at.sequence < chain.head.sequence:
            records, checkpoints = await _slice(audited, at.sequence, chain.head.sequence)
            if not records or records[0].sequence != at.sequence + 1:
                await self._refuse_pruned(audited, at.sequence + 1)
            if not records:
                break
            lines = list(self._lines(audited, organization, records, checkpoints))
            for line in lines:
                counts[str(line["kind"])] += 1
            yield b"".join(canonical(line) + b"\n" for line in lines)
            at = Head(records[-1].sequence, records[-1].hash)
        place = {"sequence": at.sequence, "hash": at.hash}
        total = {f"{kind}s": count for kind, count in counts.items()}
        yield canonical(self._notary.signed({"kind": END, **context, **place, **total})) + b"\n"

    async def _refuse_pruned(self, audited: AuditLog, sequence: int) -> None:
        try:
            await _refuse_overtaken(audited, sequence)
        except _OvertakenError:
            raise ConflictError("Old records were pruned meanwhile; export again.") from None

    async def _start(
        self, audited: AuditLog, chain: Chain, since: float | None
    ) -> dict[str, Any] | None:
        if since is not None:
            async with audited.database.read() as tx:
                checkpoint = await attestations.last_checkpoint(tx, since)
            if checkpoint is not None:
                return checkpoint.statement(audited.name, self._notary.instance)
        return None if chain.anchor is None else dict(chain.anchor)

    def _lines(
        self,
        audited: AuditLog,
        organization: str | None,
        records: list[AuditRecord],
        checkpoints: list[Checkpoint],
    ) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        waiting = checkpoints[::-1]
        for record in records:
            content = content_of(record)
            if organization in {None, record.organization}:
                lines.append({"kind": RECORD, "record": content, "hash": record.hash})
            else:
                digest = digest_of(canonical(content))
                foreign = {"sequence": record.sequence, "digest": digest, "hash": record.hash}
                lines.append({"kind": FOREIGN, **foreign})
            while waiting and waiting[-1].sequence <= record.sequence:
                lines.append(waiting.pop().statement(audited.name, self._notary.instance))
        return lines

    async def _verify(self, audited: AuditLog) -> Verdict:
        chain, filed = await _chain(audited), await self._notary.filed(audited)
        start = start_head(chain.anchor)
        walk = Walk(audited.name, start, _known(start, filed))
        verdict = Verdict(
            log=audited.name, first=start.sequence + 1, last=start.sequence, head=start.hash,
            records=0, foreign=0, checkpoints=0, proven=start.sequence,
            problem=self._bad_anchor(chain),
        )  # fmt: skip
        while verdict.problem is None and walk.at.sequence < chain.head.sequence:
            records, checkpoints = await _slice(audited, walk.at.sequence, chain.head.sequence)
            problem = self._walk_on(audited, walk, records, checkpoints)
            if not records or (problem is not None and problem.kind is ProblemKind.MISSING):
                await _refuse_overtaken(audited, walk.at.sequence + 1)
            if not records:
                problem = _cut(walk, chain.head)
            verdict = dataclasses.replace(
                verdict,
                last=walk.at.sequence,
                head=walk.at.hash,
                records=walk.at.sequence - start.sequence,
                checkpoints=verdict.checkpoints + len(checkpoints),
                proven=walk.proven,
                problem=problem,
            )
            await asyncio.sleep(0)
        if verdict.problem is None:
            problem = _end_problem(walk, chain.head, filed) or await _beyond(audited)
            verdict = dataclasses.replace(verdict, problem=problem)
        return verdict

    def _bad_anchor(self, chain: Chain) -> Problem | None:
        if chain.anchor is None or self._signed(dict(chain.anchor)):
            return None
        return Problem(
            kind=ProblemKind.FORGED,
            sequence=int(chain.anchor["sequence"]),
            message="the place where the log begins is not signed by this daemon's key",
        )

    def _walk_on(
        self,
        audited: AuditLog,
        walk: Walk,
        records: list[AuditRecord],
        checkpoints: list[Checkpoint],
    ) -> Problem | None:
        waiting = checkpoints[::-1]
        for record in records:
            problem = walk.step(record.sequence, _digest(record), record.hash)
            while problem is None and waiting and waiting[-1].sequence <= record.sequence:
                problem = self._compare(audited, walk, waiting.pop())
            if problem is not None:
                return problem
        return None

    def _compare(self, audited: AuditLog, walk: Walk, checkpoint: Checkpoint) -> Problem | None:
        if not self._signed(checkpoint.statement(audited.name, self._notary.instance)):
            return Problem(
                kind=ProblemKind.FORGED,
                sequence=checkpoint.sequence,
                message=f"the checkpoint of record {checkpoint.sequence} is not signed by this"
                " daemon's key",
            )
        return walk.committed(Head(checkpoint.sequence, checkpoint.hash))

    def _signed(self, statement: dict[str, Any]) -> bool:
        key, signature = str(statement["key"]), str(statement["signature"])
        return self._trust.check(key, signed_text(statement), signature)


async def _chain(audited: AuditLog) -> Chain:
    async with audited.database.read() as tx:
        return await attestations.chain(tx)


async def _slice(
    audited: AuditLog, after: int, through: int
) -> tuple[list[AuditRecord], list[Checkpoint]]:
    """Return the next records up to `through`, and the checkpoints among them."""
    async with audited.database.read() as tx:
        records = await audit.after(tx, after, min(_SLICE, through - after))
        last = records[-1].sequence if records else after
        return records, await attestations.checkpoints(tx, after, min(last, through))


async def _refuse_overtaken(audited: AuditLog, sequence: int) -> None:
    """Raise if a record is not there any more because it was pruned."""
    if start_head((await _chain(audited)).anchor).sequence >= sequence:
        raise _OvertakenError


def _digest(record: AuditRecord) -> str:
    try:
        return digest_of(canonical(content_of(record)))
    except ValueError:  # nothing that was ever appended
        return ""


def _known(start: Head, filed: Head) -> dict[int, str]:
    """Return what the checkpoint file vouches for, if the log still reaches there."""
    return {filed.sequence: filed.hash} if filed.sequence > start.sequence else {}


def _cut(walk: Walk, head: Head) -> Problem:
    first = walk.at.sequence + 1
    return Problem(
        kind=ProblemKind.TRUNCATED,
        sequence=first,
        message=f"record {first} is missing, and all up to {head.sequence}",
    )


def _end_problem(walk: Walk, head: Head, filed: Head) -> Problem | None:
    """Return what is wrong where the log ends."""
    if filed.sequence > walk.at.sequence:
        return _cut(walk, filed)
    if head == walk.at:
        return None
    return Problem(
        kind=ProblemKind.TRUNCATED,
        sequence=walk.at.sequence,
        message=f"the log ends at {walk.at.sequence}, where its own note of the end differs",
    )


async def _beyond(audited: AuditLog) -> Problem | None:
    """Return what is wrong beyond the log's end: nothing may stand there."""
    async with audited.database.read() as tx:
        head = (await attestations.chain(tx)).head
        found = await audit.after(tx, head.sequence, 1)
    if not found:
        return None
    sequence = found[0].sequence
    words = f"record {sequence} stands after the log's end at {head.sequence}"
    return Problem(kind=ProblemKind.ALTERED, sequence=sequence, message=words)
