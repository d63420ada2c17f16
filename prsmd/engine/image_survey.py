"""Reads what images are here and which revisions name them, as the decisions take it."""

import dataclasses
from collections.abc import Sequence

from prsmd.core.collect import Content, KeptRevision, Verdict, kept_revisions
from prsmd.core.grouping import grouped
from prsmd.domain.image import Brought
from prsmd.runtime import base
from prsmd.store import deployments, replicas, revisions, rollouts
from prsmd.store.db import Tx


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The images that are here at one moment, and `uses`: how each revision names its own.

    `kept` are the revisions whose images have to stay.
    """

    images: Sequence[base.Image]
    brought: Sequence[Brought]
    uses: Sequence[KeptRevision]
    kept: Sequence[KeptRevision]
    verdicts: Sequence[Verdict]


def contents_of(found: Sequence[base.Image]) -> list[Content]:
    """Return the images as contents, each once with all its names."""
    return [
        Content(
            id=id_,
            names=frozenset({id_, *(name for i in same for name in (i.reference, i.digest))}),
            size_bytes=max(image.size_bytes for image in same),
            in_use=any(image.in_use for image in same),
        )
        for id_, same in grouped(found, lambda image: image.id).items()
    ]


async def kept_of(tx: Tx, keep: int) -> tuple[list[KeptRevision], list[KeptRevision]]:
    """Return the revisions whose images stay, and all revisions."""
    running: dict[str, set[int]] = {}
    for replica in await replicas.list_current(tx, 0):
        if replica.active:
            running.setdefault(replica.deployment_id, set()).add(replica.revision)
    kept: list[KeptRevision] = []
    every: list[KeptRevision] = []
    for deployment in await deployments.list_all(tx):
        known = await revisions.list_for(tx, deployment.id)
        rollout = await rollouts.latest(tx, deployment.id)
        live = running.get(deployment.id, set())
        kept += kept_revisions(deployment, known, rollout, live, keep)
        every += kept_revisions(deployment, known, rollout, live, len(known))
    return kept, every
