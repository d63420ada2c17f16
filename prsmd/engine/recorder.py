"""Writes what happened to a deployment: the event row, the log line and the wake-up of followers.

One sentence, written once, reaches the API, the CLI and the journal unchanged.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator

from prsmd.domain.events import Event, Severity
from prsmd.store import deployments
from prsmd.store import events as event_rows
from prsmd.store.db import Database, Tx

log = logging.getLogger("prsmd.events")
_AT_ONCE = 200


class Recorder:
    """Records events and lets followers wait for new ones. No follower holds a recorder back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._arrival = asyncio.Event()

    async def record(self, *events: Event) -> None:
        """Store the events in one transaction, log them and wake the followers."""

        async def write(tx: Tx) -> None:
            for event in events:
                await event_rows.append(tx, event)

        await self._database.write(write)
        self.announce(*events)

    def announce(self, *events: Event) -> None:
        """Log events that another transaction has stored (none: it ended some), wake followers."""
        for event in events:
            level = logging.WARNING if event.severity is Severity.WARNING else logging.INFO
            log.log(level, event.message, extra=_fields(event))
        arrived, self._arrival = self._arrival, asyncio.Event()
        arrived.set()

    def arrival(self) -> asyncio.Event:
        """Return what is set as soon as anything is recorded. Take it first, then look."""
        return self._arrival

    async def follow(self, deployment_id: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield the deployment's events with a sequence above `after`, until it is gone."""
        while True:
            arrival = self.arrival()
            async with self._database.read() as tx:
                found = await event_rows.list_for(tx, deployment_id, after, _AT_ONCE)
                gone = not found and await deployments.get(tx, deployment_id) is None
            for event in found:
                after = event.sequence
                yield event
            if gone:
                return
            if not found:
                await arrival.wait()


def _fields(event: Event) -> dict[str, object]:
    return {
        "deployment": event.deployment_id,
        "organization": event.organization,
        "replica": event.replica_id,
        "reason": event.reason,
    }
