"""Brings a replica's image here and its container up. Slow, cancellable; owns pull progress."""

import asyncio
import time
from collections.abc import Mapping

from prsmd.domain.deployment import Revision
from prsmd.domain.errors import ImageUnavailableError
from prsmd.domain.replica import Replica
from prsmd.runtime import base
from prsmd.store import history, revisions
from prsmd.store.db import Database, Tx


class Launcher:
    """Launches replicas. Replicas of one image that start together share one pull."""

    def __init__(self, runtime: base.Runtime, database: Database, instance: str) -> None:
        self._runtime = runtime
        self._database = database
        self._instance = instance
        self._pulls: dict[str, asyncio.Task[base.Image]] = {}
        self._progress: dict[str, base.PullProgress] = {}

    def progress(self, image: str) -> base.PullProgress | None:
        """Return how far the pull of an image reference is; None when none is in progress."""
        return self._progress.get(image)

    async def launch(self, replica: Replica, revision: Revision) -> base.Container:
        """Return the started container. EngineError or ImageUnavailableError say why not."""
        image = await self._image(revision)
        spec = revision.spec
        return await self._runtime.launch(
            base.Launch(
                labels=self._labels(replica, revision),
                image_digest=image.digest,
                placement=replica.placement,
                port=spec.serving.port,
                environment=_environment(replica, revision),
                security=spec.security,
                command=spec.command,
                args=spec.args,
            )
        )

    async def close(self) -> None:
        """Cancel the pulls in progress."""
        for task in self._pulls.values():
            task.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    async def _image(self, revision: Revision) -> base.Image:
        pinned = revision.image_digest
        found = await self._runtime.images.resolve(pinned or revision.spec.image)
        if found is None:
            found = await self._pull(revision.spec.image)
        if pinned is None:
            await self._pin(revision, found.digest)
        elif found.digest != pinned:
            raise ImageUnavailableError(
                f"{revision.spec.image} is now {found.digest}, but revision {revision.number} was"
                f" deployed as {pinned}, which is no longer here; deploy the new image as an update"
            )
        return found

    async def _pull(self, reference: str) -> base.Image:
        task = self._pulls.get(reference)
        if task is None:
            task = asyncio.create_task(self._pull_once(reference), name=f"pull:{reference}")
            self._pulls[reference] = task
            task.add_done_callback(lambda done: self._pulled(reference, done))
        return await asyncio.shield(task)  # one waiter's cancellation is not the others'

    def _pulled(self, reference: str, task: asyncio.Task[base.Image]) -> None:
        self._pulls.pop(reference, None)
        if not task.cancelled():
            task.exception()  # every waiter may have left; they were told if they had not

    async def _pull_once(self, reference: str) -> base.Image:
        def note(progress: base.PullProgress) -> None:
            self._progress[reference] = progress

        note(base.PullProgress(status="pulling"))
        began = time.time()
        try:
            image = await self._runtime.images.pull(reference, note)
        finally:
            self._progress.pop(reference, None)
        await self._note_duration(reference, began)
        return image

    async def _note_duration(self, reference: str, began: float) -> None:
        now = time.time()
        await self._database.write(
            lambda tx: history.record(tx, reference, "pull", now - began, now)
        )

    async def _pin(self, revision: Revision, digest: str) -> None:
        async def write(tx: Tx) -> None:
            await revisions.set_digest(tx, revision.deployment_id, revision.number, digest)

        await self._database.write(write)

    def _labels(self, replica: Replica, revision: Revision) -> base.Labels:
        return base.Labels(
            instance=self._instance,
            organization=replica.organization,
            deployment=replica.deployment_id,
            revision=revision.number,
            slot=replica.slot,
            replica=replica.id,
            spec_hash=revision.spec_hash,
        )


def _environment(replica: Replica, revision: Revision) -> Mapping[str, str]:
    """Return what the client asked for and what prsmd tells every container about itself."""
    return {
        **revision.spec.environment,
        "PORT": str(revision.spec.serving.port),
        "PRSMD_DEPLOYMENT_ID": replica.deployment_id,
        "PRSMD_REPLICA_ID": replica.id,
        "PRSMD_MODEL_VERSION": revision.spec.metadata.version,
    }
