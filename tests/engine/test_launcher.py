"""One image for all replicas of a revision, one pull for all who wait, none for nobody."""

import asyncio
import dataclasses

import pytest

from prsmd.api.update_schemas import spec_of
from prsmd.domain.errors import ImageUnavailableError
from prsmd.domain.replica import ExitKind, ReplicaState
from prsmd.engine.stock import Order
from prsmd.service.updates import UpdateRequest
from prsmd.store import history, revisions
from tests.engine.harness import IMAGE, Life, World, caller, spec
from tests.gateway.backends import until

HUGE = "models/huge:1"


def order(reference: str = HUGE) -> Order:
    return Order(organization="default", reference=reference, wanted=reference, by="key:admin")


async def test_replicas_that_start_together_share_one_pull(life: Life, world: World) -> None:
    world.engine.make_pullable(HUGE)
    await life.deploy(given=spec(image=HUGE, min_replicas=3))
    await life.settle()

    assert len(await life.replicas(ReplicaState.RUNNING)) == 3
    assert world.engine.calls.count("pull") == 1


async def test_a_pull_that_fails_fails_everyone_who_waited_with_its_words(
    life: Life, world: World
) -> None:
    world.engine.hang()
    launcher = life.appliance.parts.launcher
    launches = [asyncio.create_task(launcher._pull(order("models/none:1"))) for _ in range(3)]
    await until(lambda: "resolve" in world.engine.calls)
    world.engine.recover()
    await asyncio.wait(launches)

    assert world.engine.calls.count("pull") == 1
    for launch in launches:
        with pytest.raises(ImageUnavailableError, match="no registry has it"):
            launch.result()


async def test_an_image_that_no_registry_has_fails_the_replica(life: Life) -> None:
    await life.deploy(given=spec(image="models/none:1"))
    await life.settle()

    [failed] = await life.replicas(ReplicaState.FAILED)
    assert failed.exit is not None
    assert failed.exit.kind is ExitKind.IMAGE_UNAVAILABLE
    assert "no registry has it" in failed.exit.message


async def test_one_waiter_that_leaves_does_not_end_the_pull_of_the_others(
    life: Life, world: World
) -> None:
    launcher = life.appliance.parts.launcher
    world.engine.make_pullable(HUGE)
    world.engine.hang()
    first = asyncio.create_task(launcher._pull(order()))
    second = asyncio.create_task(launcher._pull(order()))
    await until(lambda: "resolve" in world.engine.calls)
    first.cancel()
    await asyncio.wait([first])
    assert launcher.progress("default", HUGE) is not None
    assert launcher.progress("rival", HUGE) is None, "whoever else wants it is not told"

    world.engine.recover()

    assert (await second).reference == HUGE
    assert first.cancelled()
    assert launcher.progress("default", HUGE) is None


async def test_a_pull_that_nobody_waits_for_is_given_up_and_can_begin_anew(
    life: Life, world: World
) -> None:
    launcher = life.appliance.parts.launcher
    world.engine.make_pullable(HUGE)
    world.engine.hang()
    only = asyncio.create_task(launcher._pull(order()))
    await until(lambda: "resolve" in world.engine.calls)
    only.cancel()
    await asyncio.wait([only])
    assert launcher.progress("default", HUGE) is None

    again = asyncio.create_task(launcher._pull(order()))
    world.engine.recover()

    assert (await again).reference == HUGE


async def test_the_image_of_a_revision_is_pinned_by_its_first_launch(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    await life.settle()
    async with life.database.read() as tx:
        revision = await revisions.get(tx, deployment, 1)

    assert revision is not None
    assert revision.image_digest == world.engine.images[IMAGE].digest


async def test_what_changed_in_place_before_the_image_was_known_runs_the_same_container(
    life: Life,
) -> None:
    deployment = await life.deploy()
    await life.tick()  # the first revision's launch is under way
    patch = {"deployment_config": {"serving": {"queue_depth": 9}}}
    await life.services.revisions.update(
        caller(), "legal", UpdateRequest(patch=patch, read=spec_of)
    )
    await life.settle()

    async with life.database.read() as tx:
        pinned = [one.image_digest for one in await revisions.list_for(tx, deployment)]
    assert len(pinned) == 2
    assert None not in pinned
    assert len(await life.replicas()) == 1, "nothing was replaced"


async def test_a_tag_that_moved_is_not_run_under_an_old_revision(life: Life, world: World) -> None:
    await life.deploy()
    await life.settle()
    moved = dataclasses.replace(world.engine.images[IMAGE], digest="sha256:" + "0" * 64)
    world.engine.images[IMAGE] = moved
    await life.scale(2)
    await life.settle()

    [failed] = await life.replicas(ReplicaState.FAILED)
    assert failed.exit is not None
    assert failed.exit.kind is ExitKind.IMAGE_UNAVAILABLE
    assert "deploy the new image as an update" in failed.exit.message
    assert len(await life.replicas(ReplicaState.RUNNING)) == 1


async def test_two_launches_that_saw_different_images_agree_on_the_one_pinned_first(
    life: Life,
) -> None:
    deployment = await life.deploy()
    launcher = life.appliance.parts.launcher
    async with life.database.read() as tx:
        revision = await revisions.get(tx, deployment, 1)
    assert revision is not None

    assert await launcher._pin(revision, "sha256:first") == "sha256:first"
    assert await launcher._pin(revision, "sha256:second") == "sha256:first"
    with pytest.raises(ImageUnavailableError, match="deployed as sha256:first"):
        await launcher.prepare("default", revision)


async def test_how_long_pull_and_start_took_is_kept(life: Life, world: World) -> None:
    world.engine.make_pullable(HUGE)
    await life.deploy(given=spec(image=HUGE))
    await life.settle()

    async with life.database.read() as tx:
        assert await history.typical(tx, "default", HUGE, "pull") is not None
        assert await history.typical(tx, "default", HUGE, "start") is not None


async def test_a_container_is_told_who_it_is_and_gets_what_the_client_asked_for(
    life: Life, world: World
) -> None:
    deployment = await life.deploy(given=dataclasses.replace(spec(), environment={"LEVEL": "info"}))
    await life.settle()
    [replica] = await life.active()

    environment = world.engine.environment(replica.id)
    assert environment["LEVEL"] == "info"
    assert environment["PRSMD_DEPLOYMENT_ID"] == deployment
    assert environment["PRSMD_REPLICA_ID"] == replica.id
