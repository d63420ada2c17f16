"""The audit logs for those who may read them: query, follow, prove, hand over.

An organization's auditors see its records only; that of others' there were some, and how many, an
export tells them (docs/decisions/0017-audit-chain.md).
"""

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Sequence

from prsmd.core.chain import Head, Verdict
from prsmd.domain.access import Permission
from prsmd.domain.errors import InvalidInputError, PermissionDeniedError
from prsmd.domain.events import AuditFilter, AuditRecord
from prsmd.engine.audit_log import AuditLog
from prsmd.engine.fan_out import FanOut, FanOuts
from prsmd.gateway.tape import Notes
from prsmd.service.caller import Caller, require_own
from prsmd.service.proof import Prover
from prsmd.store import attestations, audit, audit_query

COUNTED = audit_query.COUNTED
_FOLLOW_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How the recording does: how many inferences wait for it, and how many had no room.

    `signing` False: a log contradicts what was signed before, or its checkpoints cannot be kept.
    """

    writable: bool
    signing: bool
    waiting: int
    lost: int


class Audit:
    """Use cases on the audit logs. `public_keys` gives those that count, as PEM, newest first.

    `notes` are the inferences that are not on record yet (None: they are not recorded).
    """

    def __init__(
        self,
        logs: Sequence[AuditLog],
        prover: Prover,
        public_keys: Callable[[], bytes],
        notes: Notes | None = None,
    ) -> None:
        self._logs = {audited.name: audited for audited in logs}
        self._streams = FanOuts(self._stream)
        self._prover = prover
        self._public_keys = public_keys
        self._notes = notes

    def backlog(self) -> Backlog:
        """Return how the recording of inferences does."""
        writable = all(audited.database.writable for audited in self._logs.values())
        notes = self._notes
        return Backlog(
            writable=writable,
            signing=self._prover.signing,
            waiting=0 if notes is None else len(notes),
            lost=0 if notes is None else notes.lost,
        )

    def require(self, caller: Caller, log: str) -> None:
        """Refuse who may not read the audit, and a log that there is not."""
        self._log(caller, log)

    async def page(
        self, caller: Caller, log: str, wanted: AuditFilter, limit: int, offset: int
    ) -> tuple[list[AuditRecord], int]:
        """Return records, newest first, and how many there are."""
        audited, own = self._log(caller, log), _own(caller, wanted)
        if own is None:
            return [], 0
        async with audited.database.read() as tx:
            return await audit.page(tx, own, limit, offset, audited.table)

    async def follow(
        self, caller: Caller, log: str, wanted: AuditFilter, after: int | None
    ) -> AsyncGenerator[AuditRecord, None]:
        """Yield records after this one (None: from now on), as they come; looked for every second.

        They are looked for once for all who follow a log. `InvalidInputError` and denials come
        before the first record.
        """
        audited, own = self._log(caller, log), _own(caller, wanted)

        async def catch_up(sequence: int, limit: int) -> list[AuditRecord]:
            if own is None:
                return []
            async with audited.database.read() as tx:
                return await audit.after(tx, sequence, limit, own, audited.table)

        stream = self._streams.follow(audited.name, after, catch_up)
        async with contextlib.aclosing(stream) as followed:
            async for records in followed:
                for record in records:
                    if own is not None and audit_query.matches(own, record):
                        yield record

    async def verify(self, caller: Caller, log: str, kept: Head | None = None) -> Verdict:
        """Return whether the whole log is as it was written, and the first record that is not.

        `kept` is a place of it of which a copy was kept elsewhere: the log must have it.
        """
        return await self._prover.verify(self._log(caller, log), kept)

    def export(
        self, caller: Caller, log: str, organization: str | None, since: float | None
    ) -> AsyncGenerator[bytes, None]:
        """Return the lines of an export; an organization's has others' records as digests."""
        audited = self._log(caller, log)
        if caller.scope is not None and organization not in {None, caller.scope}:
            raise PermissionDeniedError(
                "Only the appliance's administrators export the audit of other organizations.",
                required_permissions=[Permission.AUDIT_READ.value],
                current_permissions=sorted(caller.principal.permissions),
            )
        return self._prover.export(audited, organization or caller.scope, since)

    def public_keys(self, caller: Caller) -> bytes:
        """Return the keys that an export is verified with."""
        require_own(caller, Permission.AUDIT_READ)
        return self._public_keys()

    def _stream(self, log: str) -> FanOut[AuditRecord]:
        audited = self._logs[log]

        async def read(after: int, limit: int) -> list[AuditRecord]:
            async with audited.database.read() as tx:
                return await audit.after(tx, after, limit, None, audited.table)

        async def start(_limit: int) -> tuple[int, list[AuditRecord]]:
            async with audited.database.read() as tx:
                return (await attestations.chain(tx, audited.table)).head.sequence, []

        return FanOut(f"audit:{log}", read, start, _FOLLOW_SECONDS)

    def _log(self, caller: Caller, name: str) -> AuditLog:
        require_own(caller, Permission.AUDIT_READ)
        audited = self._logs.get(name)
        if audited is None:
            known = ", ".join(sorted(self._logs))
            raise InvalidInputError.field("log", f"must be one of {known}", name[:50])
        return audited


def _own(caller: Caller, wanted: AuditFilter) -> AuditFilter | None:
    """Return the filter within what the caller sees; None: nothing of it."""
    if caller.scope is None:
        return wanted
    if wanted.organization not in {None, caller.scope}:
        return None
    return dataclasses.replace(wanted, organization=caller.scope)
