"""Holds organizations to how many bytes of images they may have brought here.

What counts for an organization is each content that it had pulled or loaded, once and whole,
whoever else has it too: that its layers may be shared tells of others. What none of its revisions
needs any more is given back before anything is refused.
"""

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence

from prsmd.core.collect import KeptRevision, Verdict
from prsmd.core.grouping import grouped
from prsmd.domain.errors import (
    EngineError,
    ImageUnavailableError,
    ResourceQuotaExceededError,
)
from prsmd.domain.image import NOBODY, Brought, ImageOrigin
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.image_survey import Survey
from prsmd.engine.pulling import MakeRoom
from prsmd.engine.quota_ledger import refuse_more
from prsmd.runtime.base import Images
from prsmd.store import images
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What an organization gives back: contents that go, and contents that only others need."""

    removed: tuple[str, ...]
    forgotten: tuple[str, ...]


class ImageQuota:
    """Admits images. While `still` is held, nothing is collected by anybody else."""

    def __init__(
        self,
        engine: Images,
        database: Database,
        survey: Callable[[], Awaitable[Survey]],
        still: asyncio.Lock,
    ) -> None:
        self._engine = engine
        self._database = database
        self._survey = survey
        self._still = still

    async def refuse_beyond(self, organization: str, size_bytes: int) -> None:
        """Return if so many bytes more fit: at least one, for an image has some.

        Raises:
            ResourceQuotaExceededError: they do not, also after what can be was given back.
        """
        try:
            await self._ask(organization, size_bytes)
        except ResourceQuotaExceededError:
            await self._give_back(organization)
            await self._ask(organization, size_bytes)

    def room_for(self, organization: str, make_room: MakeRoom) -> MakeRoom:
        """Return what a pull asks for room: of the organization's quota, then of the disk."""

        async def room(what: str, size_bytes: int) -> None:
            try:
                await self.refuse_beyond(organization, size_bytes)
            except ResourceQuotaExceededError as error:
                raise _not_pulled(what, error) from error
            await make_room(what, size_bytes)

        return room

    async def arrive(self, pending: Brought, arrived: Brought) -> None:
        """Settle a pull that ended well.

        Raises:
            ImageUnavailableError: what came is beyond the organization's quota; it was removed.
        """

        async def write(tx: Tx) -> None:
            await images.settle(tx, pending, None)
            await note_within_quota(tx, [arrived])

        try:
            await self._database.write(write)
        except ResourceQuotaExceededError as error:
            await self.take_away([] if arrived.id == pending.digest else [arrived])
            raise _not_pulled(f"pull {pending.reference}", error) from error

    async def take_away(self, refused: Sequence[Brought]) -> None:
        """Remove contents that were just brought and refused, unless they are known of before.

        One that the engine does not remove is nobody's: it must not become everyone's.
        """
        for one in refused:
            nobodys = dataclasses.replace(one, organization=NOBODY, private=True)
            if not await self._database.write(functools.partial(_note_unknown, brought=nobodys)):
                continue
            try:
                await self._engine.remove(one.id)
            except EngineError as error:
                log.warning("image %s is beyond a quota and stays: %s", one.id, error.message)
            else:
                await self._database.write(functools.partial(images.forget, image_ids=[one.id]))

    async def note_sizes(self) -> None:
        """Note how large the images are that an earlier release brought here."""
        async with self._database.read() as tx:
            unknown = {one.id for one in await images.list_all(tx) if one.id and not one.size_bytes}
        if unknown:
            found = await self._engine.list()
            sizes = {image.id: image.size_bytes for image in found if image.id in unknown}
            if not sizes:
                return
            await self._database.write(functools.partial(images.set_sizes, sizes=sizes))

    async def _ask(self, organization: str, size_bytes: int) -> None:
        async with self._database.read() as tx:
            await refuse_more(tx, organization, {Dimension.IMAGE_BYTES: max(1, size_bytes)})

    async def _give_back(self, organization: str) -> None:
        """Let go of the images that an organization had pulled and does not need any more."""
        async with self._still:
            survey = await self._survey()
            given = await asyncio.to_thread(
                given_back, organization, survey.brought, survey.kept, survey.verdicts
            )
            gone = [id_ for id_ in given.removed if await self._removed(id_)]

            async def write(tx: Tx) -> None:
                await images.forget_of(tx, organization, given.forgotten)
                await images.forget(tx, gone)

            await self._database.write(write)

    async def _removed(self, image_id: str) -> bool:
        try:
            await self._engine.remove(image_id)
        except EngineError as error:
            log.info("image %s is not needed and stays: %s", image_id, error.message)
            return False
        return True


def _not_pulled(what: str, error: ResourceQuotaExceededError) -> ImageUnavailableError:
    return ImageUnavailableError(f"{what}: {error.message}", **error.details)


async def _note_unknown(tx: Tx, brought: Brought) -> bool:
    """Keep the record of a content that nothing is known of; return whether that is so."""
    if await images.of_content(tx, brought.id):
        return False
    await images.note(tx, brought)
    return True


async def note_within_quota(tx: Tx, brought: Sequence[Brought]) -> None:
    """Keep that images were brought. ResourceQuotaExceededError where they are too large."""
    for one in brought:
        known = await images.of_content(tx, one.id)
        if not any(each.organization == one.organization for each in known):
            more = {Dimension.IMAGE_BYTES: one.size_bytes}
            await refuse_more(tx, one.organization, more)
        await images.note(tx, one)


def given_back(
    organization: str,
    brought: Sequence[Brought],
    kept: Sequence[KeptRevision],
    verdicts: Sequence[Verdict],
) -> Given:
    """Return what an organization can give back of what it had pulled; `kept` need theirs.

    A content that nobody needs goes. One that others have brought too only counts no more for it;
    one that it alone brought stays its own while it is here, so that it never is everyone's.
    """
    names = {name for use in kept if use.organization == organization for name in use.names}
    here = {verdict.content.id: verdict for verdict in verdicts}
    removed, forgotten = [], []
    for id_, known in sorted(grouped(brought, lambda one: one.id).items()):
        own = [one for one in known if one.organization == organization]
        verdict = here.get(id_)
        if not own or not id_:
            continue
        if any(one.origin is ImageOrigin.LOADED for one in own):
            continue  # for everyone: administrators prune it
        if verdict is None:
            forgotten.append(id_)
        elif names & verdict.content.names:
            continue
        elif len(own) < len(known):
            forgotten.append(id_)
        elif verdict.goes:
            removed.append(id_)
    return Given(removed=tuple(removed), forgotten=tuple(forgotten))
