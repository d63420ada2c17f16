"""How long audit records are kept: a task that lets the notary forget what is beyond the limits.

What went is on record itself. Decides nothing about what may go.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import AuditRecord
from prsmd.engine.notary import AuditLog, Notary
from prsmd.store import audit
from prsmd.store.db import Database

log = logging.getLogger(__name__)
_LOOK_SECONDS = 600.0
_OWN_PRINCIPAL = "prsmd"


class Retention:
    """Prunes the logs. `changes` is where it is recorded; `organization` is the appliance's."""

    def __init__(
        self,
        logs: Sequence[AuditLog],
        notary: Notary,
        changes: Database,
        organization: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._logs = logs
        self._notary = notary
        self._changes = changes
        self._organization = organization
        self._clock = clock

    async def run(self) -> None:
        """Prune every ten minutes; for ever."""
        while True:
            try:
                await self.prune()
            except PrsmdError as error:
                log.warning("old audit records not removed: %s", error.message)
            await asyncio.sleep(_LOOK_SECONDS)

    async def prune(self) -> None:
        """Prune every log to its limits."""
        for audited in self._logs:
            gone = 0
            while count := await self._notary.prune(audited):
                gone += count
            if gone:
                await self._record(audited, gone)

    async def _record(self, audited: AuditLog, gone: int) -> None:
        record = AuditRecord(
            at=self._clock(),
            principal=_OWN_PRINCIPAL,
            organization=self._organization,
            action="audit.prune",
            subject=f"audit:{audited.name}",
            outcome="allowed",
            request_id="",
            details={
                "records": gone,
                "keep_seconds": audited.keep_seconds,
                "keep_bytes": audited.keep_bytes,
            },
        )
        await self._changes.write(lambda tx: audit.append(tx, record))
        log.info("%d audit records of %s were pruned", gone, audited.name)
