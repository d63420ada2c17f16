"""Writes what happened to a deployment: the event row, the log line and the wake-up of followers.

One sentence, written once, reaches the API, the CLI and the journal unchanged.
"""

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncGenerator

from prsmd.domain.events import Event, Severity
from prsmd.domain.truncation import truncated
from prsmd.engine.fan_out import FanOut, FanOuts
from prsmd.store import deployments
from prsmd.store import events as event_rows
from prsmd.store.db import Database, Tx

log = logging.getLogger("prsmd.events")


class Recorder:
    """Records events and lets followers wait for new ones. No follower holds a recorder back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._streams = FanOuts(self._stream)
        self._changed: weakref.WeakValueDictionary[str, asyncio.Event] = (
            weakref.WeakValueDictionary()
        )

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
            log.log(level, truncated(event.message), extra=_fields(event))
        if not events:
            self._streams.look()
        for deployment_id in {event.deployment_id for event in events} or set(self._changed):
            self._streams.look(deployment_id)
            changed = self._changed.pop(deployment_id, None)
            if changed is not None:
                changed.set()

    def changed(self, deployment_id: str) -> asyncio.Event:
        """Return what is set when anything of a deployment is recorded. Take it, then look."""
        changed = self._changed.get(deployment_id)
        if changed is None:
            changed = self._changed[deployment_id] = asyncio.Event()
        return changed

    async def follow(self, deployment_id: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield the deployment's events with a sequence above `after`, until it is gone.

        They are read once for all who follow them.
        """
        async with contextlib.aclosing(self._streams.follow(deployment_id, after)) as followed:
            async for events in followed:
                for event in events:
                    yield event

    def _stream(self, deployment_id: str) -> FanOut[Event]:
        async def read(after: int, limit: int) -> list[Event] | None:
            async with self._database.read() as tx:
                found = await event_rows.list_for(tx, deployment_id, after, limit)
                gone = not found and await deployments.get(tx, deployment_id) is None
            return None if gone else found

        async def start(limit: int) -> tuple[int, list[Event]]:
            async with self._database.read() as tx:
                found = await event_rows.latest(tx, deployment_id, limit)
            return (found[0].sequence - 1 if len(found) == limit else 0), found

        return FanOut(deployment_id, read, start)


def _fields(event: Event) -> dict[str, object]:
    return {
        "deployment": event.deployment_id,
        "organization": event.organization,
        "replica": event.replica_id,
        "reason": event.reason,
    }
