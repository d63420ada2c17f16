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


async def test_a_clock_that_was_set_ahead_makes_no_answer_give_way():
    later = dataclasses.replace(OTHER, created_at=REMEMBERED.created_at + 365 * KEPT_SECONDS)
    async with bare_schema() as tx:
        await idempotency.add(tx, REMEMBERED)
        with pytest.raises(AlreadyRememberedError):
            await idempotency.add(tx, later)
        assert await idempotency.find(tx, "key_1", "once") == REMEMBERED


async def test_pruning_forgets_only_what_is_older():
    young = dataclasses.replace(OTHER, key="later", created_at=200.0)
    async with bare_schema() as tx:
        await idempotency.add(tx, REMEMBERED)
        await idempotency.add(tx, young)
        assert await idempotency.prune(tx, 200.0) == 1
        assert await idempotency.find(tx, "key_1", "once") is None
        assert await idempotency.find(tx, "key_1", "later") == young
