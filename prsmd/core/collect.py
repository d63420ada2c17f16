"""Decides which images may go: what prsmd brought, nobody uses and no kept revision names.

Removes nothing. Every image that stays says why.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from prsmd.core.grouping import grouped
from prsmd.domain.deployment import Deployment, Revision
from prsmd.domain.image import Brought, ImageOrigin, familiar
from prsmd.domain.rollout import Rollout


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One image on the engine. `names` are all its references and digests, and its id."""

    id: str
    names: frozenset[str]
    size_bytes: int
    in_use: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeptRevision:
    """A revision whose image has to stay. `names` are how it names its image."""

    deployment_id: str
    organization: str
    model_id: str
    number: int
    names: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What happens to one image: it goes, or `kept_for` says why not.

    `needed_by` is a revision that keeps it, where that is why.
    """

    content: Content
    kept_for: str | None
    needed_by: KeptRevision | None = None

    @property
    def goes(self) -> bool:
        """True for one that may be removed."""
        return self.kept_for is None


class Users:
    """Which revisions name an image, by its names."""

    def __init__(self, uses: Iterable[KeptRevision]) -> None:
        self._by_name: dict[str, list[tuple[int, KeptRevision]]] = {}
        for at, use in enumerate(uses):
            for name in use.names:
                self._by_name.setdefault(name, []).append((at, use))

    def of(self, names: Iterable[str]) -> tuple[KeptRevision, ...]:
        """Return those that name an image by one of its names, in the order they were given."""
        found = {at: use for name in names for at, use in self._by_name.get(name, ())}
        return tuple(found[at] for at in sorted(found))


def kept_revisions(
    deployment: Deployment,
    revisions: Sequence[Revision],
    rollout: Rollout | None,
    running: Collection[int],
    keep: int,
) -> list[KeptRevision]:
    """Return a deployment's revisions whose images stay.

    These are the last `keep`, the current and the stable one, those of a rollout under way, and
    those that a replica runs. One whose image was not resolved yet keeps what its name means now.
    """
    numbers = sorted(revision.number for revision in revisions)[-keep:] if keep else []
    wanted = {*numbers, *running, deployment.revision, deployment.stable_revision}
    if rollout is not None and rollout.active:
        wanted |= {rollout.from_revision, rollout.to_revision}
    return [
        KeptRevision(
            deployment_id=deployment.id,
            organization=deployment.organization,
            model_id=deployment.model_id,
            number=revision.number,
            names=_image_names(revision),
        )
        for revision in revisions
        if revision.number in wanted
    ]


def collect(
    contents: Iterable[Content],
    brought: Sequence[Brought],
    kept: Iterable[KeptRevision],
    *,
    pulled_only: bool = False,
) -> list[Verdict]:
    """Return a verdict for each image.

    `pulled_only`: what was loaded from an archive stays, since nobody but its owner can bring it
    again; so it is when nobody asked.
    """
    by_id = grouped(brought, lambda one: one.id)
    by_name: dict[str, KeptRevision] = {}
    for revision in kept:
        by_name |= dict.fromkeys(revision.names, revision)
    return [
        _verdict(content, by_id.get(content.id, ()), by_name, pulled_only=pulled_only)
        for content in contents
    ]


def _verdict(
    content: Content,
    brought: Sequence[Brought],
    kept: Mapping[str, KeptRevision],
    *,
    pulled_only: bool,
) -> Verdict:
    needed = next((kept[name] for name in sorted(content.names) if name in kept), None)
    reason = _reason(content, brought, pulled_only=pulled_only)
    if needed is not None and brought and not content.in_use:
        reason = f"revision {needed.number} of {needed.model_id} may need it"
        return Verdict(content=content, kept_for=reason, needed_by=needed)
    return Verdict(content=content, kept_for=reason)


def _reason(content: Content, brought: Sequence[Brought], *, pulled_only: bool) -> str | None:
    """Return why an image stays that no revision needs, None if it may go."""
    if not brought:
        return "prsmd did not bring it"
    if content.in_use:
        return "a container is made from it"
    ours = {content.id, *(name for one in brought for name in (one.reference, one.digest))}
    others = sorted(content.names - ours)
    if others:
        return f"it is also called {others[0]}, a name that prsmd did not bring"
    if pulled_only and any(one.origin is ImageOrigin.LOADED for one in brought):
        return "it was loaded: it goes only when someone asks"
    return None


def _image_names(revision: Revision) -> frozenset[str]:
    if revision.image_digest is not None:
        return frozenset({revision.image_digest})
    return frozenset({familiar(revision.spec.image)})
