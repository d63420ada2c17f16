"""Vouches for the audit logs: signs where their chains stand, and where they begin after pruning.

A checkpoint goes to the log's own table, to a file beside the state, and to the journal, so that a
copy can be elsewhere before anyone changes the log. Writes no records.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from prsmd.core.chain import ANCHOR, CHECKPOINT, Head, canonical, signed_text
from prsmd.core.signing import Signer
from prsmd.domain.errors import PrsmdError
from prsmd.store import attestations
from prsmd.store.attestations import Checkpoint
from prsmd.store.checkpoint_file import CheckpointFile
from prsmd.store.db import Database, Tx

log = logging.getLogger("prsmd.audit")
_LOOK_SECONDS = 1.0
_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """One chained log: its name, the file of the state that it is in, how long it is kept."""

    name: str
    database: Database
    keep_seconds: float
    keep_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NotarySettings:
    """When to sign: after so many records, or so many seconds when anything is new."""

    instance: str
    every_records: int = 1000
    every_seconds: float = 300.0


class Notary:
    """Signs checkpoints and anchors. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        logs: Sequence[AuditLog],
        signer: Signer,
        file: CheckpointFile,
        settings: NotarySettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._logs = logs
        self._signer = signer
        self._settings = settings
        self._clock = clock
        self._keeping = file
        self._filed: dict[str, Head] | None = None
        self._failing = False

    async def run(self) -> None:
        """Sign what is due; for ever."""
        while True:
            await self.attest(everything=False)
            await asyncio.sleep(_LOOK_SECONDS)

    async def attest(self, *, everything: bool = True) -> None:
        """Sign where each log stands, if it is due or `everything` that is new is wanted."""
        try:
            for audited in self._logs:
                await self._attest(audited, everything=everything)
        except (PrsmdError, OSError) as error:
            if not self._failing:
                log.error("audit checkpoints cannot be kept: %s", error)  # noqa: TRY400
            self._failing = True
        else:
            self._failing = False

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

    async def filed(self, audited: AuditLog) -> Head:
        """Return the last place of the log that the file vouches for; the beginning without one."""
        if self._filed is None:
            self._filed = await asyncio.to_thread(self._keeping.last)
        return self._filed.get(audited.name, Head())

    async def prune(self, audited: AuditLog) -> int:
        """Forget what is too old or too much, a thousand records at most; return how many went.

        Their place in the chain is taken by an anchor: the signed hash of the last that went.
        """
        before = self._clock() - audited.keep_seconds
        async with audited.database.read() as tx:
            last = await attestations.prunable(tx, before, audited.keep_bytes, _AT_ONCE)
        if last is None:
            return 0
        anchor = self.statement(ANCHOR, audited, last)
        return await audited.database.write(lambda tx: attestations.prune(tx, anchor))

    async def _attest(self, audited: AuditLog, *, everything: bool) -> None:
        async with audited.database.read() as tx:
            chain = await attestations.chain(tx)
            last = await attestations.last_checkpoint(tx)
        covered = _covered(chain, last)
        new = chain.head.sequence - covered.sequence
        if new > 0 and (everything or self._due(new, covered.at)):
            await self._checkpoint(audited, chain.head)
        elif last is not None and last.key != self._signer.fingerprint:
            await self._checkpoint(audited, chain.head)  # a new key vouches for what is there
        await self._file(audited)

    def _due(self, new: int, since: float) -> bool:
        settings = self._settings
        return new >= settings.every_records or self._clock() - since >= settings.every_seconds

    async def _checkpoint(self, audited: AuditLog, head: Head) -> None:
        # What leaves the machine must not know of records that a power cut can still take back.
        await audited.database.sync()
        statement = self.statement(CHECKPOINT, audited, head)
        fields = ("sequence", "key", "hash", "at", "signature")
        checkpoint = Checkpoint(**{name: statement[name] for name in fields})

        async def write(tx: Tx) -> None:
            await attestations.add_checkpoint(tx, checkpoint)

        await audited.database.write(write)
        log.info("audit checkpoint %s", canonical(statement).decode())

    async def _file(self, audited: AuditLog) -> None:
        """Append the checkpoints that the file has not: also those of before a crash."""
        filed = await self.filed(audited)
        async with audited.database.read() as tx:
            through = (await attestations.chain(tx)).head.sequence
            missing = await attestations.checkpoints(tx, filed.sequence, through)
        if missing:
            lines = [canonical(each.statement(audited.name, self.instance)) for each in missing]
            await asyncio.to_thread(self._keeping.append, lines)
            assert self._filed is not None  # noqa: S101 - `filed` read it
            self._filed[audited.name] = Head(missing[-1].sequence, missing[-1].hash)


@dataclasses.dataclass(frozen=True, slots=True)
class _Covered:
    sequence: int
    at: float


def _covered(chain: attestations.Chain, last: Checkpoint | None) -> _Covered:
    """Return up to where a checkpoint or the anchor vouches for the log, and since when."""
    if last is not None:
        return _Covered(last.sequence, last.at)
    if chain.anchor is not None:
        return _Covered(int(chain.anchor["sequence"]), float(chain.anchor["at"]))
    return _Covered(0, 0.0)
