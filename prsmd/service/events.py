"""What happened to a deployment and why."""

import contextlib
from collections.abc import AsyncGenerator

from prsmd.domain.access import Permission
from prsmd.domain.events import Event
from prsmd.engine.recorder import Recorder
from prsmd.service.caller import Caller
from prsmd.service.deployments import find_deployment
from prsmd.store import events
from prsmd.store.db import Database


class Events:
    """Use cases on events."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder

    async def latest(self, caller: Caller, reference: str, limit: int) -> list[Event]:
        """Return the last `limit` events of a deployment, oldest first."""
        async with self._database.read() as tx:
            found = await find_deployment(tx, caller, reference, Permission.MODELS_READ)
            return await events.latest(tx, found.id, limit)

    async def follow(
        self, caller: Caller, reference: str, after: int
    ) -> AsyncGenerator[Event, None]:
        """Yield the events with a sequence above `after`, then new ones as they happen."""
        async with self._database.read() as tx:
            found = await find_deployment(tx, caller, reference, Permission.MODELS_READ)
        async with contextlib.aclosing(self._recorder.follow(found.id, after)) as followed:
            async for event in followed:
                yield event
