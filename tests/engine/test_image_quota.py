"""How many bytes of images an organization may have brought, and what it gives back for it."""

import asyncio

import pytest

from prsmd.core.collect import Content, KeptRevision, Verdict
from prsmd.domain.errors import ImageUnavailableError, ResourceQuotaExceededError
from prsmd.domain.image import Brought, ImageOrigin
from prsmd.domain.quantity import MIB
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.image_quota import given_back, note_within_quota
from prsmd.engine.quota_ledger import used
from prsmd.service.organizations import ensure
from prsmd.store import images, resource_quotas
from prsmd.store.db import Database
from tests.engine.test_stock import Site

SIZE = 64 * MIB  # of each image of the fake registry


@pytest.fixture
async def site(tmp_path):
    database = await Database.open(tmp_path / "state")
    site = Site(database, tmp_path)
    await ensure(database, ["acme", "rival"])
    for n in range(6):
        site.engine.make_pullable(f"models/m:{n}")
    yield site
    await database.close()


async def limit(site, bytes_, organization="acme"):
    name = Dimension.IMAGE_BYTES
    await site.database.write(lambda tx: resource_quotas.put(tx, organization, name, bytes_))


async def counted(site, organization="acme"):
    async with site.database.read() as tx:
        return (await used(tx, organization, (Dimension.IMAGE_BYTES,)))[Dimension.IMAGE_BYTES]


async def test_each_content_counts_once_for_who_brought_it(site):
    await site.pull("models/m:0")
    await site.pull("models/m:0")
    assert await counted(site) == SIZE
    await site.pull("models/m:0", organization="rival")
    assert await counted(site, "rival") == SIZE
    assert await counted(site) == SIZE


async def test_of_pulls_at_once_only_as_many_arrive_as_fit(site):
    await limit(site, 2 * SIZE)
    for n in range(6):
        await site.deploy(1, image=f"models/m:{n}", name=f"m{n}")
    done = await asyncio.gather(
        *(site.pull(f"models/m:{n}") for n in range(6)), return_exceptions=True
    )
    refused = [one for one in done if isinstance(one, ImageUnavailableError)]
    assert len(refused) == 4
    assert all("image_bytes: " in one.message for one in refused)
    assert await counted(site) == 2 * SIZE
    assert len({image.id for image in site.engine.shelf.listed()}) == 2  # the others are gone


async def test_what_no_revision_needs_is_given_back_before_anything_is_refused(site):
    await limit(site, 2 * SIZE)
    await site.pull("models/m:0")
    await site.pull("models/m:1")
    await site.deploy(1, image="models/m:1", name="m1")
    await site.pull("models/m:2")
    assert await counted(site) == 2 * SIZE
    here = {image.reference for image in site.engine.shelf.listed()}
    assert here == {"models/m:1", "models/m:2"}


async def test_a_pull_that_is_refused_leaves_nothing_that_others_could_run(site):
    await limit(site, SIZE // 2)
    with pytest.raises(ImageUnavailableError, match="image_bytes"):
        await site.pull("models/m:0")
    assert await counted(site) == 0
    assert await site.stock.here("rival", "models/m:0") is None


async def test_a_size_that_was_not_kept_is_found_out(site):
    image = await site.pull("models/m:0")
    await site.database.write(lambda tx: tx.execute_fetchall("UPDATE images SET size_bytes = 0"))
    assert await counted(site) == 0
    await site.stock.note_sizes()
    assert await counted(site) == image.size_bytes


def brought(id_, organization, origin=ImageOrigin.PULLED):
    return Brought(
        id=id_,
        reference=f"models/{id_}",
        digest=id_,
        organization=organization,
        origin=origin,
        private=True,
        by="key:a",
        at=1.0,
        size_bytes=1,
    )


def verdict(id_, kept_for=None):
    names = frozenset({id_, f"models/{id_}"})
    return Verdict(
        content=Content(id=id_, names=names, size_bytes=1, in_use=False), kept_for=kept_for
    )


def test_what_is_given_back_is_nobody_elses_and_never_becomes_everyones():
    kept = [
        KeptRevision(
            deployment_id="d",
            organization="acme",
            model_id="m",
            number=1,
            names=frozenset({"models/needed"}),
        )
    ]
    all_of_it = [
        brought("unneeded", "acme"),
        brought("needed", "acme"),
        brought("shared", "acme"),
        brought("shared", "rival"),
        brought("in-use", "acme"),
        brought("loaded", "acme", ImageOrigin.LOADED),
        brought("gone", "acme"),
        brought("foreign", "rival"),
    ]
    verdicts = [
        verdict("unneeded"),
        verdict("needed", "revision 1 of m may need it"),
        verdict("shared", "revision 1 of another may need it"),
        verdict("in-use", "a container is made from it"),
        verdict("loaded"),
        verdict("foreign"),
    ]
    given = given_back("acme", all_of_it, kept, verdicts)
    assert given.removed == ("unneeded",)
    assert given.forgotten == ("gone", "shared")


async def test_loading_counts_too(site):
    by = brought("", "acme", ImageOrigin.LOADED)
    await limit(site, 1)
    await site.database.write(lambda tx: note_within_quota(tx, [brought("a", "acme")]))
    with pytest.raises(ResourceQuotaExceededError):
        await site.database.write(lambda tx: note_within_quota(tx, [brought("b", "acme"), by]))
    async with site.database.read() as tx:
        assert [one.id for one in await images.list_all(tx)] == ["a"]
