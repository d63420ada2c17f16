"""Owns which images are here: brings them, keeps room for them, collects what nobody needs.

What is brought is recorded before it can be used, so that an image which one organization may read
is never taken for everyone's, whenever the daemon ends. Which images go, and who may run what is
here, is decided in `core/collect.py` and `domain/image.py`; this carries it out.
"""

import asyncio
import dataclasses
import functools
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from prsmd.core.collect import KeptRevision, Users, Verdict, collect
from prsmd.core.stalls import DeadlineJudge
from prsmd.domain.errors import (
    ConflictError,
    EngineError,
    ImageUnavailableError,
    NoRoomForImageError,
    PrsmdError,
    ResourceQuotaExceededError,
)
from prsmd.domain.events import own_record
from prsmd.domain.image import NOBODY, Brought, ImageOrigin, Login, familiar, may_run, registry_of
from prsmd.engine.image_quota import ImageQuota, note_within_quota
from prsmd.engine.image_survey import Survey, contents_of, kept_of
from prsmd.engine.pulling import Note, Puller
from prsmd.runtime import archive, base
from prsmd.store import audit, images, registries
from prsmd.store.db import Database, Tx
from prsmd.store.sealing import SealBrokenError, Sealer

log = logging.getLogger(__name__)
_UNPACKED_RATIO = 4  # weights hardly compress; what unpacks to more than so many times is a bomb


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StockSettings:
    """How many revisions keep their images, how much room stays free, how often a pull is tried.

    `retry_seconds` is half the first pause between two attempts; pauses double up to a minute.
    `folder` tells the disk that counts where the engine's own cannot be seen.
    """

    folder: Path
    keep_revisions: int = 3
    min_free_bytes: int = 2 << 30
    max_archive_bytes: int = 64 << 30
    pull_attempts: int = 5
    retry_seconds: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A pull for an organization: `wanted` is the reference, or the digest it is pinned to."""

    organization: str
    reference: str
    wanted: str
    by: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An image that was loaded under one name, and the revisions that ran what it meant before."""

    image: base.Image
    replaced: base.Image | None
    still_run_by: tuple[KeptRevision, ...]


class Stock:
    """The images of this appliance. While `still` is held, nothing is collected."""

    def __init__(
        self,
        runtime: base.Runtime,
        database: Database,
        sealer: Sealer,
        settings: StockSettings,
        clock: Callable[[], float] = time.time,
        judge: DeadlineJudge | None = None,
    ) -> None:
        self._images = runtime.images
        self._database = database
        self._sealer = sealer
        self._settings = settings
        self._now = clock
        self.still = asyncio.Lock()
        self._loading = asyncio.Lock()  # one archive at a time, so that room is counted once
        self._puller = Puller(self._images, settings.pull_attempts, settings.retry_seconds, judge)
        self._quota = ImageQuota(
            self._images, database, functools.partial(self.survey, pulled_only=True), self.still
        )
        self._under_way: set[tuple[str, str]] = set()

    def apply(self, settings: StockSettings) -> None:
        """Go by these from now on; a pull that is under way goes on as it began."""
        self._settings = settings
        self._puller.attempts = settings.pull_attempts

    @property
    def settings(self) -> StockSettings:
        """The settings it works with."""
        return self._settings

    def require_loading(self) -> None:
        """Return where archives can be loaded at all. ConflictError where not."""
        if not self._images.loads:
            raise ConflictError(
                "The embedded runtime loads no image archives: put a bundle into one of the folders"
                " of runtime.bundle_dirs, or use a container engine."
            )

    async def here(self, organization: str, reference: str) -> base.Image | None:
        """Return the image if it is here and the organization may run it unasked."""
        image = await self._images.resolve(reference)
        if image is None:
            return None
        await self._settle()
        async with self._database.read() as tx:
            known = await images.of_content(tx, image.id)
            pending = await images.of_content(tx, "")
        if not known and any(one.reference == familiar(reference) for one in pending):
            return None  # it is being brought, and not yet known for whom
        return image if may_run(organization, known) else None

    async def resolve_pinned(self, digest: str) -> base.Image | None:
        """Return the image that a revision was pinned to: its organization was let in then."""
        return await self._images.resolve(digest)

    async def remote_digest(self, organization: str, reference: str) -> str | None:
        """Return what a deployment of this image would be pinned to, without bringing anything."""
        image = await self.here(organization, reference)
        if image is not None:
            return image.digest
        login = await self._login(organization, reference)
        return await self._images.remote_digest(reference, login)

    async def pull(self, order: Order, note: Note) -> base.Image:
        """Bring an image here, trying again while that can help.

        Raises:
            NoRoomForImageError: the disk is too full, even after what nobody needs was removed.
            ImageUnavailableError: the registry has no such image, refuses it, or breaks off; or
                the organization's quota has no room for it.
        """
        login = await self._login(order.organization, order.reference)
        name = familiar(order.wanted)
        before = await self._images.resolve(order.wanted)
        pending = Brought(
            id="",
            reference=name,
            digest="" if before is None else before.id,
            organization=order.organization,
            origin=ImageOrigin.PULLED,
            private=login is not None,
            by=order.by,
            at=self._now(),
        )
        await self._database.write(lambda tx: images.note(tx, pending))
        self._under_way.add((order.organization, name))
        try:
            room = self._quota.room_for(order.organization, self.make_room)
            image = await self._puller.pull(order.wanted, login, note, room)
            await self._confirm(order, login, image)
            arrived = dataclasses.replace(
                pending,
                id=image.id,
                digest=image.digest,
                at=self._now(),
                size_bytes=image.size_bytes,
            )
            await self._quota.arrive(pending, arrived)
        except PrsmdError:
            await self._database.write(lambda tx: images.settle(tx, pending, None))
            raise
        else:
            return image
        finally:  # one that was cancelled may be here all the same: it is settled when looked for
            self._under_way.discard((order.organization, name))

    async def load(
        self,
        path: Path,
        name: str | None,
        by: Brought,
        also: Callable[[Tx, Sequence[Loaded]], Awaitable[None]],
    ) -> list[Loaded]:
        """Load the archive at `path`; `name` is given to its only image.

        `by` says who does it, in its organization and principal; `also` is written with the record.

        Raises:
            InvalidInputError: the archive is not as it should be; the engine saw nothing of it.
            NoRoomForImageError: its images do not fit on the disk.
            ConflictError, EngineError: the engine takes no archives, or did not take this one.
        """
        self.require_loading()
        most = _UNPACKED_RATIO * self._settings.max_archive_bytes
        verified = await asyncio.to_thread(archive.verify, path, most, name)
        names = [name for image in verified.images for name in image.references]
        async with self._loading:
            await self._quota.refuse_beyond(by.organization, verified.unpacked_bytes)
            await self.make_room("load the archive", verified.unpacked_bytes + verified.tar_bytes())
            before = {name: await self._images.resolve(name) for name in names}
            users = Users((await self.survey()).uses)
            found = await self._images.load(verified, lambda _: None)
        loaded = [_loaded(image, before.get(image.reference), users) for image in found]

        async def write(tx: Tx) -> None:
            await note_within_quota(tx, [_noted(by, image, before) for image in found])
            await also(tx, loaded)

        try:
            await self._database.write(write)
        except ResourceQuotaExceededError:
            kept = {image.id for image in before.values() if image is not None}
            await self._quota.take_away([_noted(by, i, before) for i in found if i.id not in kept])
            raise
        return loaded

    async def survey(
        self, keep_revisions: int | None = None, *, pulled_only: bool = False
    ) -> Survey:
        """Look at every image and decide which may go, in a thread."""
        keep = self._settings.keep_revisions if keep_revisions is None else keep_revisions
        await self._settle()
        found = await self._images.list()
        async with self._database.read() as tx:
            brought = await images.list_all(tx)
            kept, uses = await kept_of(tx, keep)
        verdicts = await asyncio.to_thread(
            lambda: collect(contents_of(found), brought, kept, pulled_only=pulled_only)
        )
        return Survey(images=found, brought=brought, uses=uses, kept=kept, verdicts=verdicts)

    async def collect(self, keep_revisions: int, *, pulled_only: bool = False) -> list[Verdict]:
        """Remove what may go; return every verdict, with what the engine refused as reason."""
        async with self.still:
            survey = await self.survey(keep_revisions, pulled_only=pulled_only)
            verdicts = [await self._remove(verdict) for verdict in survey.verdicts]
            here = {verdict.content.id for verdict in verdicts if not verdict.goes}
            gone = {one.id for one in survey.brought if one.id} - here
            await self._database.write(lambda tx: images.forget(tx, gone))
        return verdicts

    async def make_room(self, what: str, bytes_: int = 0) -> None:
        """Return if so many bytes fit and enough stays free, after collecting what nobody needs.

        Raises:
            NoRoomForImageError: they do not fit; says how much is free and needed.
        """
        needed = bytes_ + self._settings.min_free_bytes
        if await self.free_bytes() >= needed:
            return
        verdicts = await self.collect(self._settings.keep_revisions, pulled_only=True)
        removed = [min(verdict.content.names) for verdict in verdicts if verdict.goes]
        if removed:
            log.info("removed images, for the disk is short: %s", ", ".join(removed))
            details = {"reason": "the disk is short", "removed": removed}
            record = own_record(self._now(), "", "images.prune", "images", details)
            await self._database.write(lambda tx: audit.append(tx, record))
        free = await self.free_bytes()
        if free < needed:
            raise NoRoomForImageError(
                f"{what}: {_size(free)} are free where images are kept and {_size(needed)} are"
                " needed; nothing was fetched. Make room: `prsmctl image prune --dry-run` shows"
                " what can go.",
                free_bytes=free,
                needed_bytes=needed,
            )

    async def note_sizes(self) -> None:
        """Note how large the images are that an earlier release brought here, where it can."""
        try:
            await self._quota.note_sizes()
        except PrsmdError as error:
            log.error("sizes of images not noted before the next start: %s", error.message)  # noqa: TRY400

    async def free_bytes(self) -> int:
        """Return the bytes left for images: of the engine's disk, else of the state folder's."""
        free = await self._images.free_bytes()
        return shutil.disk_usage(self._settings.folder).free if free is None else free

    async def _login(self, organization: str, reference: str) -> Login | None:
        server = registry_of(reference)
        try:
            async with self._database.read() as tx:
                return await registries.login(tx, organization, server, self._sealer)
        except SealBrokenError as error:
            raise ImageUnavailableError(f"pull {reference}: {error.message}") from error

    async def _confirm(self, order: Order, login: Login | None, image: base.Image) -> None:
        """Ask the registry for a digest that others may have brought meanwhile, or before.

        An engine that has a digest takes its own word for it, and asks no registry.
        """
        if "@" not in order.wanted:
            return
        async with self._database.read() as tx:
            known = await images.of_content(tx, image.id)
        alone = all(organization == order.organization for organization, _ in self._under_way)
        if alone and may_run(order.organization, known):
            return
        if await self._images.remote_digest(order.wanted, login) is None:
            raise ImageUnavailableError(
                f"pull {order.wanted}: the registry does not let {order.organization} read this"
                " image, or does not answer: check the name, and `prsmctl registry list`"
            )

    async def _settle(self) -> None:
        """Finish the records of pulls that ended unseen: the daemon, or who waited, had gone.

        What such a pull brought is nobody's, until a registry lets someone have it: that it was
        begun does not show that it was allowed.
        """
        async with self._database.read() as tx:
            left = await images.of_content(tx, "")
        for pending in left:
            if (pending.organization, pending.reference) in self._under_way:
                continue
            image = await self._images.resolve(pending.reference)
            await self._database.write(functools.partial(_end_unseen, pending=pending, image=image))

    async def _remove(self, verdict: Verdict) -> Verdict:
        if not verdict.goes:
            return verdict
        try:
            await self._images.remove(verdict.content.id)
        except EngineError as error:
            return dataclasses.replace(verdict, kept_for=error.message)
        return verdict


async def _end_unseen(tx: Tx, pending: Brought, image: base.Image | None) -> None:
    """Settle a record whose pull nobody saw end; `image` is what its name means now."""
    arrived = None
    if (
        image is not None
        and image.id != pending.digest
        and not await images.of_content(tx, image.id)
    ):
        arrived = dataclasses.replace(
            pending,
            id=image.id,
            digest=image.digest,
            organization=NOBODY,
            private=True,
            size_bytes=image.size_bytes,
        )
    await images.settle(tx, pending, arrived)


def _noted(by: Brought, image: base.Image, before: Mapping[str, base.Image | None]) -> Brought:
    """Return the record of an image that was loaded."""
    reference = image.reference if image.reference in before else image.id
    return dataclasses.replace(
        by, id=image.id, reference=reference, digest=image.digest, size_bytes=image.size_bytes
    )


def _loaded(image: base.Image, before: base.Image | None, users: Users) -> Loaded:
    """Return what a load did to one name."""
    if before is None or before.id == image.id:
        return Loaded(image=image, replaced=None, still_run_by=())
    former = {before.id, before.digest}
    return Loaded(image=image, replaced=before, still_run_by=users.of(former))


def _size(bytes_: int) -> str:
    return f"{bytes_ / (1 << 30):.1f} GiB" if bytes_ >= 1 << 30 else f"{bytes_ / 1e6:.0f} MB"
