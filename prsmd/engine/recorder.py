"""Writes what happened to a deployment: the event row, the log line and the wake-up of followers.

One sentence, written once, reaches the API, the CLI and the journal unchanged.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator

from prsmd.domain.events import Event, Severity
from prsmd.store import events as event_rows
from prsmd.store.db import Database, Tx

log = logging.getLogger("prsmd.events")


class Recorder:
    """Records events and lets followers wait for new ones."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._arrived = asyncio.Condition()

    async def record(self, *events: Event) -> None:
        """Store the events in one transaction, log them and wake the followers."""

        async def write(tx: Tx) -> None:
            for event in events:
                await event_rows.append(tx, event)

        await self._database.write(write)
        await self.announce(*events)

    async def announce(self, *events: Event) -> None:
        """Log events that another transaction has stored, and wake the followers."""
        for event in events:
            level = logging.WARNING if event.severity is Severity.WARNING else logging.INFO
            log.log(level, event.message, extra=_fields(event))
        async with self._arrived:
            self._arrived.notify_all()

    async def follow(self, deployment_id: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield the deployment's events with a sequence above `after`, for ever, as they come."""
        while True:
            async with self._arrived:
                async with self._database.read() as tx:
                    found = await event_rows.list_for(tx, deployment_id, after, 200)
                if not found:
                    await self._arrived.wait()
            for event in found:
                after = event.sequence
                yield event

    async def changed(self) -> None:
        """Return when the next event of any deployment has been recorded."""
        async with self._arrived:
            await self._arrived.wait()


def _fields(event: Event) -> dict[str, object]:
    return {
        "deployment": event.deployment_id,
        "organization": event.organization,
        "replica": event.replica_id,
        "reason": event.reason,
    }
