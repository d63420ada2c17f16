"""Brings a replica's image here and its container up. Slow, cancellable; owns pull progress."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping

from prsmd.core.container_size import launch_refusal
from prsmd.domain.deployment import Revision, same_container
from prsmd.domain.errors import ImageUnavailableError, PrsmdError
from prsmd.domain.replica import Replica
from prsmd.engine.provisions import Provisions
from prsmd.engine.stock import Order, Stock
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

    def __init__(
        self,
        runtime: base.Runtime,
        stock: Stock,
        provisions: Provisions,
        database: Database,
        instance: str,
    ) -> None:
        self._runtime = runtime
        self.stock = stock
        self.provisions = provisions
        self._database = database
        self._instance = instance
        # One tag can mean two contents at a time, and each organization has its own logins.
        self._pulls: dict[Order, tuple[_Pull, asyncio.Task[base.Image]]] = {}
        self._tasks: set[asyncio.Task[base.Image]] = set()

    def progress(self, organization: str, image: str) -> base.PullProgress | None:
        """Return how far an organization's pull of an image is; None when none is in progress."""
        wanted = (organization, image)
        found = (p for o, (p, _) in self._pulls.items() if (o.organization, o.reference) == wanted)
        return next((pull.progress for pull in found), None)

    async def prepare(self, organization: str, revision: Revision) -> base.Image:
        """Bring the revision's image here and pin it, as a launch would; touch nothing else.

        It is the one image that every replica of the revision runs, whatever its tag says now.
        EngineError, ImageUnavailableError or StorageFullError say why not: also where the
        operator's rules no longer allow it, or one of its secrets is gone.
        """
        self.provisions.refuse_broken_rules(organization, revision.spec)
        values = await self.provisions.secrets(organization, revision.spec)
        image = await self._image(organization, revision)
        self.provisions.refuse_unsigned(revision.spec.image, {image.digest, image.id})
        _refuse_oversize(image, revision, values)
        return image

    async def _image(self, organization: str, revision: Revision) -> base.Image:
        order = Order(
            organization=organization,
            reference=revision.spec.image,
            wanted=revision.spec.image,
            by=revision.created_by,
        )
        pinned = revision.image_digest
        if pinned is None:
            found, pinned = await self._find(order, revision)
            if found.digest == pinned:
                return found
        return await self._pinned(pinned, order, revision)

    async def launch(self, replica: Replica, revision: Revision) -> base.Container:
        """Return the started container. EngineError or ImageUnavailableError say why not."""
        image = await self.prepare(replica.organization, revision)
        spec = revision.spec
        values = await self.provisions.secrets(replica.organization, spec)
        return await self._runtime.launch(
            base.Launch(
                labels=self._labels(replica, revision),
                image_digest=image.digest,
                placement=replica.placement,
                port=spec.serving.port,
                environment=_environment(replica, revision, values),
                secrets={n: v for n, v in values.items() if not spec.secrets[n].in_environment},
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

    async def _find(self, order: Order, revision: Revision) -> tuple[base.Image, str]:
        """Return what the image's name means here, else to its registry, and what is pinned."""
        async with self.stock.still:  # so that it cannot go before it is pinned
            here = await self.stock.here(order.organization, order.reference)
            if here is not None:
                return here, await self._pin(revision, here.digest)
        pulled = await self._pull(order)
        return pulled, await self._pin(revision, pulled.digest)

    async def _pinned(self, pinned: str, order: Order, revision: Revision) -> base.Image:
        """Return the image with the pinned content, brought here again if it is gone."""
        deployed = await self.stock.resolve_pinned(pinned)
        if deployed is not None:
            return deployed
        # What a registry's digest names, any engine can pull; an engine's own image id, none can.
        wanted = pinned if "@" in pinned else order.reference
        found = await self.stock.here(order.organization, wanted)
        found = found or await self._pull(dataclasses.replace(order, wanted=wanted))
        if found.digest == pinned:
            return found
        raise ImageUnavailableError(
            f"{order.reference} is now {found.digest}, but revision {revision.number} was"
            f" deployed as {pinned}, which is no longer here; deploy the new image as an update"
        )

    async def _pull(self, order: Order) -> base.Image:
        """Wait for the image's pull, started if need be; it ends when nobody waits any more."""
        pull, task = self._pulls.get(order) or self._begin_pull(order)
        pull.waiting += 1
        try:
            return await asyncio.shield(task)  # one waiter's cancellation is not the others'
        finally:
            pull.waiting -= 1
            if not pull.waiting:
                self._pulls.pop(order, None)
                task.cancel()

    def _begin_pull(self, order: Order) -> tuple[_Pull, asyncio.Task[base.Image]]:
        pull = _Pull(base.PullProgress(status="pulling"))
        task = asyncio.create_task(self._pull_once(order, pull), name=f"pull:{order.wanted}")
        self._pulls[order] = pull, task
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return pull, task

    def _note_end(self, task: asyncio.Task[base.Image]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # every waiter may have left before it could be told

    async def _pull_once(self, order: Order, pull: _Pull) -> base.Image:
        def note(progress: base.PullProgress) -> None:
            pull.progress = progress

        began = time.monotonic()
        image = await self.stock.pull(order, note)
        await self._note_duration(order, time.monotonic() - began)
        return image

    async def _note_duration(self, order: Order, seconds: float) -> None:
        whose, reference, now = order.organization, order.reference, time.time()
        try:
            await self._database.write(
                lambda tx: history.record(tx, whose, reference, "pull", seconds, now)
            )
        except PrsmdError as error:  # the image is here: a forecast that is less good is no harm
            log.warning("duration of the pull of %s not kept: %s", reference, error.message)

    async def _pin(self, revision: Revision, digest: str) -> str:
        """Note what the revision's image is, unless another replica did; return what is noted.

        Revisions that changed something in place while it was not known yet run the same.
        """

        async def write(tx: Tx) -> str:
            stored = await revisions.get(tx, revision.deployment_id, revision.number)
            if stored is not None and stored.image_digest is not None:
                return stored.image_digest
            for other in await revisions.list_for(tx, revision.deployment_id):
                if same_container(other, dataclasses.replace(revision, image_digest=None)):
                    await revisions.set_digest(tx, other.deployment_id, other.number, digest)
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


def _refuse_oversize(image: base.Image, revision: Revision, values: Mapping[str, bytes]) -> None:
    """Raise ImageUnavailableError for what the kernel would not start with what the image sets.

    It would be seen as a crash loop, with the kernel's "argument list too long" in the log.
    """
    spec = revision.spec
    plain = {name: value for name, value in values.items() if spec.secrets[name].in_environment}
    variables = {
        **image.environment,
        **spec.environment,
        **{name: value.decode() for name, value in plain.items()},
    }
    texts = [f"{name}={value}" for name, value in variables.items()]
    refusal = launch_refusal(texts, [*spec.command, *spec.args])
    if refusal is not None:
        raise ImageUnavailableError(f"{spec.image} cannot be started so: {refusal}")


def _environment(
    replica: Replica, revision: Revision, values: Mapping[str, bytes]
) -> Mapping[str, str]:
    """Return what the client asked for and what prsmd tells every container about itself."""
    uses = revision.spec.secrets
    return {
        **revision.spec.environment,
        **{name: value.decode() for name, value in values.items() if uses[name].in_environment},
        "PORT": str(revision.spec.serving.port),
        "PRSMD_DEPLOYMENT_ID": replica.deployment_id,
        "PRSMD_REPLICA_ID": replica.id,
    }
