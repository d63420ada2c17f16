"""Times that a clock which was ahead stored become the present, and no others are touched."""

import dataclasses

import pytest

from prsmd.store import replicas, rollouts
from prsmd.store.future_times import clamp
from tests.store.store_samples import REPLICA, ROLLOUT, one_deployment, two_revisions

TIMES = ("created_at", "started_at", "ready_at", "draining_since", "finished_at")


@pytest.mark.parametrize("name", TIMES)
async def test_a_time_of_a_replica_that_lies_in_the_future_becomes_the_present(name):
    before = dataclasses.replace(REPLICA, started_at=101.0)
    ahead = dataclasses.replace(before, **{name: 900.0})
    async with one_deployment() as tx:
        await replicas.add(tx, before)
        await replicas.save(tx, ahead)
        await clamp(tx, 200.0)
        assert await replicas.get(tx, ahead.id) == dataclasses.replace(ahead, **{name: 200.0})


async def test_what_has_happened_stays_as_it_is():
    known = dataclasses.replace(REPLICA, started_at=101.0, ready_at=200.0)
    async with two_revisions() as tx:
        await replicas.add(tx, known)
        await rollouts.add(tx, ROLLOUT)
        await clamp(tx, 200.0)
        assert await replicas.get(tx, known.id) == known
        assert await rollouts.list_for(tx, ROLLOUT.deployment_id) == [ROLLOUT]


@pytest.mark.parametrize("since", [None, 50.0, 900.0])
async def test_the_times_of_a_rollout_that_lie_in_the_future_become_the_present(since):
    ahead = dataclasses.replace(ROLLOUT, started_at=900.0, step_since=since)
    async with two_revisions() as tx:
        await rollouts.add(tx, ahead)
        await clamp(tx, 200.0)
        [found] = await rollouts.list_for(tx, ahead.deployment_id)
        kept = None if since is None else min(since, 200.0)
        assert found == dataclasses.replace(ahead, started_at=200.0, step_since=kept)
