"""Reports never leave out what serves, never raise for what vanished, and say what is going on."""

import asyncio

import pytest

from prsmd.domain.errors import (
    DeploymentNotFoundError,
    ModelNotFoundError,
    PermissionDeniedError,
)
from prsmd.domain.replica import ReplicaState
from prsmd.service.status import Page
from prsmd.store.db import Tx
from tests.engine.harness import Life, World, caller, spec

HUGE = "models/huge:1"


async def test_a_running_deployment_is_reported_with_its_replicas(life: Life) -> None:
    deployment = await life.deploy(min_replicas=2)
    await life.settle()
    await life.tick()
    report = await life.services.status.get(caller("viewer"), deployment)

    assert report.view.status.value == "running"
    assert [one.ready for one in report.replicas] == [True, True]
    assert report.load.targets == 2


async def test_a_pull_in_progress_is_told_with_how_far_it_is(life: Life, world: World) -> None:
    world.engine.make_pullable(HUGE)
    world.engine.become_slow(3600)
    deployment = await life.deploy(given=spec(image=HUGE))
    queued = await life.services.status.get(caller(), deployment)
    assert queued.replicas == ()
    await life.until(lambda: _pulls(life))

    report = await life.services.status.get(caller(), deployment)

    assert report.replicas[0].message == f"pulling {HUGE}: 0 MB"
    assert report.view.status.value == "deploying"


async def test_a_healthy_replica_is_never_hidden_behind_many_failures(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    await life.settle()
    [healthy] = await life.active()
    await life.scale(2)
    world.engine.refuse_launches("no")
    for _ in range(60):
        world.ahead += 400
        await life.settle()
    assert len(await life.replicas(ReplicaState.FAILED)) == 60

    report = await life.services.status.get(caller(), deployment)
    lines = await life.services.logs._replicas(caller(), deployment, None)

    assert healthy.id in {one.replica.id for one in report.replicas}
    assert report.view.ready_replicas == 1
    assert healthy.id in {row.id for row in lines}


async def test_a_replica_that_starts_says_why_it_is_not_ready(life: Life, world: World) -> None:
    world.server.health = 503
    deployment = await life.deploy()
    await life.until(lambda: _says(life, deployment, "/health answered 503"))


async def test_a_failed_replica_says_how_it_ended(life: Life, world: World) -> None:
    deployment = await life.deploy()
    await life.settle()
    [replica] = await life.active()
    world.engine.crash(replica.id, out_of_memory=True)
    await life.settle()

    report = await life.services.status.get(caller(), deployment)

    assert report.replicas[0].message.startswith("needed more than its memory limit")
    assert report.view.status.value == "degraded"


async def test_waiting_returns_as_soon_as_the_deployment_has_settled(life: Life) -> None:
    deployment = await life.deploy()
    waiting = asyncio.create_task(life.services.status.get(caller(), deployment, 60.0))
    await life.settle()
    await life.tick()

    report = await waiting
    assert report.view.status.value == "running"


async def test_who_waits_for_a_deployment_that_goes_is_told_that_it_is_gone(life: Life) -> None:
    deployment = await life.deploy()
    await life.settle()
    await life.delete()
    waiting = asyncio.create_task(life.services.status.get(caller(), deployment, 60.0))
    await life.settle()

    with pytest.raises(DeploymentNotFoundError):
        await waiting


async def test_lists_and_metrics_go_on_while_deployments_vanish(life: Life) -> None:
    for number in range(4):
        await life.deploy(f"m{number}")
    await life.settle()
    looking = [asyncio.create_task(_look(life)) for _ in range(8)]
    for number in range(4):
        await life.delete(f"m{number}")
    await life.settle()

    for looked in await asyncio.gather(*looking):
        assert looked <= 4
    assert await life.services.status.all() == []


async def test_metrics_of_one_organization_read_nothing_of_another_s(life: Life) -> None:
    """The other's rows could not even be read."""
    await life.deploy("mine")
    theirs = await life.services.deployments.deploy(caller("owner", "rival"), "theirs", spec())
    await life.settle()
    both = await life.services.status.all()

    async def break_them(tx: Tx) -> None:
        other = (theirs.deployment.id,)
        await tx.execute("UPDATE deployments SET recommendation = '{' WHERE id = ?", other)
        await tx.execute("UPDATE replicas SET placement = '{' WHERE deployment_id = ?", other)

    await life.database.write(break_them)
    mine = await life.services.status.all("default")

    assert {one.deployment.model_name for one in both} == {"mine", "theirs"}
    assert [one.deployment.model_name for one in mine] == ["mine"]
    assert [len(one.replicas) for one in mine] == [1]


async def test_a_page_shows_only_what_the_caller_may_see(life: Life) -> None:
    await life.deploy("mine")
    await life.services.deployments.deploy(caller("owner", "rival"), "theirs", spec())
    pages = {
        organization: await life.services.status.page(caller("viewer", organization), Page())
        for organization in ("default", "rival", "nobody")
    }
    everything, total = await life.services.status.page(caller("admin"), Page())

    assert [one.deployment.model_name for one in pages["default"][0]] == ["mine"]
    assert [one.deployment.model_name for one in pages["rival"][0]] == ["theirs"]
    assert pages["nobody"] == ([], 0)
    assert (len(everything), total) == (2, 2)


async def test_foreign_and_unknown_are_not_told_apart(life: Life) -> None:
    deployment = await life.deploy()
    stranger = caller("owner", "rival")
    for reference in (deployment, "legal", "nothing"):
        with pytest.raises(DeploymentNotFoundError):
            await life.services.status.get(stranger, reference)
    with pytest.raises(ModelNotFoundError):
        await life.services.status.model(stranger, "legal")


async def test_who_may_not_read_is_denied(life: Life) -> None:
    from prsmd.domain.access import Permission

    await life.deploy()
    with pytest.raises(PermissionDeniedError):
        await life.services.status.page(caller("invoker"), Page(), Permission.MODELS_DELETE)


async def _look(life: Life) -> int:
    reports, _ = await life.services.status.page(caller(), Page())
    everything = await life.services.status.all()
    return max(len(reports), len(everything))


async def _pulls(life: Life) -> bool:
    return life.appliance.parts.launcher.progress("default", HUGE) is not None


async def _says(life: Life, deployment: str, words: str) -> bool:
    await life.tick()
    report = await life.services.status.get(caller(), deployment)
    return any(words in one.message for one in report.replicas)
