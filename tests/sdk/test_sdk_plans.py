"""Dry runs through the client: nothing but the question is sent, and the plan comes back."""

import asyncio

import pytest

from prsm_sdk import PRSMClient, calls, errors, plans, revision_calls
from prsm_sdk.models import FieldChange
from prsm_sdk.plans import Plan, PlanCourse
from prsm_sdk.sync import SyncClient
from prsm_sdk.target import Target
from tests.sdk.wire_server import answers, cuts, refuses

ONE = "/v1/custom-models/m"
CHANGE = {"field": "deployment_config.container_image", "before": "m:1", "after": "m:2"}
STEP = {"kind": "launch", "reason": "needs a replica", "revision": 2, "slot": 0, "gpu_uuids": ["G"]}
HOLD = {"slot": 1, "revision": 2, "kind": "unplaceable", "reason": "no GPU", "details": ["G: full"]}
TOLD = {
    "dry_run": True,
    "action": "update",
    "model_id": "m",
    "revision": 2,
    "previous_revision": 1,
    "changes": [CHANGE],
    "image": {"reference": "m:2", "digest": None, "here": False},
    "plan": {"strategy": "surge", "steps": [STEP], "holds": [HOLD], "lowest_ready": 1},
}


async def test_every_change_can_be_asked_what_it_would_do(server):
    for method, path in (("POST", "deploy"), ("PUT", "m"), ("POST", "m/scale")):
        server.on(method, f"/v1/custom-models/{path}", answers(TOLD))
    server.on("POST", f"{ONE}/rollback", answers(TOLD))
    async with PRSMClient(base_url=server.unix_url) as client:
        models = client.custom_models
        found = [
            await models.deploy("m", "m:2", {"cpu": "1"}, idempotency_key="k", dry_run=True),
            await models.update("m", container_image="m:2", if_match=1, dry_run=True),
            await models.scale("m", 3, dry_run=True),
            await models.rollback("m", 1, dry_run=True),
        ]
    assert [type(plan) for plan in found] == [Plan] * 4
    assert [seen.query for seen in server.seen] == [{"dry_run": "true"}] * 4
    assert not any("Idempotency-Key" in seen.headers for seen in server.seen)
    assert server.seen[1].headers["If-Match"] == '"1"'
    assert server.seen[2].body == {"target_replicas": 3, "scaling_strategy": "immediate"}


def test_a_plan_has_its_steps_holds_and_image(server):
    plan = Plan.decode(TOLD)
    assert (plan.action, plan.previous_revision, plan.unchanged) == ("update", 1, False)
    assert plan.changes == (FieldChange(**CHANGE),)
    assert plan.image is not None
    assert (plan.image.reference, plan.image.digest, plan.image.here) == ("m:2", None, False)
    [step], [hold] = plan.plan.steps, plan.plan.holds
    assert (step.kind, step.gpu_uuids, step.replica_id) == ("launch", ("G",), None)
    assert (hold.reason, hold.details) == ("no GPU", ("G: full",))
    assert (plan.plan.strategy, plan.plan.lowest_ready) == ("surge", 1)
    assert Plan.decode({"action": "newer"}).plan == PlanCourse()


async def test_what_is_refused_is_refused(server):
    server.on("PUT", ONE, refuses(409, "CONFLICT", "the label is taken"))
    async with PRSMClient(base_url=server.unix_url) as client:
        with pytest.raises(errors.ConflictError, match="taken"):
            await client.custom_models.update("m", model_type="x", dry_run=True)


async def test_a_cut_connection_is_bridged_though_there_is_no_key(server):
    server.on("POST", f"{ONE}/scale", cuts, answers(TOLD))
    async with PRSMClient(base_url=server.unix_url) as client:
        assert (await client.custom_models.scale("m", 3, dry_run=True)).revision == 2
    assert len(server.seen) == 2


async def test_the_synchronous_client_asks_alike(server):
    server.on("PUT", ONE, answers(TOLD))
    call = plans.dry(revision_calls.update("m", {"model_type": "x"}, 4, replace=True))
    plan = await asyncio.to_thread(SyncClient(Target.resolve(server.unix_url)).send, call)
    assert plan.revision == 2
    assert server.seen[0].query == {"dry_run": "true", "replace": "true"}
    assert server.seen[0].headers["If-Match"] == '"4"'
    assert not plans.dry(calls.scale("m", 1)).idempotency_key
