"""Lists hold exactly what a caller may look at one by one."""

import pytest

from prsmd.core.principals import principal_of
from prsmd.domain.access import Binding, Permission
from prsmd.domain.deployment import Deployment
from prsmd.service.caller import Caller
from prsmd.service.listing import listed
from prsmd.store import deployments
from prsmd.store.db import Database

MODELS = [("a1", "acme"), ("a2", "acme"), ("r1", "rival")]


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path / "state")

    async def write(tx):
        for name, organization in MODELS:
            made = Deployment(
                id=f"deploy_{name}",
                organization=organization,
                model_id=f"custom_{name}",
                model_name=name,
                revision=1,
                asked_replicas=0,
                created_at=1.0,
                updated_at=1.0,
            )
            await deployments.add(tx, made)

    await opened.write(write)
    yield opened
    await opened.close()


def caller(*bindings, only=None):
    return Caller(principal_of("uid:1", "acme", bindings, {}, only), "req_1")


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        (caller(Binding("viewer")), {"a1", "a2"}),
        (caller(Binding("admin")), {"a1", "a2", "r1"}),
        (caller(Binding("viewer", "deploy_a1")), {"a1"}),
        (caller(Binding("viewer", "deploy_r1")), set()),
        (caller(Binding("viewer"), only=["custom_a2"]), {"a2"}),
        (caller(Binding("viewer"), only=["a2", "custom_r1"]), {"a2"}),
        (caller(Binding("viewer", "deploy_a1"), only=["a2"]), set()),
        (caller(), set()),
    ],
)
async def test_a_list_is_of_what_the_caller_may_see(database, who, seen):
    async with database.read() as tx:
        whose, also = await listed(tx, who, Permission.MODELS_READ)
        found, total = await deployments.page(tx, whose, 100, 0, also=also)
    assert {one.model_name for one in found} == seen
    assert total == len(seen)


async def test_who_may_infer_with_one_model_is_not_shown_others_to_infer_with(database):
    who = caller(Binding("viewer"), Binding("invoker", "deploy_a1"))
    async with database.read() as tx:
        whose, also = await listed(tx, who, Permission.MODELS_INFER)
        found, _ = await deployments.page(tx, whose, 100, 0, also=also)
    assert [one.model_name for one in found] == ["a1"]
