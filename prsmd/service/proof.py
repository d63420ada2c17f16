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
    start_head,
    text_of,
)
from prsmd.core.transcript import END, EXPORT, FOREIGN, FORMAT, RECORD
from prsmd.domain.errors import ConflictError
from prsmd.domain.events import AuditRecord
from prsmd.engine.audit_log import AuditLog
from prsmd.engine.notary import Notary
from prsmd.service.witnesses import witnesses
from prsmd.store import attestations, audit, foreign
from prsmd.store.attestations import Chain, Checkpoint

_SLICE = 100
_ATTEMPTS = 3  # when pruning overtakes a verification


class _OvertakenError(Exception):
    """What was to be read next was pruned meanwhile."""


class Prover:
    """Verifies and exports logs. One at a time verifies: it is as much work as the log is long."""

    def __init__(self, notary: Notary) -> None:
        self._notary = notary
        self._one_at_a_time = asyncio.Lock()

    @property
    def signing(self) -> bool:
        """Whether what is new in the logs is signed, when it is due."""
        return self._notary.signing

    async def verify(self, audited: AuditLog, kept: Head | None = None) -> Verdict:
        """Return whether the log is whole, as of now, and the first thing that is wrong.

        `kept` is a place of it that is known from elsewhere.
        """
        async with self._one_at_a_time:
            for _ in range(_ATTEMPTS):
                try:
                    return await self._verify(audited, kept)
                except _OvertakenError:
                    continue
        raise ConflictError("Old records are being pruned just now; try again in a minute.")

    async def export(
        self, audited: AuditLog, organization: str | None, since: float | None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the log's lines, many at a time, from the last checkpoint before `since`.

        With an organization, the records of others are there as digests only. What the checkpoint
        file vouches for is in it, so that it does not hide what was taken out of the log.
        ConflictError when old records are pruned before they were read.
        """
        filed = await self._notary.filed(audited)
        start = await self._start(audited, await _chain(audited), since)
        context = {
            "log": audited.name,
            "instance": self._notary.instance,
            "organization": organization,
        }
        head: dict[str, Any] = {"kind": EXPORT, "format": FORMAT, "start": start, **context}
        if self._notary.keys.successions:
            head["successions"] = [dict(each) for each in self._notary.keys.successions]
        first = canonical(self._notary.signed(head))
        yield first + b"\n"
        counts = dict.fromkeys((RECORD, FOREIGN, CHECKPOINT), 0)
        at, through = start_head(start), (await _chain(audited)).head.sequence
        while at.sequence < through:
            records, checkpoints = await _slice(audited, at.sequence, through, filed)
            if not records or records[0].sequence != at.sequence + 1:
                await self._refuse_pruned(audited, at.sequence + 1)
            if not records:
                break
            lines = self._lines(audited, organization, records, checkpoints)
            for line in lines:
                counts[str(line["kind"])] += 1
            yield b"".join(canonical(line) + b"\n" for line in lines)
            at = Head(records[-1].sequence, records[-1].hash)
        if filed is not None and filed.sequence > at.sequence:
            counts[CHECKPOINT] += 1
            yield canonical(self._statement(audited, filed)) + b"\n"
        place = {"sequence": at.sequence, "hash": at.hash}
        total = {f"{kind}s": count for kind, count in counts.items()}
        end = {"kind": END, EXPORT: digest_of(first), **context, **place, **total}
        yield canonical(self._notary.signed(end)) + b"\n"

    async def _refuse_pruned(self, audited: AuditLog, sequence: int) -> None:
        if await self._pruned(audited, sequence):
            raise ConflictError("Old records were pruned meanwhile; export again.")

    async def _pruned(self, audited: AuditLog, sequence: int) -> bool:
        """Tell whether a record is not there any more because it was pruned."""
        anchor = (await _chain(audited)).anchor
        return start_head(anchor).sequence >= sequence and self._notary.trusts_start(
            audited, anchor
        )

    async def _start(
        self, audited: AuditLog, chain: Chain, since: float | None
    ) -> dict[str, Any] | None:
        if since is not None:
            async with audited.database.read() as tx:
                checkpoint = await attestations.last_checkpoint(tx, since, audited.table)
            if checkpoint is not None:
                return self._statement(audited, checkpoint)
        proper = chain.anchor is not None and self._notary.trusts_start(audited, chain.anchor)
        return dict(chain.anchor) if proper and chain.anchor is not None else None

    def _statement(self, audited: AuditLog, checkpoint: Checkpoint) -> dict[str, Any]:
        return checkpoint.statement(audited.name, self._notary.instance)

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
            if organization in {None, record.organization}:
                own = {"record": content_of(record), "hash": record.hash}
                lines.append({"kind": RECORD, **own})
            else:
                digest = digest_of(text_of(record))
                foreign = {"sequence": record.sequence, "digest": digest, "hash": record.hash}
                lines.append({"kind": FOREIGN, **foreign})
            while waiting and waiting[-1].sequence <= record.sequence:
                lines.append(self._statement(audited, waiting.pop()))
        return lines

    async def _verify(self, audited: AuditLog, kept: Head | None) -> Verdict:
        filed, chain = await self._notary.filed(audited), await _chain(audited)
        start = start_head(chain.anchor)
        promised = await witnesses(self._notary, audited, start, kept)
        walk = Walk(audited.name, start, promised.places)
        verdict = Verdict(
            log=audited.name, first=start.sequence + 1, last=start.sequence, head=start.hash,
            records=0, foreign=0, checkpoints=0, proven=start.sequence,
            problem=await _odd(audited, chain) or self._bad_start(audited, chain),
        )  # fmt: skip
        while verdict.problem is None and walk.at.sequence < chain.head.sequence:
            after, through = walk.at.sequence, chain.head.sequence
            records, checkpoints = await _slice(audited, after, through, filed)
            problem = self._walk_on(audited, walk, records, checkpoints)
            gone = not records or (problem is not None and problem.kind is ProblemKind.MISSING)
            if gone and await self._pruned(audited, walk.at.sequence + 1):
                raise _OvertakenError
            if not records:
                problem = _cut(walk, through)
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
            problem = self._end_problem(audited, walk, chain, filed) or await _beyond(audited)
            problem = problem or promised.beyond(walk.at.sequence) or promised.problem
            verdict = dataclasses.replace(verdict, problem=problem)
        return verdict

    def _bad_start(self, audited: AuditLog, chain: Chain) -> Problem | None:
        if self._notary.trusts_start(audited, chain.anchor):
            return None
        return Problem(
            kind=ProblemKind.FORGED,
            sequence=start_head(chain.anchor).sequence,
            message="the place where the log begins is not signed as such by this daemon's key",
        )

    def _end_problem(
        self, audited: AuditLog, walk: Walk, chain: Chain, filed: Checkpoint | None
    ) -> Problem | None:
        """Return what is wrong where the log ends."""
        if filed is not None and filed.sequence > walk.at.sequence:
            return self._unsigned(audited, filed) or _cut(walk, filed.sequence)
        if chain.head != walk.at:
            words = f"the log ends at {walk.at.sequence}, where its own note of the end differs"
            kind = ProblemKind.TRUNCATED
        elif chain.size != walk.size:
            words, kind = "what is noted as the size of the log was altered", ProblemKind.ALTERED
        else:
            return None
        return Problem(kind=kind, sequence=walk.at.sequence, message=words)

    def _walk_on(
        self,
        audited: AuditLog,
        walk: Walk,
        records: list[AuditRecord],
        checkpoints: list[Checkpoint],
    ) -> Problem | None:
        waiting = checkpoints[::-1]
        for record in records:
            problem = walk.take(record)
            while problem is None and waiting and waiting[-1].sequence <= record.sequence:
                problem = self._compare(audited, walk, waiting.pop())
            if problem is not None:
                return problem
        return None

    def _compare(self, audited: AuditLog, walk: Walk, checkpoint: Checkpoint) -> Problem | None:
        forged = self._unsigned(audited, checkpoint)
        return forged or walk.committed(Head(checkpoint.sequence, checkpoint.hash))

    def _unsigned(self, audited: AuditLog, checkpoint: Checkpoint) -> Problem | None:
        if self._notary.trusts(self._statement(audited, checkpoint)):
            return None
        words = f"the checkpoint of record {checkpoint.sequence} is not signed by this daemon's key"
        return Problem(kind=ProblemKind.FORGED, sequence=checkpoint.sequence, message=words)


async def _chain(audited: AuditLog) -> Chain:
    async with audited.database.read() as tx:
        return await attestations.chain(tx, audited.table)


async def _slice(
    audited: AuditLog, after: int, through: int, filed: Checkpoint | None
) -> tuple[list[AuditRecord], list[Checkpoint]]:
    """Return the next records up to `through`, and the checkpoints among them, `filed` included."""
    async with audited.database.read() as tx:
        records = await audit.after(tx, after, min(_SLICE, through - after), table=audited.table)
        last = min(records[-1].sequence, through) if records else after
        found = await attestations.checkpoints(tx, after, last, audited.table)
    if filed is not None and after < filed.sequence <= last and filed not in found:
        found = sorted([*found, filed], key=lambda each: each.sequence)
    return records, found


def _cut(walk: Walk, through: int) -> Problem:
    first = walk.at.sequence + 1
    return Problem(
        kind=ProblemKind.TRUNCATED,
        sequence=first,
        message=f"record {first} is missing, and all up to {through}",
    )


async def _odd(audited: AuditLog, chain: Chain) -> Problem | None:
    """Return what stands in the file that could change records as they are written."""
    async with audited.database.read() as tx:
        found = await foreign.objects(tx, audited.table)
    if not found:
        return None
    words = f"the database has what prsmd did not make: {', '.join(found)}"[:500]
    return Problem(kind=ProblemKind.ALTERED, sequence=chain.head.sequence + 1, message=words)


async def _beyond(audited: AuditLog) -> Problem | None:
    """Return what is wrong beyond the log's end: neither record nor checkpoint may stand there."""
    async with audited.database.read() as tx:
        head = (await attestations.chain(tx, audited.table)).head
        found = await audit.after(tx, head.sequence, 1, table=audited.table)
        signed = await attestations.last_checkpoint(tx, table=audited.table)
    end = f"stands after the log's end at {head.sequence}"
    if found:
        sequence = found[0].sequence
        words, kind = f"record {sequence} {end}", ProblemKind.ALTERED
    elif signed is not None and signed.sequence > head.sequence:
        sequence, kind = head.sequence + 1, ProblemKind.TRUNCATED
        words = f"a checkpoint of record {signed.sequence} {end}"
    else:
        return None
    return Problem(kind=kind, sequence=sequence, message=words)
