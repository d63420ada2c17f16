"""Writes how deployments move on: rollouts, what is good, gradual scaling. Decides nothing.

What was decided upon is compared with what is stored in the same transaction: a person who paused,
aborted or updated in between wins.
"""

import dataclasses
import logging
import time
from collections.abc import Callable

from prsmd.core import plan as plans
from prsmd.domain.errors import ImageUnavailableError, NotFoundError, StorageFullError
from prsmd.domain.events import AuditRecord, Event, Severity, own_record
from prsmd.domain.rollout import Rollout, RolloutPhase
from prsmd.engine.launcher import Launcher
from prsmd.engine.recorder import Recorder
from prsmd.store import audit, deployments, events, revisions, rollouts
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)


class Progress:
    """Moves rollouts and deployments on. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        *,
        database: Database,
        recorder: Recorder,
        launcher: Launcher,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._recorder = recorder
        self._launcher = launcher
        self._now = clock

    async def prepare(self, action: plans.Prepare) -> None:
        """Bring the image of a rollout here, and note that, or why it cannot be had.

        An engine that does not answer says nothing about the image: that is raised, to try again.
        """
        rollout = action.rollout
        try:
            image = await self._launcher.prepare(await self._organization(rollout), action.revision)
        except (ImageUnavailableError, StorageFullError) as error:
            await self._note(rollout, trouble=str(error))
        else:
            log.info(
                "image %s is here as %s", image.reference, image.digest, extra=_fields(rollout)
            )
            await self._note(rollout, prepared=True)

    async def advance(self, action: plans.Advance) -> None:
        """Write a rollout's next state, unless it has changed since it was decided upon."""
        before, after = action.before, action.after

        async def write(tx: Tx) -> Event | None:
            deployment = await deployments.get(tx, before.deployment_id)
            if deployment is None or not await rollouts.replace(tx, before, after):
                return None
            if after.phase is RolloutPhase.COMPLETED:
                await deployments.set_stable(tx, deployment.id, deployment.revision)
                await revisions.note_good(tx, deployment.id, deployment.revision, self._now())
            elif after.phase is RolloutPhase.ROLLED_BACK:
                await deployments.set_revision(tx, deployment.id, after.from_revision, self._now())
                await audit.append(tx, self._rolled_back(after, deployment.organization))
            event = self._event(deployment.organization, action)
            await events.append(tx, event)
            return event

        event = await self._database.write(write)
        if event is not None:
            self._recorder.announce(event)

    async def note_good(self, action: plans.NoteGood) -> None:
        """Note the revision that a later rollout goes back to."""

        async def write(tx: Tx) -> None:
            deployment = await deployments.get(tx, action.deployment_id)
            if deployment is not None and deployment.revision == action.revision:
                await deployments.set_stable(tx, action.deployment_id, action.revision)
                await revisions.note_good(tx, action.deployment_id, action.revision, self._now())

        await self._database.write(write)

    async def step(self, action: plans.ScaleStep) -> None:
        """Let gradual scaling go to its next step."""

        async def write(tx: Tx) -> Event | None:
            deployment = await deployments.get(tx, action.deployment_id)
            if deployment is None:
                return None
            if not await deployments.set_gradual_level(tx, action.deployment_id, action.replicas):
                return None
            event = Event(
                deployment_id=deployment.id,
                organization=deployment.organization,
                reason="ScaleStep",
                message=action.reason,
                at=self._now(),
            )
            await events.append(tx, event)
            return event

        event = await self._database.write(write)
        if event is not None:
            self._recorder.announce(event)

    async def _organization(self, rollout: Rollout) -> str:
        async with self._database.read() as tx:
            deployment = await deployments.get(tx, rollout.deployment_id)
        if deployment is None:
            raise NotFoundError(f"deployment {rollout.deployment_id} is gone")
        return deployment.organization

    async def _note(
        self, rollout: Rollout, *, prepared: bool = False, trouble: str | None = None
    ) -> None:
        """Note what became of the preparation; a person may have paused the rollout meanwhile."""

        async def write(tx: Tx) -> None:
            stored = await rollouts.get(tx, rollout.deployment_id, rollout.number)
            if stored is not None and stored.phase is RolloutPhase.PREPARING:
                after = dataclasses.replace(stored, prepared=prepared, trouble=trouble)
                await rollouts.replace(tx, stored, after)

        await self._database.write(write)

    def _rolled_back(self, rollout: Rollout, organization: str) -> AuditRecord:
        details = {
            "from_revision": rollout.to_revision,
            "to_revision": rollout.from_revision,
            "reason": rollout.outcome,
        }
        return own_record(
            self._now(), organization, "models.rollback", rollout.deployment_id, details
        )

    def _event(self, organization: str, action: plans.Advance) -> Event:
        bad = action.after.phase is RolloutPhase.ROLLED_BACK
        return Event(
            deployment_id=action.before.deployment_id,
            organization=organization,
            reason=action.reason,
            message=action.message,
            severity=Severity.WARNING if bad else Severity.NORMAL,
            at=self._now(),
        )


def _fields(rollout: Rollout) -> dict[str, str]:
    return {"deployment": rollout.deployment_id}
