"""A list of images costs what there is, not images times revisions, and none of it on the loop."""

import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from prsmd.core.collect import KeptRevision, collect
from prsmd.domain.image import Brought, ImageOrigin
from prsmd.engine.image_survey import Survey, contents_of
from prsmd.engine.recorder import Recorder
from prsmd.runtime.base import Image
from prsmd.service.images import Images
from prsmd.store.db import Database
from tests.service.identity import caller

IMAGES, USES = 40, 200


class CountedNames(frozenset[str]):
    """Names that note in which threads they are looked at, each time."""

    looks: ClassVar[list[int]] = []

    def __iter__(self) -> Iterator[str]:
        self.looks.append(threading.get_ident())
        return super().__iter__()

    def __and__(self, other):
        self.looks.append(threading.get_ident())
        return super().__and__(other)


class SurveyedStock:
    """A stock that was surveyed before."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    async def survey(self) -> Survey:
        return self._survey


def surveyed() -> Survey:
    images = [
        Image(id=f"id{n}", reference=f"m:{n}", digest=f"m@{n}", size_bytes=1, in_use=False)
        for n in range(IMAGES)
    ]
    brought = [
        Brought(
            id=image.id,
            reference=image.reference,
            digest=image.digest,
            organization="company" if n % 2 else "rival",
            origin=ImageOrigin.PULLED,
            private=False,
            by="key:a",
            at=0.0,
        )
        for n, image in enumerate(images)
    ]
    uses = [
        KeptRevision(
            deployment_id="d",
            organization="company" if number % 2 else "rival",
            model_id="m",
            number=number,
            names=CountedNames([images[number % IMAGES].digest]),
        )
        for number in range(USES)
    ]
    verdicts = collect(contents_of(images), brought, uses)
    CountedNames.looks.clear()
    return Survey(images=images, brought=brought, uses=uses, kept=uses, verdicts=verdicts)


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path / "state")
    yield opened
    await opened.close()


async def test_each_revision_is_looked_at_once_and_in_a_thread(database):
    images = Images(database, SurveyedStock(surveyed()), Recorder(database))
    everything = await images.list(caller())

    assert len(CountedNames.looks) == USES
    assert threading.get_ident() not in CountedNames.looks
    assert [len(report.used_by) for report in everything] == [USES // IMAGES] * IMAGES
    assert [use.number for use in everything[0].used_by] == list(range(0, USES, IMAGES))

    own = await images.list(caller("owner"))
    assert {report.references for report in own} == {(f"m:{n}",) for n in range(1, IMAGES, 2)}
