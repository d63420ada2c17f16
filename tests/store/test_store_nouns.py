"""What each noun's file promises beyond giving back what it was given."""

import dataclasses
import sqlite3

import pytest

from prsmd.domain.access import ApiKey
from prsmd.domain.deployment import Recommendation, ScalingStrategy
from prsmd.domain.errors import ConflictError, InvalidInputError, NotFoundError
from prsmd.domain.events import AuditFilter, AuditRecord
from prsmd.domain.replica import TRANSITIONS, ReplicaState
from prsmd.store import audit, deployments, events, history, keys, replicas, revisions
from prsmd.store.errors import IllegalTransitionError
from tests.store.store_samples import (
    DEPLOYMENT,
    EVENT,
    REPLICA,
    bare_schema,
    deployment,
    one_deployment,
)

THOUGHT = Recommendation(replicas=3, reasons=("busy",), utilization=0.9, at=150.0)


async def test_an_organization_has_a_model_name_and_id_once_and_another_may_have_both_too():
    async with bare_schema() as tx:
        await deployments.add(tx, DEPLOYMENT)
        await deployments.add(tx, dataclasses.replace(DEPLOYMENT, id="d2", organization="other"))
        for same in ("model_name", "model_id"):
            twin = deployment(3, **{same: getattr(DEPLOYMENT, same)})
            with pytest.raises(ConflictError, match="acme has a model"):
                await deployments.add(tx, twin)


async def test_a_model_is_found_by_id_before_name_and_only_in_its_organization():
    by_id = deployment(1, model_id="custom_x", created_at=200.0)
    by_name = deployment(2, model_name="custom_x")
    foreign = deployment(3, model_name="theirs", organization="other")
    async with bare_schema() as tx:
        for each in (by_id, by_name, foreign):
            await deployments.add(tx, each)
        assert await deployments.find_model(tx, "custom_x", "acme") == by_id
        assert await deployments.find_model(tx, "m1", "acme") == by_id
        assert await deployments.find_model(tx, "theirs", "acme") is None
        assert await deployments.list_named(tx, "theirs") == [foreign]
        assert await deployments.list_named(tx, "custom_x") == [by_id, by_name]
        assert await deployments.list_named(tx, "custom_") == []


async def test_pages_are_sorted_cut_and_counted():
    names = ["b", "a", "d", "c"]
    async with bare_schema() as tx:
        for number, name in enumerate(names):
            await deployments.add(tx, deployment(number, model_name=name, created_at=number))
        await deployments.add(tx, deployment(9, organization="other"))
        found, total = await deployments.page(tx, "acme", 2, 1, ("model_name", "asc"))
        assert ([each.model_name for each in found], total) == (["b", "c"], 4)
        found, total = await deployments.page(tx, None, 1, 0, ("created_at", "desc"))
        assert ([each.id for each in found], total) == (["deploy_9"], 5)


@pytest.mark.parametrize(
    ("sort_by", "order"), [("id; DROP TABLE deployments", "asc"), ("id", "asc"), ("model_id", "up")]
)
async def test_only_listed_columns_and_orders_sort(sort_by, order):
    async with bare_schema() as tx:
        with pytest.raises(InvalidInputError):
            await deployments.page(tx, None, 1, 0, (sort_by, order))


async def test_a_person_asking_forgets_what_the_autoscaler_thought():
    async with one_deployment() as tx:
        assert await deployments.set_recommendation(tx, "deploy_1", THOUGHT)
        kept = await deployments.get(tx, "deploy_1")
        assert kept == dataclasses.replace(DEPLOYMENT, recommendation=THOUGHT)
        await deployments.set_asked(tx, "deploy_1", 5, ScalingStrategy.GRADUAL, 200.0)
        assert await deployments.get(tx, "deploy_1") == dataclasses.replace(
            DEPLOYMENT,
            asked_replicas=5,
            scaling_strategy=ScalingStrategy.GRADUAL,
            updated_at=200.0,
        )


async def test_changing_what_is_not_there_says_so():
    async with bare_schema() as tx:
        assert not await deployments.set_asked(tx, "d", 1, ScalingStrategy.GRADUAL, 1.0)
        assert not await deployments.set_recommendation(tx, "d", THOUGHT)
        assert not await deployments.mark_deleting(tx, "d", 1.0)
        assert not await deployments.remove(tx, "d")
        assert not await revisions.set_digest(tx, "d", 1, "sha256:0")
        with pytest.raises(NotFoundError):
            await replicas.save(tx, REPLICA)


async def test_removing_a_deployment_takes_everything_of_it_and_nothing_else():
    async with one_deployment() as tx:
        await deployments.add(tx, deployment(2))
        await replicas.add(tx, REPLICA)
        await events.append(tx, EVENT)
        await events.append(tx, dataclasses.replace(EVENT, deployment_id="deploy_2"))
        assert await deployments.mark_deleting(tx, "deploy_1", 200.0)
        assert await deployments.remove(tx, "deploy_1")
        assert [each.id for each in await deployments.list_all(tx)] == ["deploy_2"]
        assert await revisions.list_for(tx, "deploy_1") == []
        assert await replicas.list_current(tx) == []
        assert await events.latest(tx, "deploy_1", 9) == []
        assert len(await events.latest(tx, "deploy_2", 9)) == 1


async def test_a_replica_needs_its_revision():
    async with one_deployment() as tx:
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            await replicas.add(tx, dataclasses.replace(REPLICA, revision=2))


@pytest.mark.parametrize("before", ReplicaState)
@pytest.mark.parametrize("after", ReplicaState)
async def test_replica_states_only_move_as_the_table_says(before, after):
    stored = dataclasses.replace(REPLICA, state=before)
    changed = dataclasses.replace(stored, state=after, container_id="c1")
    allowed = after in TRANSITIONS[before] or (after == before and stored.active)
    async with one_deployment() as tx:
        await replicas.add(tx, stored)
        if allowed:
            await replicas.save(tx, changed)
        else:
            with pytest.raises(IllegalTransitionError):
                await replicas.save(tx, changed)
        assert await replicas.get(tx, REPLICA.id) == (changed if allowed else stored)


async def _fill_slots(tx):
    for slot in range(2):
        for number in range(5):
            replica = dataclasses.replace(
                REPLICA,
                id=f"s{slot}-{number}",
                slot=slot,
                created_at=float(number),
                state=ReplicaState.RUNNING if number == 0 else ReplicaState.FAILED,
            )
            await replicas.add(tx, replica)


async def test_current_replicas_are_the_active_and_each_slots_newest_ended():
    async with one_deployment() as tx:
        await _fill_slots(tx)
        found = [replica.id for replica in await replicas.list_current(tx, 2)]
        assert found == ["s0-0", "s1-0", "s0-3", "s1-3", "s0-4", "s1-4"]
        assert [each.id for each in await replicas.list_for(tx, "deploy_1", 2)] == ["s1-4", "s0-4"]


async def test_pruning_replicas_spares_active_ones():
    async with one_deployment() as tx:
        await _fill_slots(tx)
        assert await replicas.prune(tx, 1) == 7
        left = [replica.id for replica in await replicas.list_current(tx)]
        assert left == ["s0-0", "s1-0", "s1-4"]


async def test_events_follow_on_from_a_number_and_pruning_never_reuses_one():
    async with one_deployment() as tx:
        stored = [await events.append(tx, EVENT) for _ in range(5)]
        assert await events.list_for(tx, "deploy_1", stored[1].sequence, 2) == stored[2:4]
        assert await events.latest(tx, "deploy_1", 2) == stored[3:]
        assert await events.prune(tx, 1) == 4
        assert await events.latest(tx, "deploy_1", 9) == stored[4:]
        assert await events.prune(tx, 0) == 1
        assert (await events.append(tx, EVENT)).sequence > stored[-1].sequence


async def test_audit_pages_show_only_the_organizations_records():
    def record(number, organization):
        return AuditRecord(
            at=float(number),
            principal="key_1",
            organization=organization,
            action="deploy",
            subject=f"m{number}",
            outcome="allowed",
            request_id="r",
        )

    async with bare_schema() as tx:
        for number in range(6):
            await audit.append(tx, record(number, "acme" if number % 2 else "other"))
        found, total = await audit.page(tx, AuditFilter(organization="acme"), 2, 1)
        assert ([each.subject for each in found], total) == (["m3", "m1"], 3)


async def test_details_that_json_cannot_hold_are_refused():
    record = AuditRecord(
        at=1.0,
        principal="p",
        organization="o",
        action="a",
        subject="s",
        outcome="allowed",
        request_id="r",
        details={"load": float("nan")},
    )
    async with bare_schema() as tx:
        with pytest.raises(ValueError, match="JSON"):
            await audit.append(tx, record)


async def test_a_key_is_revoked_once_and_stays_readable():
    key = ApiKey(
        id="k", organization="o", role="viewer", name="n", digest=b"\x00\xff", created_at=1.0
    )
    async with bare_schema() as tx:
        await keys.add(tx, key)
        assert await keys.list_for(tx, "other") == []
        assert await keys.revoke(tx, "k", 5.0)
        assert not await keys.revoke(tx, "k", 6.0)
        assert not await keys.revoke(tx, "unknown", 6.0)
        assert await keys.get(tx, "k") == dataclasses.replace(key, revoked_at=5.0)


async def test_the_typical_time_is_the_median_of_the_last_twenty():
    async with bare_schema() as tx:
        assert await history.typical(tx, "acme", "i", "pull") is None
        assert await history.typical_any(tx, "pull") is None
        for number in range(30):
            await history.record(tx, "acme", "i", "pull", 1000.0 if number < 10 else 3.0, number)
        await history.record(tx, "acme", "j", "start", 7.0, 1.0)
        assert await history.typical(tx, "acme", "i", "pull") == 3.0
        assert await history.typical(tx, "acme", "i", "start") is None
        assert await history.typical_any(tx, "start") == 7.0
        assert await history.prune(tx, 20) == 10
        assert await history.typical(tx, "acme", "i", "pull") == 3.0


async def test_durations_of_one_organization_are_bounded_whatever_names_its_images_have():
    async with bare_schema() as tx:
        for n in range(12):
            await history.record(tx, "acme", f"models/a:{n}", "pull", 1.0, n)
        await history.record(tx, "rival", "models/a:0", "pull", 2.0, 1.0)
        assert await history.prune(tx, keep_of_one=5) == 7
        assert await history.typical(tx, "acme", "models/a:6", "pull") is None
        assert await history.typical(tx, "acme", "models/a:7", "pull") == 1.0
        assert await history.typical(tx, "rival", "models/a:0", "pull") == 2.0
