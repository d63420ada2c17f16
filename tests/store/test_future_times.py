"""Moments of a clock that was ahead are brought back, and no others are touched."""

import dataclasses

import pytest

from prsmd.store import replicas, rollouts
from prsmd.store.moments import bring_back
from tests.store.store_samples import REPLICA, ROLLOUT, one_deployment, two_revisions

MOMENTS = ("created_at", "started_at", "ready_at", "draining_since", "finished_at")


@pytest.mark.parametrize("name", MOMENTS)
async def test_a_moment_of_a_replica_that_is_to_come_becomes_the_present_one(name):
    before = dataclasses.replace(REPLICA, started_at=101.0)
    ahead = dataclasses.replace(before, **{name: 900.0})
    async with one_deployment() as tx:
        await replicas.add(tx, before)
        await replicas.save(tx, ahead)
        await bring_back(tx, 200.0)
        assert await replicas.get(tx, ahead.id) == dataclasses.replace(ahead, **{name: 200.0})


async def test_what_has_happened_stays_as_it_is():
    known = dataclasses.replace(REPLICA, started_at=101.0, ready_at=200.0)
    async with two_revisions() as tx:
        await replicas.add(tx, known)
        await rollouts.add(tx, ROLLOUT)
        await bring_back(tx, 200.0)
        assert await replicas.get(tx, known.id) == known
        assert await rollouts.list_for(tx, ROLLOUT.deployment_id) == [ROLLOUT]


@pytest.mark.parametrize("since", [None, 50.0, 900.0])
async def test_the_moments_of_a_rollout_are_brought_back(since):
    ahead = dataclasses.replace(ROLLOUT, started_at=900.0, step_since=since)
    async with two_revisions() as tx:
        await rollouts.add(tx, ahead)
        await bring_back(tx, 200.0)
        [found] = await rollouts.list_for(tx, ahead.deployment_id)
        kept = None if since is None else min(since, 200.0)
        assert found == dataclasses.replace(ahead, started_at=200.0, step_since=kept)
