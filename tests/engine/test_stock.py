"""Which images are here, for whom, and which go: on a fake engine and a real store."""

import asyncio
import dataclasses
import time

import pytest

from prsmd.core.guard import ContainerRules
from prsmd.domain.deployment import Deployment, Revision
from prsmd.domain.errors import (
    EngineError,
    ImageUnavailableError,
    InvalidInputError,
    NoRoomForImageError,
    PullBrokenOffError,
)
from prsmd.domain.image import Brought, ImageOrigin, Login
from prsmd.domain.quantity import GIB, MIB
from prsmd.domain.spec import Resources, Spec
from prsmd.engine.launcher import Launcher
from prsmd.engine.provisions import Provisions, SignedImages
from prsmd.engine.stock import Order, Stock, StockSettings
from prsmd.runtime.base import PullProgress
from prsmd.runtime.fake import FakeEngine, FakeRuntime
from prsmd.store import audit, deployments, images, registries, revisions
from prsmd.store.db import Database
from prsmd.store.registries import StoredLogin
from prsmd.store.sealing import Sealer
from prsmd.store.specs import spec_hash
from tests.gateway.backends import until
from tests.runtime.harness import launch_of
from tests.support import archives

LEGAL = "registry.acme.example/legal:1"
HERS = Login(server="registry.acme.example", username="acme", password="hers")


class Site:
    """A stock on an engine, and what a test does around it."""

    def __init__(self, database, folder, engine=None):
        self.engine = engine or FakeEngine()
        self.engine.shelf.free_bytes = 100 * GIB
        self.runtime = FakeRuntime(self.engine)
        self.database = database
        self.sealer = Sealer(b"k" * 32)
        self.settings = StockSettings(folder=folder, retry_seconds=0.0, pull_attempts=3)
        self.stock = self.make()

    def make(self, **changes):
        settings = dataclasses.replace(self.settings, **changes)
        return Stock(self.runtime, self.database, self.sealer, settings)

    def launcher(self, stock=None):
        provisions = Provisions(self.database, self.sealer, ContainerRules(), SignedImages())
        return Launcher(self.runtime, stock or self.stock, provisions, self.database, "test")

    async def log_in(self, login=HERS, organization="acme"):
        stored = StoredLogin(
            organization=organization,
            server=login.server,
            username=login.username,
            created_at=1.0,
            updated_at=1.0,
            updated_by="key:a",
        )
        await self.database.write(
            lambda tx: registries.save(tx, stored, login.password, self.sealer)
        )

    async def pull(self, reference=LEGAL, organization="acme", note=lambda _: None):
        order = Order(organization=organization, reference=reference, wanted=reference, by="key:a")
        return await self.stock.pull(order, note)

    async def deploy(self, number, image=LEGAL, organization="acme", name="legal"):
        """Store a revision of a deployment, made with the first one; return it."""
        spec = Spec(image=image, model_type="t", resources=Resources(cpu_millis=1, memory_bytes=1))
        deployment = Deployment(
            id=f"deploy_{name}",
            organization=organization,
            model_id=f"custom_{name}",
            model_name=name,
            revision=1,
            asked_replicas=1,
            created_at=1.0,
            updated_at=1.0,
        )
        revision = Revision(
            deployment_id=deployment.id,
            number=number,
            spec=spec,
            spec_hash=spec_hash(spec),
            created_at=1.0,
            created_by="key:a",
        )

        async def write(tx):
            if number == 1:
                await deployments.add(tx, deployment)
            await revisions.add(tx, revision)
            await deployments.set_revision(tx, deployment.id, number, 1.0)

        await self.database.write(write)
        return revision

    async def prepared(self, number, **more):
        """Store a revision and bring its image."""
        revision = await self.deploy(number, **more)
        return await self.launcher().prepare(more.get("organization", "acme"), revision)

    async def known(self):
        async with self.database.read() as tx:
            return await images.list_all(tx)

    async def goes(self, keep=1, **more):
        survey = await self.stock.survey(keep, **more)
        return {v.content.id for v in survey.verdicts if v.goes}

    async def reasons(self, keep=1, **more):
        survey = await self.stock.survey(keep, **more)
        return [v.kept_for for v in survey.verdicts]

    async def load(self, files, name=None):
        path = archives.written(self.settings.folder / "archive.tar", files)
        by = Brought(
            id="",
            reference="",
            digest="",
            organization="default",
            origin=ImageOrigin.LOADED,
            private=False,
            by="key:admin",
            at=time.time(),
        )

        async def also(tx, loaded):
            pass

        return await self.stock.load(path, name, by, also)


@pytest.fixture
async def site(tmp_path):
    database = await Database.open(tmp_path / "state")
    yield Site(database, tmp_path)
    await database.close()


# Whose image it is


async def test_what_everyone_may_pull_is_everyones_once_it_is_here(site):
    site.engine.make_pullable(LEGAL)
    image = await site.pull()
    assert await site.stock.here("rival", LEGAL) == image
    [known] = await site.known()
    assert (known.id, known.private, known.by) == (image.id, False, "key:a")


async def test_a_login_is_used_for_its_organization_and_its_registry_alone(site):
    await site.log_in()
    other = "other.example/legal:1"
    for reference in (LEGAL, other, "plain:1"):
        site.engine.make_pullable(reference)
    await site.pull(LEGAL, "acme")
    await site.pull(other, "acme")
    await site.pull("plain:1", "acme")
    await site.pull(LEGAL, "rival")
    assert site.engine.shelf.logins == [HERS, None, None, None]


async def test_what_was_pulled_with_a_login_is_nobody_elses_under_any_name(site):
    await site.log_in()
    site.engine.make_pullable(LEGAL, login=HERS)
    image = await site.pull()

    assert await site.stock.here("acme", LEGAL) == image
    assert await site.stock.here("rival", LEGAL) is None
    assert await site.stock.here("rival", image.digest) is None
    assert await site.stock.here("acme", image.digest) is not None


async def test_the_registry_decides_who_else_may_run_it(site):
    await site.log_in()
    site.engine.make_pullable(LEGAL, login=HERS)
    await site.prepared(1)
    rivals = await site.deploy(1, organization="rival", name="theft")

    with pytest.raises(ImageUnavailableError, match="unauthorized"):
        await site.launcher().prepare("rival", rivals)
    async with site.database.read() as tx:
        assert (await revisions.get(tx, "deploy_theft", 1)).image_digest is None

    await site.log_in(HERS, "rival")
    image = await site.launcher().prepare("rival", rivals)
    assert await site.stock.here("rival", LEGAL) == image


async def test_a_digest_that_is_here_is_asked_for_at_its_registry(site):
    """Docker takes its own word for a digest that it has: tests/runtime/test_docker_images.py."""
    pinned = f"registry.acme.example/legal@sha256:{'1' * 64}"
    await site.log_in()
    site.engine.make_pullable(pinned, login=HERS)
    await site.prepared(1, image=pinned)
    rivals = await site.deploy(1, image=pinned, organization="rival", name="theft")

    with pytest.raises(ImageUnavailableError, match="does not let rival read"):
        await site.launcher().prepare("rival", rivals)

    await site.log_in(HERS, "rival")
    await site.launcher().prepare("rival", rivals)


async def test_what_a_revision_was_pinned_to_it_may_run_when_the_login_is_gone(site):
    await site.log_in()
    site.engine.make_pullable(LEGAL, login=HERS)
    await site.prepared(1)
    await site.database.write(lambda tx: registries.remove(tx, "acme", HERS.server))
    async with site.database.read() as tx:
        pinned = await revisions.get(tx, "deploy_legal", 1)

    calls = len(site.engine.shelf.logins)
    assert (await site.launcher().prepare("acme", pinned)).digest == pinned.image_digest
    assert len(site.engine.shelf.logins) == calls


async def test_a_private_image_whose_pull_ended_unseen_is_still_private(site):
    """The daemon dies, or the last waiter leaves, between the engine's end and the record."""
    await site.log_in()
    site.engine.make_pullable(LEGAL, login=HERS)
    site.engine.become_slow(3600)
    pull = asyncio.create_task(site.pull())
    await until(lambda: "pull" in site.engine.calls)
    pull.cancel()
    await asyncio.wait([pull])
    site.engine.recover()
    image = site.engine.shelf.make_image(LEGAL, "private")  # the engine had finished

    for organization in ("rival", "acme"):  # that it was begun does not show that it was allowed
        assert await site.stock.here(organization, LEGAL) is None
        assert await site.stock.here(organization, image.digest) is None
    await site.pull()
    assert await site.stock.here("acme", LEGAL) == image
    assert await site.stock.here("rival", LEGAL) is None


async def begun(site, organization, reference=LEGAL):
    """Begin a pull that the registry does not answer; return its task."""
    site.engine.become_slow(3600)
    before = site.engine.calls.count("pull")
    pull = asyncio.create_task(site.pull(reference, organization))
    await until(lambda: site.engine.calls.count("pull") > before)
    site.engine.recover()
    return pull


async def given_up(pull):
    pull.cancel()
    await asyncio.wait([pull])


async def test_a_pull_that_was_only_begun_gives_nobody_an_image_that_is_here(site):
    """A rival deploys another's private image, and deletes the deployment at once."""
    await site.log_in()
    site.engine.make_pullable(LEGAL, login=HERS)
    image = await site.pull()
    pull = await begun(site, "rival")

    assert await site.stock.here("rival", LEGAL) is None  # a second replica, meanwhile
    await given_up(pull)

    for reference in (LEGAL, image.digest):
        assert await site.stock.here("rival", reference) is None
        assert await site.stock.here("acme", reference) is not None


async def test_a_pull_that_was_only_begun_gives_nobody_an_image_that_comes_later(site):
    await site.log_in()
    site.engine.make_pullable(LEGAL, login=HERS)
    await given_up(await begun(site, "rival"))
    image = await site.pull()
    assert await site.stock.here("rival", LEGAL) is None
    assert await site.stock.here("acme", LEGAL) == image


async def test_a_digest_that_comes_while_it_is_asked_for_is_asked_for_at_its_registry(site):
    pinned = f"registry.acme.example/legal@sha256:{'1' * 64}"
    await site.log_in()
    site.engine.make_pullable(pinned, login=HERS)
    hers = await begun(site, "acme", pinned)
    site.engine.images[pinned] = site.engine.shelf.make_image(pinned, pinned)  # not yet recorded
    with pytest.raises(ImageUnavailableError, match="does not let rival read"):
        await site.pull(pinned, "rival")
    await given_up(hers)


async def test_what_everyone_may_pull_and_was_cut_short_is_everyones_after_the_next_pull(site):
    site.engine.make_pullable(LEGAL)
    await given_up(await begun(site, "acme"))
    image = site.engine.shelf.make_image(LEGAL, LEGAL)
    assert await site.stock.here("acme", LEGAL) is None
    await site.pull(organization="rival")
    assert await site.stock.here("acme", LEGAL) == image


async def test_a_private_image_is_nobody_elses_while_it_comes(site):
    await site.log_in()
    site.engine.make_pullable(LEGAL, login=HERS)
    site.engine.become_slow(3600)
    pull = asyncio.create_task(site.pull())
    await until(lambda: "pull" in site.engine.calls)
    site.engine.shelf.make_image(LEGAL, "private")  # named, but not yet recorded

    assert await site.stock.here("rival", LEGAL) is None
    pull.cancel()
    await asyncio.wait([pull])


async def test_a_pull_that_fails_leaves_no_record(site):
    with pytest.raises(ImageUnavailableError):
        await site.pull("nobody/nothing:1")
    assert await site.known() == []


async def test_a_password_that_cannot_be_opened_is_told_and_no_pull_is_tried(site):
    await site.log_in()
    site.engine.make_pullable(LEGAL)
    site.stock = Stock(site.runtime, site.database, Sealer(b"x" * 32), site.settings)
    with pytest.raises(ImageUnavailableError, match="another envelope key"):
        await site.pull()
    assert "pull" not in site.engine.calls


async def test_what_would_be_deployed_is_told_without_a_pull(site):
    await site.log_in()
    site.engine.make_pullable(LEGAL, login=HERS)
    digest = await site.stock.remote_digest("acme", LEGAL)
    assert await site.stock.remote_digest("rival", LEGAL) is None
    assert "pull" not in site.engine.calls
    assert (await site.pull()).digest == digest
    assert await site.stock.remote_digest("acme", LEGAL) == digest


# Trying again


async def test_a_pull_that_breaks_off_is_tried_again_and_says_so(site):
    site.engine.make_pullable(LEGAL)
    site.engine.shelf.cuts = 2
    said = []
    await site.pull(note=said.append)

    assert site.engine.calls.count("pull") == 3
    assert [p.attempt for p in said if p.status == "waiting"] == [2, 3]
    assert {p.trouble for p in said if p.attempt > 1} == {"unexpected EOF"}
    assert said[-1].attempt == 3


async def test_a_pull_is_tried_so_often_and_no_more(site):
    site.engine.make_pullable(LEGAL)
    site.engine.shelf.cuts = 100
    with pytest.raises(PullBrokenOffError, match=r"unexpected EOF \(tried 3 times\)"):
        await site.pull()
    assert site.engine.calls.count("pull") == 3


async def test_what_no_registry_has_is_asked_for_once(site):
    with pytest.raises(ImageUnavailableError, match="no registry has it"):
        await site.pull("nobody/nothing:1")
    assert site.engine.calls.count("pull") == 1


async def test_pauses_double_up_to_a_minute(site, monkeypatch):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    site.engine.make_pullable(LEGAL)
    site.engine.shelf.cuts = 100
    site.stock = site.make(pull_attempts=9, retry_seconds=1.0)
    monkeypatch.setattr("prsmd.engine.pulling.asyncio.sleep", sleep)
    with pytest.raises(PullBrokenOffError):
        await site.pull()
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


# Room


async def test_a_full_disk_refuses_a_pull_before_anything_is_fetched(site):
    site.engine.make_pullable(LEGAL)
    site.engine.shelf.free_bytes = GIB
    with pytest.raises(NoRoomForImageError, match=r"1\.0 GiB are free .* 2\.0 GiB are needed") as e:
        await site.pull()
    assert e.value.details == {"free_bytes": GIB, "needed_bytes": 2 * GIB}
    assert e.value.status_hint == 507
    assert "pull" not in site.engine.calls


async def test_a_pull_whose_size_turns_out_not_to_fit_is_given_up(site):
    site.engine.make_pullable(LEGAL)
    site.stock = site.make(min_free_bytes=MIB)

    async def grows(reference, on_progress, login=None):
        on_progress(PullProgress(status="Downloading", done_bytes=0, total_bytes=200 * GIB))
        await asyncio.Event().wait()

    site.runtime.images.pull = grows
    with pytest.raises(NoRoomForImageError, match=r"200\.0 GiB are needed"):
        await site.pull()


async def test_a_short_disk_is_made_free_before_a_pull_is_refused(site):
    site.engine.make_pullable(LEGAL)
    site.engine.make_pullable("old:1")
    await site.pull("old:1")
    site.engine.shelf.free_bytes = GIB
    remove = site.engine.shelf.remove

    def freeing(image_id):
        remove(image_id)
        site.engine.shelf.free_bytes = 3 * GIB

    site.engine.shelf.remove = freeing
    await site.pull()
    assert set(site.engine.images) == {LEGAL}
    assert {one.reference for one in await site.known()} == {LEGAL}
    async with site.database.read() as tx:
        [record] = await audit.after(tx, 0, 10)
    assert (record.action, record.principal) == ("images.prune", "prsmd")
    assert record.details == {"reason": "the disk is short", "removed": ["old:1"]}


async def test_where_the_engines_disk_cannot_be_seen_the_states_counts(site):
    site.engine.shelf.free_bytes = None
    site.engine.make_pullable(LEGAL)
    site.stock = site.make(min_free_bytes=1 << 60)
    with pytest.raises(NoRoomForImageError):
        await site.pull()


# What goes


async def test_the_images_of_the_last_revisions_stay_and_older_ones_go(site):
    ids = []
    for number in range(1, 5):
        reference = f"legal:{number}"
        site.engine.make_pullable(reference)
        ids.append((await site.prepared(number, image=reference)).id)

    assert await site.goes(keep=2) == set(ids[:2])
    verdicts = await site.stock.collect(2)
    assert {v.content.id for v in verdicts if v.goes} == set(ids[:2])
    assert set(site.engine.images) == {"legal:3", "legal:4"}
    assert {one.id for one in await site.known()} == set(ids[2:])
    assert await site.goes(keep=2) == set()


async def test_what_prsmd_did_not_bring_never_goes(site):
    site.engine.images["by-hand:1"] = site.engine.shelf.make_image("by-hand:1", "x")
    assert await site.reasons() == ["prsmd did not bring it"]
    await site.stock.collect(1)
    assert "by-hand:1" in site.engine.images


async def test_an_image_that_someone_also_named_stays(site):
    site.engine.make_pullable(LEGAL)
    image = await site.pull()
    site.engine.images["mine:1"] = dataclasses.replace(image, reference="mine:1")
    [reason] = await site.reasons()
    assert "also called mine:1" in reason


async def test_an_image_with_a_container_stays_whoever_made_it(site):
    site.engine.make_pullable(LEGAL)
    image = await site.pull()
    await FakeRuntime(site.engine, "another").launch(launch_of(image.digest, instance="another"))
    assert await site.reasons() == ["a container is made from it"]
    with pytest.raises(EngineError, match="left alone"):
        await site.runtime.images.remove(image.id)


async def test_a_revision_that_is_not_resolved_yet_keeps_what_its_name_means(site):
    site.engine.make_pullable("docker.io/library/legal")
    image = await site.pull("docker.io/library/legal")
    site.engine.images["legal:latest"] = dataclasses.replace(image, reference="legal:latest")
    del site.engine.images["docker.io/library/legal"]
    await site.deploy(1, image="docker.io/library/legal")
    assert await site.reasons() == ["revision 1 of custom_legal may need it"]


async def test_what_the_engine_refuses_to_remove_stays_and_says_why(site):
    site.engine.make_pullable(LEGAL)
    await site.pull()

    def busy(image_id):
        raise EngineError("image is busy")

    site.engine.shelf.remove = busy
    [verdict] = await site.stock.collect(1)
    assert verdict.kept_for == "image is busy"
    assert len(await site.known()) == 1


async def test_nothing_is_collected_between_a_look_at_an_image_and_its_pin(site):
    site.engine.make_pullable(LEGAL)
    await site.pull()
    async with site.stock.still:
        collecting = asyncio.create_task(site.stock.collect(1))
        await asyncio.sleep(0)
        image = await site.stock.here("acme", LEGAL)
        await site.deploy(1)
    await collecting
    assert image is not None
    assert LEGAL in site.engine.images


async def test_the_records_of_images_that_someone_removed_are_forgotten(site):
    site.engine.make_pullable(LEGAL)
    await site.pull()
    site.engine.images.clear()
    await site.stock.collect(1)
    assert await site.known() == []


# Archives


async def test_an_archives_images_are_here_for_everyone(site):
    [one] = await site.load(archives.saved("acme/legal:1"))
    assert one.replaced is None
    assert (await site.stock.here("rival", "acme/legal:1")).digest == one.image.digest
    [known] = await site.known()
    assert (known.origin, known.by, known.reference) == (
        ImageOrigin.LOADED,
        "key:admin",
        "acme/legal:1",
    )


async def test_an_image_without_a_name_is_here_under_its_id(site):
    files = archives.laid_out(None)
    [one] = await site.load(files)
    assert one.image.reference == one.image.id == archives.image_id(files)
    [known] = await site.known()
    assert known.reference == one.image.id


async def test_a_name_that_moves_leaves_revisions_what_they_were_deployed_with(site):
    [first] = await site.load(archives.saved("legal:1"))
    deployed = await site.prepared(1, image="legal:1")
    assert deployed.digest == first.image.digest

    [second] = await site.load(archives.saved("legal:1"))

    assert second.replaced.digest == first.image.digest
    assert [(use.model_id, use.number) for use in second.still_run_by] == [("custom_legal", 1)]
    async with site.database.read() as tx:
        pinned = await revisions.get(tx, "deploy_legal", 1)
    later = await site.prepared(2, image="legal:1")
    assert later.digest == second.image.digest
    await site.stock.collect(2)
    assert (await site.launcher().prepare("acme", pinned)).digest == first.image.digest


async def test_loading_the_same_again_moves_nothing(site):
    files = archives.saved("legal:1")
    await site.load(files)
    [again] = await site.load(files)
    assert (again.replaced, again.still_run_by) == (None, ())


async def test_what_was_loaded_goes_only_when_someone_asks(site):
    [one] = await site.load(archives.saved("legal:1"))
    assert await site.goes(pulled_only=True) == set()
    assert await site.goes() == {one.image.id}


async def test_the_engine_sees_nothing_of_an_archive_that_lies(site):
    files = archives.saved() | {"../x": b""}
    with pytest.raises(InvalidInputError):
        await site.load(files)
    assert "load" not in site.engine.calls
    assert await site.known() == []


async def test_an_archive_that_does_not_fit_is_refused(site):
    site.stock = site.make(min_free_bytes=MIB)
    site.engine.shelf.free_bytes = MIB + 1000
    with pytest.raises(NoRoomForImageError, match="load the archive"):
        await site.load(archives.saved())
    assert "load" not in site.engine.calls
