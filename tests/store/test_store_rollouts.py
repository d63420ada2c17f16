"""Rollouts and what they add to revisions and deployments: one under way, no lost change."""

import dataclasses
import sqlite3

import pytest

from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.errors import ConflictError
from prsmd.domain.rollout import RolloutPhase
from prsmd.store import deployments, revisions, rollouts
from prsmd.store.rows import change
from tests.store.store_samples import (
    DEPLOYMENT,
    ROLLOUT,
    bare_schema,
    deployment,
    one_deployment,
    two_revisions,
)

ENDED = dataclasses.replace(ROLLOUT, phase=RolloutPhase.COMPLETED, finished_at=200.0)


async def test_at_most_one_rollout_of_a_deployment_is_under_way():
    second = dataclasses.replace(ROLLOUT, number=2)
    async with two_revisions() as tx:
        await rollouts.add(tx, ROLLOUT)
        with pytest.raises(ConflictError, match="under way"):
            await rollouts.add(tx, second)
        assert await rollouts.replace(tx, ROLLOUT, ENDED)
        await rollouts.add(tx, second)
        assert await rollouts.list_for(tx, "deploy_1") == [second, ENDED]
        assert await rollouts.latest(tx, "deploy_1") == second
        assert await rollouts.list_for(tx, "deploy_1", 1) == [second]


async def test_rollouts_are_numbered_from_one_for_each_deployment():
    async with two_revisions() as tx:
        assert await rollouts.next_number(tx, "deploy_1") == 1
        await rollouts.add(tx, dataclasses.replace(ENDED, number=7))
        assert await rollouts.next_number(tx, "deploy_1") == 8
        assert await rollouts.next_number(tx, "deploy_2") == 1


async def test_a_change_made_from_an_old_reading_is_not_written():
    paused = dataclasses.replace(ROLLOUT, paused=True)
    async with two_revisions() as tx:
        await rollouts.add(tx, ROLLOUT)
        assert await rollouts.replace(tx, ROLLOUT, paused)
        assert not await rollouts.replace(tx, ROLLOUT, ENDED)
        assert await rollouts.latest(tx, "deploy_1") == paused


async def test_a_rollout_that_is_gone_is_not_written():
    async with two_revisions() as tx:
        assert not await rollouts.replace(tx, ROLLOUT, ENDED)
        assert await rollouts.latest(tx, "deploy_1") is None
        assert await rollouts.get(tx, "deploy_1", 1) is None


async def test_a_rollout_needs_its_revisions_and_goes_with_its_deployment():
    async with two_revisions() as tx:
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            await rollouts.add(tx, dataclasses.replace(ROLLOUT, to_revision=3))
        await rollouts.add(tx, ROLLOUT)
        assert await deployments.remove(tx, "deploy_1")
        assert await rollouts.list_for(tx, "deploy_1") == []


async def test_a_rollout_stored_by_another_release_keeps_what_is_known_and_gets_defaults():
    async with two_revisions() as tx:
        await rollouts.add(tx, dataclasses.replace(ROLLOUT, step=3))
        await change(
            tx, "UPDATE rollouts SET value = json_set(json_remove(value, '$.paused'), '$.new', 1)"
        )
        assert await rollouts.latest(tx, "deploy_1") == dataclasses.replace(ROLLOUT, step=3)


async def test_a_revision_is_good_from_the_first_time_on():
    async with two_revisions() as tx:
        assert await revisions.note_good(tx, "deploy_1", 1, 5.0)
        assert not await revisions.note_good(tx, "deploy_1", 1, 6.0)
        assert not await revisions.note_good(tx, "deploy_1", 9, 6.0)
        assert [each.good_at for each in await revisions.list_for(tx, "deploy_1")] == [5.0, None]


async def test_numbers_of_revisions_go_on():
    async with two_revisions() as tx:
        assert await revisions.next_number(tx, "deploy_1") == 3


async def test_wanted_and_stable_revision_and_where_scaling_began_are_kept():
    async with one_deployment() as tx:
        assert await deployments.set_revision(tx, "deploy_1", 4, 200.0)
        assert await deployments.set_stable(tx, "deploy_1", 3)
        await deployments.set_asked(tx, "deploy_1", 5, ScalingStrategy.GRADUAL, 300.0, 2)
        expected = dataclasses.replace(
            DEPLOYMENT,
            revision=4,
            stable_revision=3,
            asked_replicas=5,
            gradual_level=2,
            scaling_strategy=ScalingStrategy.GRADUAL,
            updated_at=300.0,
        )
        assert await deployments.get(tx, "deploy_1") == expected
        await deployments.set_asked(tx, "deploy_1", 5, ScalingStrategy.IMMEDIATE, 300.0)
        assert (await deployments.get(tx, "deploy_1")).gradual_level is None


async def test_revisions_of_what_is_not_there_are_not_set():
    async with bare_schema() as tx:
        await deployments.add(tx, deployment(2))
        assert not await deployments.set_revision(tx, "deploy_1", 2, 1.0)
        assert not await deployments.set_stable(tx, "deploy_1", 2)
        assert await deployments.get(tx, "deploy_2") == deployment(2)
