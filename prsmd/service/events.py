"""What happened to a deployment and why."""

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Mapping

from prsmd.domain.access import Permission
from prsmd.domain.events import Event
from prsmd.engine.recorder import Recorder
from prsmd.service.caller import Caller
from prsmd.service.deployments import find_deployment
from prsmd.store import events
from prsmd.store.db import Database

# What those hear of who borrow a model, and in which words: the owner's speak of replicas, hardware
# and images, and of others who borrow it.
_TO_BORROWERS: Mapping[str, str] = {
    "Deployed": "the model was deployed",
    "Updated": "a new revision was asked for",
    "RollbackRequested": "an earlier revision was asked for",
    "RolledOut": "the new revision serves alone",
    "RolledBack": "the earlier revision serves again",
    "DeleteRequested": "the model is being removed",
}


class Events:
    """Use cases on events."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder

    async def latest(self, caller: Caller, reference: str, limit: int) -> list[Event]:
        """Return the last `limit` events of a deployment that the caller hears of, oldest first."""
        async with self._database.read() as tx:
            found = await find_deployment(tx, caller, reference, Permission.MODELS_READ)
            if not caller.borrows(found.organization):
                return await events.latest(tx, found.id, limit)
            heard = await events.latest(tx, found.id, limit, _TO_BORROWERS)
        return [_to_borrowers(event) for event in heard]

    async def follow(
        self, caller: Caller, reference: str, after: int
    ) -> AsyncGenerator[Event, None]:
        """Yield the events with a sequence above `after`, then new ones as they happen."""
        async with self._database.read() as tx:
            found = await find_deployment(tx, caller, reference, Permission.MODELS_READ)
        borrows = caller.borrows(found.organization)
        async with contextlib.aclosing(self._recorder.follow(found.id, after)) as followed:
            async for event in followed:
                if not borrows:
                    yield event
                elif event.reason in _TO_BORROWERS:
                    yield _to_borrowers(event)


def _to_borrowers(event: Event) -> Event:
    return dataclasses.replace(event, message=_TO_BORROWERS[event.reason], replica_id=None)
