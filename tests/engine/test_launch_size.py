"""What the kernel would not start is refused in words, with what the image sets counted in."""

import dataclasses

from prsmd.domain.rollout import RolloutPhase
from prsmd.store import rollouts
from tests.engine.harness import IMAGE, Life, spec

LARGE = {f"I{n}": "x" * 100_000 for n in range(19)}  # what the kernel takes, nearly


def let_the_image_set(life: Life, variables: dict[str, str]) -> None:
    shelf = life.world.engine.shelf
    shelf.images[IMAGE] = dataclasses.replace(shelf.images[IMAGE], environment=variables)


async def test_a_model_whose_image_leaves_no_room_for_its_variables_says_so(life: Life):
    let_the_image_set(life, LARGE)
    given = dataclasses.replace(spec(), environment={f"V{n}": "y" * 50_000 for n in range(4)})
    deployment = await life.deploy(given=given)
    await life.tick()
    await life.until(lambda: failed(life))
    said = [
        one.message for one in await life.events(deployment) if one.reason == "ImageUnavailable"
    ]
    assert said
    assert "with what the image sets" in said[0]
    assert not await life.containers()


async def test_an_update_that_leaves_no_room_touches_nothing_that_serves(life: Life):
    await life.deploy()
    await life.settle()
    before = {row.id for row in await life.active()}
    let_the_image_set(life, LARGE)
    await life.update({f"V{n}": "y" * 50_000 for n in range(4)})
    await life.tick()
    await life.until(lambda: given_up(life))
    assert {row.id for row in await life.active()} == before


async def failed(life: Life) -> bool:
    return any(row.exit is not None for row in await life.replicas())


async def given_up(life: Life) -> bool:
    [deployment] = await life.deployments()
    async with life.database.read() as tx:
        latest = await rollouts.latest(tx, deployment.id)
    assert latest is not None
    if latest.phase is not RolloutPhase.ROLLED_BACK:
        return False
    assert "with what the image sets" in str(latest.outcome)
    return True
