"""The appliance's images: what is here and why, loading archives, removing what nobody needs."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from prsmd.core.collect import KeptRevision, Users, Verdict
from prsmd.core.grouping import grouped
from prsmd.domain.access import Permission
from prsmd.domain.errors import InvalidInputError, NoRoomForImageError, RequestTooLargeError
from prsmd.domain.events import Event
from prsmd.domain.image import Brought, ImageOrigin, familiar, may_run
from prsmd.engine.image_survey import Survey
from prsmd.engine.recorder import Recorder
from prsmd.engine.stock import Loaded, Stock
from prsmd.runtime.base import Image
from prsmd.service.caller import Caller, require_own, require_recorded
from prsmd.store import audit, events
from prsmd.store.db import Database, Tx


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An archive that has arrived. `expected` is what its SHA-256 should be, where that is known.

    `name` is for the only image in it.
    """

    path: Path
    size_bytes: int
    sha256: str
    expected: str | None = None
    name: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What came of an archive."""

    sha256: str
    size_bytes: int
    loaded: Sequence[Loaded]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """One image as the caller may see it. `kept_for` says why it would not be collected."""

    id: str
    references: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    in_use: bool
    brought: Brought | None
    used_by: tuple[KeptRevision, ...]
    kept_for: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """What was removed, or would be. `freed_bytes` counts layers that stay for others too."""

    dry_run: bool
    keep_revisions: int
    verdicts: Sequence[Verdict]

    @property
    def freed_bytes(self) -> int:
        """The sizes of the images that go."""
        return sum(verdict.content.size_bytes for verdict in self.verdicts if verdict.goes)


class Images:
    """Use cases on images."""

    def __init__(self, database: Database, stock: Stock, recorder: Recorder) -> None:
        self._database = database
        self._stock = stock
        self._recorder = recorder

    @property
    def most_archive_bytes(self) -> int:
        """How large an archive may be."""
        return self._stock.settings.max_archive_bytes

    async def admit(self, caller: Caller, size_bytes: int | None, free_bytes: int) -> None:
        """Return if an archive may be sent, before a byte of it is read.

        `size_bytes` is what it says of itself, `free_bytes` is where it will be kept meanwhile.
        """
        await require_recorded(self._database, caller, Permission.NODE_MANAGE, "images")
        self._stock.require_loading()
        most = self.most_archive_bytes
        if size_bytes is not None and size_bytes > most:
            raise RequestTooLargeError(
                f"The archive is larger than the {most} bytes of images.max_archive.",
                limit_bytes=most,
            )
        needed = (size_bytes or 0) + self._stock.settings.min_free_bytes
        if free_bytes < needed:
            raise NoRoomForImageError(
                f"The archive does not fit: {free_bytes} bytes are free for the state and {needed}"
                " are needed.",
                free_bytes=free_bytes,
                needed_bytes=needed,
            )

    async def load(self, caller: Caller, upload: Upload) -> LoadReport:
        """Load an archive that was admitted. Names that move, and who runs on, are told."""
        await require_recorded(self._database, caller, Permission.NODE_MANAGE, "images")
        actual = f"sha256:{upload.sha256}"
        if upload.expected is not None and upload.expected != actual:
            raise InvalidInputError.field(
                "digest", f"the archive that arrived is {actual}, not this", upload.expected
            )
        by = Brought(
            id="",
            reference="",
            digest="",
            organization=caller.principal.organization,
            origin=ImageOrigin.LOADED,
            private=False,
            by=caller.principal.id,
            at=time.time(),
        )
        told: list[Event] = []

        async def also(tx: Tx, loaded: Sequence[Loaded]) -> None:
            told[:] = [await events.append(tx, event) for event in _moved(loaded, caller)]
            details = {
                "archive": actual,
                "images": [
                    {"reference": one.image.reference, "digest": one.image.digest} for one in loaded
                ],
            }
            await audit.append(tx, caller.record("images.load", "images", "allowed", details))
            report = LoadReport(sha256=actual, size_bytes=upload.size_bytes, loaded=loaded)
            await caller.remember(tx, report)

        loaded = await self._stock.load(upload.path, upload.name, by, also)
        self._recorder.announce(*told)
        return LoadReport(sha256=actual, size_bytes=upload.size_bytes, loaded=loaded)

    async def list(self, caller: Caller) -> list[ImageReport]:
        """Return the images that the caller's organization may run; administrators see all."""
        require_own(caller, Permission.NODE_READ)
        survey = await self._stock.survey()
        return await asyncio.to_thread(_reports, survey, caller.scope)

    async def free_bytes(self) -> int:
        """Return the bytes left where images are kept."""
        return await self._stock.free_bytes()

    async def prune(
        self, caller: Caller, keep_revisions: int | None, *, dry_run: bool
    ) -> PruneReport:
        """Remove the images that prsmd brought and nobody needs, or tell which these are."""
        await require_recorded(self._database, caller, Permission.NODE_MANAGE, "images")
        keep = keep_revisions or self._stock.settings.keep_revisions
        if dry_run:
            verdicts = (await self._stock.survey(keep)).verdicts
        else:
            verdicts = await self._stock.collect(keep)
        report = PruneReport(dry_run=dry_run, keep_revisions=keep, verdicts=verdicts)
        removed = [min(v.content.names) for v in verdicts if v.goes]
        details = {"keep_revisions": keep, "removed": removed}
        record = caller.record("images.prune", "images", "allowed", details)

        async def write(tx: Tx) -> None:
            if not dry_run:
                await audit.append(tx, record)
            await caller.remember(tx, report)

        await self._database.write(write)
        return report


def _moved(loaded: Sequence[Loaded], caller: Caller) -> list[Event]:
    """Return what each deployment is told whose image's name now means another one."""
    return [
        Event(
            deployment_id=revision.deployment_id,
            organization=revision.organization,
            reason="ImageNameMoved",
            message=(
                f"{one.image.reference} now means {one.image.digest}, loaded by"
                f" {caller.principal.id}; revision {revision.number} goes on with what it was"
                " deployed with"
            ),
            at=time.time(),
        )
        for one in loaded
        for revision in one.still_run_by
    ]


def _reports(survey: Survey, scope: str | None) -> list[ImageReport]:
    """Return what an organization (None: an administrator) may see of all images, by name."""
    brought = grouped(survey.brought, lambda one: one.id)
    images = grouped(survey.images, lambda image: image.id)
    users = Users(survey.uses)
    reports = []
    for verdict in survey.verdicts:
        content = verdict.content
        known = _Known(
            images=images[content.id],
            brought=brought.get(content.id, []),
            uses=users.of(content.names),
        )
        report = _report(verdict, known, scope)
        if report is not None:
            reports.append(report)
    return sorted(
        reports, key=lambda report: (report.references or report.digests or (report.id,))[0]
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What there is of one content: its names on the engine, who brought it, and who names it."""

    images: Sequence[Image]
    brought: Sequence[Brought]
    uses: Sequence[KeptRevision]


def _report(verdict: Verdict, known: _Known, scope: str | None) -> ImageReport | None:
    """Return what the caller may see of an image, None of what only others may run or brought."""
    content, brought = verdict.content, known.brought
    visible = [one for one in brought if scope in {None, one.organization}]
    own = tuple(use for use in known.uses if scope in {None, use.organization})
    if scope is not None and not (may_run(scope, brought) and (own or _offered(scope, brought))):
        return None
    named = _named(known, scope)
    digests = {image.digest for image in named}
    return ImageReport(
        id=content.id,
        references=tuple(sorted({i.reference for i in named} - digests - {content.id})),
        digests=tuple(sorted(digests)),
        size_bytes=content.size_bytes,
        in_use=content.in_use and (scope is None or bool(own)),
        brought=visible[-1] if visible else None,
        used_by=own,
        kept_for=verdict.kept_for if scope is None else _kept_for(verdict, brought, scope),
    )


def _offered(organization: str, known: Sequence[Brought]) -> bool:
    """Tell whether an image was put here for everyone, or brought by the organization itself.

    What another one pulled without a login anyone may run; that it is here tells what they run.
    """
    loaded = any(one.origin is ImageOrigin.LOADED for one in known)
    return not known or loaded or any(one.organization == organization for one in known)


def _named(known: _Known, scope: str | None) -> Sequence[Image]:
    """Return the names of an image that the caller may see: not those by which others pulled it."""
    if scope is None:
        return known.images
    by_name = grouped(known.brought, lambda one: familiar(one.reference))
    return [i for i in known.images if _offered(scope, by_name.get(familiar(i.reference), ()))]


def _kept_for(verdict: Verdict, known: Sequence[Brought], organization: str) -> str | None:
    """Return why an image stays as far as that tells nothing of other organizations."""
    needed = verdict.needed_by
    if not known or (needed is not None and needed.organization == organization):
        return verdict.kept_for
    return "whether others need it, administrators see"
