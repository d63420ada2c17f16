"""How long audit records are kept: a task that lets the notary forget what is beyond the limits.

What went is on record itself. Decides nothing about what may go.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence

from prsmd.core.clock_steps import ClockSteps
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import own_record
from prsmd.engine.audit_log import AuditLog
from prsmd.engine.notary import Notary
from prsmd.gateway.meters import steady_seconds
from prsmd.store import audit
from prsmd.store.db import Database

log = logging.getLogger(__name__)
_LOOK_SECONDS = 600.0
_TRUSTED_AFTER_SECONDS = 86400.0  # a clock that is a year ahead must not have evidence forgotten


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
        self._steps = ClockSteps(clock(), steady_seconds())
        self._gone: dict[str, int] = {}  # what is not on record yet, by log

    async def run(self) -> None:
        """Prune every ten minutes; for ever."""
        while True:
            await self.prune(by_age=self._trusts_the_clock())
            await asyncio.sleep(_LOOK_SECONDS)

    async def prune(self, *, by_age: bool = True) -> None:
        """Prune every log to its limits, or (without `by_age`) to its size only.

        One that fails, or is not whole, holds up no other.
        """
        remove = functools.partial(self._remove, by_age=by_age)
        for audited in self._logs:
            for step in (remove, self._record):
                try:
                    await step(audited)
                except PrsmdError as error:
                    words = "old audit records of %s are not removed, or that is not on record: %s"
                    log.error(words, audited.name, error.message)  # noqa: TRY400

    def _trusts_the_clock(self) -> bool:
        now, steady = self._clock(), steady_seconds()
        self._steps.was_set(now, steady)
        return steady - self._steps.steady_since >= _TRUSTED_AFTER_SECONDS

    async def _remove(self, audited: AuditLog, *, by_age: bool) -> None:
        while count := await self._notary.prune(audited, by_age=by_age):
            self._gone[audited.name] = self._gone.get(audited.name, 0) + count

    async def _record(self, audited: AuditLog) -> None:
        gone = self._gone.get(audited.name)
        if not gone:
            return
        details = {
            "records": gone,
            "keep_seconds": audited.keep_seconds,
            "keep_bytes": audited.keep_bytes,
        }
        subject = f"audit:{audited.name}"
        record = own_record(self._clock(), self._organization, "audit.prune", subject, details)
        await self._changes.write(lambda tx: audit.append(tx, record))
        del self._gone[audited.name]
        log.info("%d audit records of %s were pruned", gone, audited.name)
