"""Vouches for the audit logs: signs where their chains stand, and where they begin after pruning.

A checkpoint goes to the log's own table, to a file beside the state, and to the journal, so that a
copy can be elsewhere before anyone changes the log. Signs nothing that contradicts what it signed
before: who changes the log would else only have to wait for its signature. Writes no records.
"""

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prsmd.core.chain import (
    ANCHOR,
    CHECKPOINT,
    Head,
    Walk,
    canonical,
    signed_text,
    start_head,
)
from prsmd.core.key_rotation import TrustedKeys
from prsmd.core.signing import Signer, Trust
from prsmd.domain.errors import PrsmdError
from prsmd.engine.audit_log import AuditLog, refuse_broken, walk_to_end
from prsmd.store import attestations, foreign
from prsmd.store.attestations import Checkpoint
from prsmd.store.checkpoint_file import CheckpointFile
from prsmd.store.db import Tx

log = logging.getLogger("prsmd.audit")
_LOOK_SECONDS = 1.0
_AT_ONCE = 1000
_NEAR = 10  # checkpoints that may not be trusted before the newest is taken


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NotarySettings:
    """When to sign: after so many records, or so many seconds when anything is new."""

    instance: str
    every_records: int = 1000
    every_seconds: float = 300.0


class Notary:
    """Signs checkpoints and anchors. `clock` gives seconds since the epoch.

    `trust` are the keys that an operator gave, its own among them; `keys` are these, and those that
    successions lead back to from there.
    """

    def __init__(
        self,
        logs: Sequence[AuditLog],
        signer: Signer,
        trust: Trust,
        file: CheckpointFile,
        settings: NotarySettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._logs = logs
        self._signer = signer
        self.keys = TrustedKeys(trust.check, settings.instance)
        self._settings = settings
        self._clock = clock
        self._keeping = file
        self._filed: dict[str, Checkpoint] | None = None
        self._filed_anchors: dict[str, Mapping[str, Any]] = {}
        self._failing: set[str] = set()
        self._measured: dict[str, Walk] = {}  # only what is new is walked again

    async def run(self) -> None:
        """Sign what is due; for ever."""
        while True:
            await self.attest(everything=False)
            await asyncio.sleep(_LOOK_SECONDS)

    async def attest(self, *, everything: bool = True) -> None:
        """Sign where each log stands, if it is due or `everything` that is new is wanted."""
        for audited in self._logs:
            try:
                await self._attest(audited, everything=everything)
            except (PrsmdError, OSError) as error:
                if audited.name not in self._failing:
                    words = "audit checkpoints of %s cannot be kept: %s"
                    log.error(words, audited.name, error)  # noqa: TRY400
                self._failing.add(audited.name)
            else:
                self._failing.discard(audited.name)

    @property
    def signing(self) -> bool:
        """False while what is new in a log is not signed: it cannot be, or must not."""
        return not self._failing

    def statement(self, kind: str, audited: AuditLog, head: Head, **more: Any) -> dict[str, Any]:
        """Return a signed statement about a place of a log."""
        whole = {
            "kind": kind,
            "log": audited.name,
            "instance": self._settings.instance,
            "sequence": head.sequence,
            "hash": head.hash,
            **more,
        }
        return self.signed(whole)

    def signed(self, statement: dict[str, Any]) -> dict[str, Any]:
        """Return the statement with its time, key and signature."""
        whole = {**statement, "at": self._clock(), "key": self._signer.fingerprint}
        return {**whole, "signature": self._signer.sign(signed_text(whole))}

    @property
    def instance(self) -> str:
        """Whose logs these are."""
        return self._settings.instance

    async def load(self) -> dict[str, Checkpoint]:
        """Read the file, unless that is done; return the last checkpoint that it has of each log.

        Raises:
            StoreDamagedError: it cannot be read.
        """
        if self._filed is None:
            file, instance = self._keeping, self.instance
            self._filed_anchors = await asyncio.to_thread(file.last_of, instance, ANCHOR)
            self._filed = await asyncio.to_thread(file.last, instance)
        return self._filed

    async def filed(self, audited: AuditLog) -> Checkpoint | None:
        """Return the last checkpoint of the log that the file has; None without one."""
        return (await self.load()).get(audited.name)

    async def statements(self) -> list[Mapping[str, Any]]:
        """Return all that stands in the checkpoint file now."""
        return await asyncio.to_thread(self._keeping.statements)

    def trusts(self, statement: Mapping[str, Any]) -> bool:
        """Tell whether a key that is trusted signed the statement."""
        return self.keys.trusts(statement)

    def trusts_start(self, audited: AuditLog, anchor: Mapping[str, Any] | None) -> bool:
        """Tell whether the log may begin there: at its first record, or at an anchor of its own.

        A checkpoint will not do: who can delete records could else delete all before it. Nor will
        an anchor that does not follow the last one that was filed.
        """
        if anchor is None:
            return True
        whose = tuple(anchor.get(name) for name in ("kind", "log", "instance"))
        own = whose == (ANCHOR, audited.name, self.instance) and self.trusts(anchor)
        return own and _follows(anchor, self._filed_anchors.get(audited.name))

    async def prune(self, audited: AuditLog, *, by_age: bool = True) -> int:
        """Forget what is too old or too much, a thousand records at most; return how many went.

        Without `by_age` only what is too much goes. Their place in the chain is taken by an anchor:
        the signed hash of the last that went.
        PrsmdError where the log is not whole: then it is evidence, and stays.
        """
        before = self._clock() - audited.keep_seconds if by_age else -math.inf
        filed = await self.filed(audited)
        excess = await self._excess(audited, filed)
        async with audited.database.read() as tx:
            last = await attestations.prunable(tx, before, excess, _AT_ONCE, audited.table)
            if last is None:
                return 0
            before_it = await self._uncontradicted(tx, audited, filed)
        start = start_head(before_it)
        size = await refuse_broken(audited, start, last)
        await refuse_broken(audited, last, await self._signed_from(audited, last, filed))
        await self._file_anchor(audited, before_it)
        anchor = self.statement(
            ANCHOR,
            audited,
            last,
            previous={"sequence": start.sequence, "hash": start.hash},
            records=last.sequence - start.sequence,
            bytes=size,
            checkpoint=filed and {"sequence": filed.sequence, "hash": filed.hash},
        )
        table = audited.table
        gone = await audited.database.write(lambda tx: attestations.prune(tx, anchor, table))
        self._forget(audited, last, size)
        await self._file_anchor(audited, anchor)
        return gone

    async def _excess(self, audited: AuditLog, filed: Checkpoint | None) -> int:
        """Return how many bytes of the log's records are more than it keeps; 0: none.

        What the chain notes as its size decides only whether they are measured. PrsmdError where
        it is not their size: who can write the file could else choose what goes.
        """
        async with audited.database.read() as tx:
            chain = await attestations.chain(tx, audited.table)
            if chain.size <= audited.keep_bytes:
                return 0
            await self._uncontradicted(tx, audited, filed)
        walk = self._measured.pop(audited.name, None)
        if walk is None or walk.start != start_head(chain.anchor):
            walk = Walk(audited.name, start_head(chain.anchor))
        chain = await walk_to_end(audited, walk)
        self._measured[audited.name] = walk
        if chain.size != walk.size:
            raise PrsmdError("what is noted as the size of the log was altered")
        return walk.size - audited.keep_bytes

    async def _signed_from(self, audited: AuditLog, last: Head, filed: Checkpoint | None) -> Head:
        """Return a near place, not before `last`, that a trusted key signed; without one, `last`.

        Only records that lead there are those that were signed: whoever changes the oldest can
        link them anew up to `last`.
        """
        async with audited.database.read() as tx:
            near = await attestations.next_checkpoints(tx, last.sequence, _NEAR, audited.table)
            newest = await attestations.last_checkpoint(tx, table=audited.table)
        for each in (*near, newest, filed):
            if each is None or each.sequence < last.sequence:
                continue
            if self.trusts(each.statement(audited.name, self.instance)):
                return Head(each.sequence, each.hash)
        return last

    def _forget(self, audited: AuditLog, last: Head, size: int) -> None:
        """Take what was pruned out of what was measured."""
        walk = self._measured.get(audited.name)
        if walk is None:
            return
        if walk.at.sequence < last.sequence:
            del self._measured[audited.name]
            return
        walk.start = last
        walk.size -= size

    async def _file_anchor(self, audited: AuditLog, anchor: Mapping[str, Any] | None) -> None:
        """Append what was pruned to the file and the journal, if it is not there."""
        filed = self._filed_anchors.get(audited.name)
        if anchor is None or (filed is not None and start_head(filed) == start_head(anchor)):
            return
        line = canonical(dict(anchor))
        try:
            await asyncio.to_thread(self._keeping.append, [line])
        except OSError as error:
            raise PrsmdError(f"what was pruned cannot be filed: {error}") from error
        self._filed_anchors[audited.name] = anchor
        log.info("audit anchor %s", line.decode())

    async def _attest(self, audited: AuditLog, *, everything: bool) -> None:
        filed = await self.filed(audited)
        async with audited.database.read() as tx:
            chain = await attestations.chain(tx, audited.table)
            last = await attestations.last_checkpoint(tx, table=audited.table)
            covered = _covered(chain, last)
            new = chain.head.sequence - covered.head.sequence
            renewed = last is not None and last.key != self._signer.fingerprint
            due = new != 0 and (everything or self._due(abs(new), covered.at))
            if due or renewed:  # a new key vouches for what is there
                await self._uncontradicted(tx, audited, filed)
        if due or renewed:
            await refuse_broken(audited, covered.head, chain.head)
            await self._checkpoint(audited, chain.head)
        await self._file(audited)
        if chain.anchor is not None and self.trusts_start(audited, chain.anchor):
            await self._file_anchor(audited, chain.anchor)

    async def _uncontradicted(
        self, tx: Tx, audited: AuditLog, filed: Checkpoint | None
    ) -> Mapping[str, Any] | None:
        """Return the anchor of a log that still has what was signed before, and ends after it.

        PrsmdError: somebody changed it, or it was restored from a backup.
        """
        chain = await attestations.chain(tx, audited.table)
        last = await attestations.last_checkpoint(tx, table=audited.table)
        odd = await foreign.objects(tx, audited.table)
        if odd:
            raise PrsmdError(f"there is what prsmd did not make: {', '.join(odd)}")
        if not self.trusts_start(audited, chain.anchor):
            raise PrsmdError("the place where the log begins is not signed as such")
        for signed in (last, filed):
            if signed is None or signed.sequence <= start_head(chain.anchor).sequence:
                continue
            if not self.trusts(signed.statement(audited.name, self.instance)):
                raise PrsmdError(
                    f"the checkpoint of record {signed.sequence} is signed with key {signed.key},"
                    " for which nobody vouches: if it was this daemon's, name it in"
                    " access.audit_former_keys"
                )
            if await attestations.hash_of(tx, signed.sequence, audited.table) != signed.hash:
                raise PrsmdError(f"record {signed.sequence} is not the one that was signed")
            if signed.sequence > chain.head.sequence:
                raise PrsmdError(f"the log ends before record {signed.sequence}, which was signed")
        return chain.anchor

    def _due(self, new: int, since: float) -> bool:
        settings = self._settings
        return new >= settings.every_records or abs(self._clock() - since) >= settings.every_seconds

    async def _checkpoint(self, audited: AuditLog, head: Head) -> None:
        # What leaves the machine must not know of records that a power cut can still take back.
        await audited.database.sync()
        statement = self.statement(CHECKPOINT, audited, head)
        fields = ("sequence", "key", "hash", "at", "signature")
        checkpoint = Checkpoint(**{name: statement[name] for name in fields})

        async def write(tx: Tx) -> None:
            await attestations.add_checkpoint(tx, checkpoint, audited.table)

        await audited.database.write(write)
        log.info("audit checkpoint %s", canonical(statement).decode())

    async def _file(self, audited: AuditLog) -> None:
        """Append the checkpoints that the file has not: also those of before a crash."""
        filed = await self.filed(audited)
        async with audited.database.read() as tx:
            through = (await attestations.chain(tx, audited.table)).head.sequence
            after = 0 if filed is None else filed.sequence
            missing = await attestations.checkpoints(tx, after, through, audited.table)
        if missing:
            lines = [canonical(each.statement(audited.name, self.instance)) for each in missing]
            await asyncio.to_thread(self._keeping.append, lines)
            assert self._filed is not None  # noqa: S101 - `filed` read it
            self._filed[audited.name] = missing[-1]


def _follows(anchor: Mapping[str, Any], filed: Mapping[str, Any] | None) -> bool:
    """Tell whether an anchor is the last one that was filed, or came of the next pruning.

    Of one that an earlier release made, only its place can be compared.
    """
    if filed is None or _place_of(filed) == _place_of(anchor):
        return True
    return _place_of(anchor.get("previous")) == _place_of(filed)


def _place_of(said: Any) -> tuple[Any, Any] | None:
    return (said.get("sequence"), said.get("hash")) if isinstance(said, Mapping) else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Covered:
    head: Head
    at: float


def _covered(chain: attestations.Chain, last: Checkpoint | None) -> _Covered:
    """Return up to where a checkpoint or the anchor vouches for the log, and since when."""
    if last is not None:
        return _Covered(Head(last.sequence, last.hash), last.at)
    if chain.anchor is not None:
        return _Covered(start_head(chain.anchor), float(chain.anchor["at"]))
    return _Covered(Head(), 0.0)
