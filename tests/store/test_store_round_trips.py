"""Everything that is stored comes back equal."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from prsmd.core.chain import Head, Walk, canonical, content_of, digest_of
from prsmd.store import (
    attestations,
    audit,
    deployments,
    events,
    idempotency,
    keys,
    meta,
    replicas,
    revisions,
    rollouts,
)
from prsmd.store.specs import decode, encode, spec_hash
from tests.store.store_samples import (
    DEPLOYMENT,
    audit_values,
    bare_schema,
    deployments_values,
    events_values,
    keys_values,
    one_deployment,
    remembered_values,
    replicas_values,
    revisions_values,
    rollouts_values,
    specs,
    two_revisions,
    words,
)

quick = settings(max_examples=25, deadline=None)


@given(specs)
def test_a_spec_survives_json(spec):
    assert decode(encode(spec)) == spec


@given(specs)
def test_equal_specs_have_equal_hashes_whatever_the_order_of_their_variables(spec):
    reordered = dataclasses.replace(spec, environment=dict(reversed(spec.environment.items())))
    assert spec_hash(spec) == spec_hash(reordered) == spec_hash(decode(encode(spec)))


@given(specs, specs)
def test_different_specs_have_different_hashes(one, other):
    assert (spec_hash(one) == spec_hash(other)) == (one == other)


def test_a_stored_spec_from_before_a_field_existed_gets_its_default():
    old = '{"image": "i", "model_type": "t", "resources": {"cpu_millis": 1, "memory_bytes": 2}}'
    assert decode(old).serving.port == 8080


@quick
@given(deployments_values)
async def test_deployment(deployment):
    async with bare_schema() as tx:
        await deployments.add(tx, deployment)
        assert await deployments.get(tx, deployment.id) == deployment
        assert await deployments.list_all(tx) == [deployment]


@quick
@given(revisions_values, words)
async def test_revision(revision, digest):
    async with one_deployment() as tx:
        await revisions.add(tx, revision)
        assert await revisions.get(tx, "deploy_1", revision.number) == revision
        assert await revisions.set_digest(tx, "deploy_1", revision.number, digest)
        [_, stored] = await revisions.list_for(tx, "deploy_1")
        assert stored == dataclasses.replace(revision, image_digest=digest)


@quick
@given(rollouts_values, rollouts_values)
async def test_rollout(rollout, other):
    async with two_revisions() as tx:
        await rollouts.add(tx, rollout)
        assert await rollouts.get(tx, "deploy_1", rollout.number) == rollout
        later = dataclasses.replace(other, number=rollout.number)
        assert await rollouts.replace(tx, rollout, later)
        assert await rollouts.latest(tx, "deploy_1") == later


@quick
@given(remembered_values)
async def test_remembered_answer(remembered):
    async with bare_schema() as tx:
        await idempotency.add(tx, remembered)
        assert await idempotency.find(tx, remembered.principal, remembered.key) == remembered


@quick
@given(replicas_values)
async def test_replica(replica):
    async with one_deployment() as tx:
        await replicas.add(tx, replica)
        assert await replicas.get(tx, replica.id) == replica
        assert await replicas.list_current(tx) == [replica]


@quick
@given(st.lists(events_values, max_size=5))
async def test_events_keep_their_order(happened):
    async with one_deployment() as tx:
        stored = [await events.append(tx, event) for event in happened]
        assert await events.list_for(tx, DEPLOYMENT.id, 0, 10) == stored
    assert [dataclasses.replace(event, sequence=0) for event in stored] == happened
    numbers = [event.sequence for event in stored]
    assert numbers == sorted(set(numbers))


@quick
@given(st.lists(audit_values, max_size=4))
async def test_audit_records_come_back_as_they_were_hashed(records):
    async with bare_schema() as tx:
        for record in records:
            await audit.append(tx, record)
        found, total = await audit.page(tx, None, 10, 0)
        head = (await attestations.chain(tx)).head
    bare = [dataclasses.replace(each, sequence=0, salt="", hash="", size=0) for each in found]
    assert (bare, total) == (records[::-1], len(records))
    walk = Walk("changes", Head())
    for each in reversed(found):
        assert walk.step(each.sequence, digest_of(canonical(content_of(each))), each.hash) is None
    assert walk.at == head


@quick
@given(keys_values)
async def test_key(key):
    async with bare_schema() as tx:
        await keys.add(tx, key)
        assert await keys.get(tx, key.id) == key
        assert await keys.list_for(tx, key.organization) == [key]


@quick
@given(words, words, words)
async def test_meta(key, first, second):
    async with bare_schema() as tx:
        assert await meta.get(tx, key) is None
        await meta.set(tx, key, first)
        await meta.set(tx, key, second)
        assert await meta.get(tx, key) == second
