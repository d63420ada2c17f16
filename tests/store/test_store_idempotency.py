"""Remembered answers: one for each principal and key, for a day."""

import dataclasses

import pytest

from prsmd.store import idempotency
from prsmd.store.idempotency import KEPT_SECONDS, AlreadyRememberedError
from tests.store.store_samples import REMEMBERED, bare_schema

OTHER = dataclasses.replace(REMEMBERED, fingerprint="g", body='{"second": true}')


async def test_the_second_answer_under_a_key_is_refused_with_the_first():
    async with bare_schema() as tx:
        await idempotency.add(tx, REMEMBERED)
        with pytest.raises(AlreadyRememberedError) as refusal:
            await idempotency.add(tx, OTHER)
        assert refusal.value.remembered == REMEMBERED
        assert await idempotency.find(tx, "key_1", "once") == REMEMBERED


async def test_two_principals_may_use_the_same_key():
    theirs = dataclasses.replace(OTHER, principal="key_2")
    async with bare_schema() as tx:
        await idempotency.add(tx, REMEMBERED)
        await idempotency.add(tx, theirs)
        assert await idempotency.find(tx, "key_1", "once") == REMEMBERED
        assert await idempotency.find(tx, "key_2", "once") == theirs
        assert await idempotency.find(tx, "key_2", "other") is None


async def test_an_answer_older_than_a_day_gives_way_before_it_is_swept():
    at_last = dataclasses.replace(OTHER, created_at=REMEMBERED.created_at + KEPT_SECONDS)
    after = dataclasses.replace(at_last, created_at=at_last.created_at + 0.001)
    async with bare_schema() as tx:
        await idempotency.add(tx, REMEMBERED)
        with pytest.raises(AlreadyRememberedError):
            await idempotency.add(tx, at_last)
        assert await idempotency.find(tx, "key_1", "once", REMEMBERED.created_at + 1) is None
        await idempotency.add(tx, after)
        assert await idempotency.find(tx, "key_1", "once") == after


async def test_pruning_forgets_only_what_is_older():
    young = dataclasses.replace(OTHER, key="later", created_at=200.0)
    async with bare_schema() as tx:
        await idempotency.add(tx, REMEMBERED)
        await idempotency.add(tx, young)
        assert await idempotency.prune(tx, 200.0) == 1
        assert await idempotency.find(tx, "key_1", "once") is None
        assert await idempotency.find(tx, "key_1", "later") == young
