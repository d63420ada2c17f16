"""Brings a replica's image here and its container up. Slow, cancellable; owns pull progress."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping

from prsmd.domain.deployment import Revision
from prsmd.domain.errors import ImageUnavailableError, PrsmdError
from prsmd.domain.replica import Replica
from prsmd.runtime import base
from prsmd.store import history, revisions
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True, eq=False)
class _Pull:
    """A pull in progress and how many launches wait for it."""

    progress: base.PullProgress
    waiting: int = 0


class Launcher:
    """Launches replicas. Replicas of one image that start together share one pull."""

    def __init__(self, runtime: base.Runtime, database: Database, instance: str) -> None:
        self._runtime = runtime
        self._database = database
        self._instance = instance
        # By (reference, what is asked of the registry): one tag can mean two contents at a time.
        self._pulls: dict[tuple[str, str], tuple[_Pull, asyncio.Task[base.Image]]] = {}
        self._tasks: set[asyncio.Task[base.Image]] = set()

    def progress(self, image: str) -> base.PullProgress | None:
        """Return how far the pull of an image reference is; None when none is in progress."""
        found = (pull for (reference, _), (pull, _) in self._pulls.items() if reference == image)
        return next((pull.progress for pull in found), None)

    async def prepare(self, organization: str, revision: Revision) -> base.Image:  # noqa: ARG002 - decides whose registry credentials are used, once there are any
        """Bring the revision's image here and pin it, as a launch would; touch nothing else.

        EngineError, ImageUnavailableError or StorageFullError say why not.
        """
        return await self._image(revision)

    async def launch(self, replica: Replica, revision: Revision) -> base.Container:
        """Return the started container. EngineError or ImageUnavailableError say why not."""
        image = await self.prepare(replica.organization, revision)
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
        """Give up the pulls in progress."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _image(self, revision: Revision) -> base.Image:
        """Return the one image that every replica of a revision runs, whatever its tag says now."""
        pinned, reference = revision.image_digest, revision.spec.image
        if pinned is None:
            here = await self._runtime.images.resolve(reference)
            found = here or await self._pull(reference)
            pinned = await self._pin(revision, found.digest)
            if found.digest == pinned:
                return found
        return await self._pinned(pinned, revision)

    async def _pinned(self, pinned: str, revision: Revision) -> base.Image:
        """Return the image with the pinned content, brought here again if it is gone."""
        deployed = await self._runtime.images.resolve(pinned)
        if deployed is not None:
            return deployed
        reference = revision.spec.image
        # What a registry's digest names, any engine can pull; an engine's own image id, none can.
        wanted = pinned if "@" in pinned else reference
        found = await self._runtime.images.resolve(wanted) or await self._pull(reference, wanted)
        if found.digest == pinned:
            return found
        raise ImageUnavailableError(
            f"{reference} is now {found.digest}, but revision {revision.number} was"
            f" deployed as {pinned}, which is no longer here; deploy the new image as an update"
        )

    async def _pull(self, reference: str, pinned: str | None = None) -> base.Image:
        """Wait for the image's pull, started if need be; it ends when nobody waits any more.

        The registry is asked for the reference, or for the digest it was `pinned` to.
        """
        wanted = pinned or reference
        pull, task = self._pulls.get((reference, wanted)) or self._begin_pull(reference, wanted)
        pull.waiting += 1
        try:
            return await asyncio.shield(task)  # one waiter's cancellation is not the others'
        finally:
            pull.waiting -= 1
            if not pull.waiting:
                self._pulls.pop((reference, wanted), None)
                task.cancel()

    def _begin_pull(self, reference: str, wanted: str) -> tuple[_Pull, asyncio.Task[base.Image]]:
        pull = _Pull(base.PullProgress(status="pulling"))
        work = self._pull_once(reference, wanted, pull)
        task = asyncio.create_task(work, name=f"pull:{wanted}")
        self._pulls[reference, wanted] = pull, task
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return pull, task

    def _note_end(self, task: asyncio.Task[base.Image]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # every waiter may have left before it could be told

    async def _pull_once(self, reference: str, wanted: str, pull: _Pull) -> base.Image:
        def note(progress: base.PullProgress) -> None:
            pull.progress = progress

        began = time.monotonic()
        image = await self._runtime.images.pull(wanted, note)
        await self._note_duration(reference, time.monotonic() - began)
        return image

    async def _note_duration(self, reference: str, seconds: float) -> None:
        now = time.time()
        try:
            await self._database.write(
                lambda tx: history.record(tx, reference, "pull", seconds, now)
            )
        except PrsmdError as error:  # the image is here: a forecast that is less good is no harm
            log.warning("duration of the pull of %s not kept: %s", reference, error.message)

    async def _pin(self, revision: Revision, digest: str) -> str:
        """Note what the revision's image is, unless another replica did; return what is noted."""

        async def write(tx: Tx) -> str:
            stored = await revisions.get(tx, revision.deployment_id, revision.number)
            if stored is not None and stored.image_digest is not None:
                return stored.image_digest
            await revisions.set_digest(tx, revision.deployment_id, revision.number, digest)
            return digest

        return await self._database.write(write)

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
