"""Shares, what is set aside of their limits, and how much was used."""

import dataclasses

import pytest

from prsmd.core.blocks import TOTAL, Ask
from prsmd.domain.access import ROLES, ModelRef, Permission, Principal
from prsmd.domain.quota import Share, UsageLimits, Use
from prsmd.store import deployments, leases, shares, usage
from prsmd.store.db import USAGE, Database
from tests.store.store_samples import DEPLOYMENT, bare_schema

SHARE = Share(
    id="share_1",
    deployment_id="deploy_1",
    organization="acme",
    organizations=frozenset({"partner", "friend"}),
    keys=frozenset({"k1"}),
    permissions=frozenset({Permission.MODELS_READ, Permission.MODELS_INFER}),
    limits=UsageLimits(requests_per_day=1000, total_requests=10_000),
    expires_at=500.0,
    created_at=100.0,
    created_by="uid:0",
    updated_at=100.0,
)
USE = Use(
    day=10,
    deployment_id="deploy_1",
    organization="partner",
    principal="key:k1",
    owner="acme",
    model_id="custom_legal",
    requests=2,
    errors=1,
    seconds=0.5,
    request_bytes=10,
    answer_bytes=20,
)


def principal(organization: str, identity: str = "uid:5") -> Principal:
    return Principal(
        id=identity, organization=organization, role="invoker", permissions=ROLES["invoker"]
    )


async def stored(tx, *given: Share) -> None:
    await deployments.add(tx, DEPLOYMENT)
    for share in given:
        await shares.add(tx, share)


async def test_a_share_comes_back_as_it_was_given():
    bare = Share(
        id="share_2", deployment_id="deploy_1", organization="acme", permissions=frozenset()
    )
    async with bare_schema() as tx:
        await stored(tx, SHARE, bare)
        assert await shares.get(tx, "share_1") == SHARE
        assert await shares.get(tx, "share_2") == bare
        assert await shares.get(tx, "share_3") is None
        assert await shares.page(tx, "deploy_1", 10) == ([bare, SHARE], 2)
        assert await shares.page(tx, "deploy_1", 1, 1) == ([SHARE], 2)
        assert await shares.page(tx, "deploy_2", 10) == ([], 0)
        ref = ModelRef("deploy_1", DEPLOYMENT.model_id, DEPLOYMENT.model_name)
        assert await shares.list_all(tx) == [(bare, ref), (SHARE, ref)]


async def test_a_changed_share_reaches_whom_it_reaches_now():
    changed = dataclasses.replace(
        SHARE, organizations=frozenset({"other"}), keys=frozenset(), limits=UsageLimits()
    )
    async with bare_schema() as tx:
        await stored(tx, SHARE)
        await shares.put(tx, changed)
        assert await shares.get(tx, "share_1") == changed
        assert await shares.reaching(tx, principal("partner"), 200.0) == []
        assert await shares.reaching(tx, principal("other"), 200.0) == [changed]
        assert await shares.reaching(tx, principal("other"), 200.0, "deploy_1") == [changed]
        assert await shares.reaching(tx, principal("other"), 200.0, "deploy_2") == []


async def test_a_borrower_of_another_share_of_the_model_is_found_while_that_one_is_in_force():
    other = dataclasses.replace(SHARE, id="share_2", organizations=frozenset({"k1", "friend"}))
    async with bare_schema() as tx:
        await stored(tx, SHARE, other)
        assert await shares.lent_twice(tx, other, 499.9) == ("share_1", ["friend", "k1"])
        assert await shares.lent_twice(tx, other, 500.0) is None
        alone = dataclasses.replace(other, organizations=frozenset({"k1"}), keys=frozenset())
        await shares.put(tx, alone)
        assert await shares.lent_twice(tx, alone, 0.0) is None


@pytest.mark.parametrize(
    ("who", "now", "reached"),
    [
        (principal("partner"), 200.0, True),
        (principal("elsewhere", "key:k1"), 200.0, True),
        (principal("elsewhere", "key:partner"), 200.0, False),
        (principal("k1"), 200.0, False),
        (principal("acme"), 200.0, False),
        (principal("partner"), 500.0, False),
    ],
)
async def test_a_share_reaches_its_organizations_and_keys_until_it_expires(who, now, reached):
    async with bare_schema() as tx:
        await stored(tx, SHARE)
        own = dataclasses.replace(
            SHARE,
            organizations=SHARE.organizations & {who.organization},
            keys=SHARE.keys & {who.key_id},
        )
        assert await shares.reaching(tx, who, now) == ([own] if reached else [])
        for name in (DEPLOYMENT.id, DEPLOYMENT.model_id, DEPLOYMENT.model_name):
            found = await shares.lent_as(tx, who, name, now)
            assert found == ([DEPLOYMENT.id] if reached else [])
        assert await shares.lent_as(tx, who, "another", now) == []


async def test_a_share_goes_with_its_model_or_by_itself():
    async with bare_schema() as tx:
        await stored(tx, SHARE, dataclasses.replace(SHARE, id="share_2"))
        assert await shares.remove(tx, "share_1")
        assert not await shares.remove(tx, "share_1")
        await tx.execute_fetchall("PRAGMA foreign_keys = ON")
        await tx.execute_fetchall("DELETE FROM deployments")
        assert await shares.get(tx, "share_2") is None
        assert await tx.execute_fetchall("SELECT * FROM borrowers WHERE share_id = 'share_2'") == []


async def test_what_is_set_aside_adds_up_to_the_limit_and_no_further():
    ask = Ask("share_1/partner", TOTAL, limit=40, ahead=0, spare=0)
    async with bare_schema() as tx:
        given = [await leases.grant(tx, ask) for _ in range(60)]
        assert given[0] == (0, 2)
        assert given[-1] == (40, 40)
        assert await leases.reserved(tx, "share_1/partner", TOTAL) == 40
        assert await leases.reserved(tx, "share_1/friend", TOTAL) == 0
        accounts = ["share_1/partner", "share_1/friend"]
        assert await leases.reserved_of(tx, accounts, [TOTAL, 3]) == {accounts[0]: {TOTAL: 40}}
        assert await leases.reserved_of(tx, accounts, [3]) == {}


async def test_only_a_clean_stop_is_remembered_as_one_and_only_once():
    async with bare_schema() as tx:
        assert await leases.begin(tx, 10) == {}, "nothing was ever counted"
        assert await leases.begin(tx, 10) is None
        await leases.settle(tx, [("key:a", 10, 7)], {"key:a": 99.5})
        assert await leases.begin(tx, 10) == {"key:a": 99.5}
        assert await leases.reserved(tx, "key:a", 10) == 7
        assert await leases.begin(tx, 10) is None


async def test_past_days_and_what_shares_left_behind_are_forgotten():
    async with bare_schema() as tx:
        await stored(tx, SHARE)
        kept = [("share_1/partner", TOTAL, 1), ("key:a", 10, 1), ("key:a", 11, 1)]
        gone = [("share_9/partner", TOTAL, 1), ("key:a", 9, 1)]
        await leases.settle(tx, [*kept, *gone], {})
        await leases.begin(tx, 10)
        rows = await tx.execute_fetchall("SELECT account, day, reserved FROM leases")
        assert sorted(map(tuple, rows)) == sorted(kept)


@pytest.fixture
async def usage_file(tmp_path):
    opened = await Database.open(tmp_path, file=USAGE)
    yield opened
    await opened.close()


async def test_use_adds_up_by_day_and_principal(usage_file):
    other = dataclasses.replace(USE, principal="key:k2", requests=5)
    later = dataclasses.replace(USE, day=11)
    await usage_file.write(lambda tx: usage.add(tx, [USE, other, later]))
    await usage_file.write(lambda tx: usage.add(tx, [USE]))
    twice = dataclasses.replace(
        USE, requests=4, errors=2, seconds=1.0, request_bytes=20, answer_bytes=40
    )
    async with usage_file.read() as tx:
        assert await usage.page(tx, "deploy_1", (0, 99)) == ([later, twice, other], 3)
        assert await usage.page(tx, "deploy_1", (11, 11)) == ([later], 1)
        assert await usage.page(tx, "deploy_1", (0, 99), None, (1, 1)) == ([twice], 3)
        assert await usage.page(tx, "deploy_1", (0, 99), "acme") == ([], 0)
        assert await usage.page(tx, "deploy_2", (0, 99)) == ([], 0)


async def all_of(usage_file, organization=None, *, at_once: int, days=(0, 99)) -> list[list[Use]]:
    """The parts of an export, each read on its own."""
    parts: list[list[Use]] = []
    while not parts or len(parts[-1]) == at_once:
        last = parts[-1][-1] if parts else None
        async with usage_file.read() as tx:
            parts.append(await usage.after(tx, "deploy_1", days, organization, last, at_once))
    return parts


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("organization", [None, "partner", "nobody"])
async def test_the_parts_of_all_use_are_together_what_one_page_is(
    usage_file, at_once, organization
):
    uses = [
        dataclasses.replace(USE, day=day, organization=whose, principal=f"key:{name}")
        for day in (3, 10, 11, 40)
        for whose in ("acme", "partner")
        for name in ("a", "b", "c")
    ]
    other = dataclasses.replace(USE, deployment_id="deploy_2")
    await usage_file.write(lambda tx: usage.add(tx, [*uses, other]))

    parts = await all_of(usage_file, organization, at_once=at_once, days=(4, 40))

    async with usage_file.read() as tx:
        whole, _ = await usage.page(tx, "deploy_1", (4, 40), organization)
    assert [use for part in parts for use in part] == whole
    assert max(map(len, parts)) <= at_once


async def test_what_is_added_between_two_parts_makes_none_come_twice_or_go_missing(usage_file):
    uses = [dataclasses.replace(USE, principal=f"key:{name}") for name in "bdf"]
    earlier = dataclasses.replace(USE, day=9)
    await usage_file.write(lambda tx: usage.add(tx, [*uses, earlier]))
    async with usage_file.read() as tx:
        first = await usage.after(tx, "deploy_1", (0, 99), None, None, 2)
    added = [dataclasses.replace(USE, principal=f"key:{name}") for name in "ace"]
    newer = dataclasses.replace(USE, day=11)
    await usage_file.write(lambda tx: usage.add(tx, [*added, newer, *uses]))
    async with usage_file.read() as tx:
        second = await usage.after(tx, "deploy_1", (0, 99), None, first[-1], 100)

    assert [use.principal for use in first] == ["key:b", "key:d"]
    assert [(use.day, use.principal) for use in second] == [
        (10, "key:e"),
        (10, "key:f"),
        (9, "key:k1"),
    ]


async def test_use_of_long_ago_is_forgotten(usage_file):
    await usage_file.write(lambda tx: usage.add(tx, [USE]))
    assert await usage_file.write(lambda tx: usage.forget_before(tx, 10)) == 0
    assert await usage_file.write(lambda tx: usage.forget_before(tx, 11)) == 1
