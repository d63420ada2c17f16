"""Updates, rollbacks, rollouts and traffic through the client: what is sent, what comes back."""

import asyncio
from typing import Any

import pytest

from prsm_sdk import PRSMClient, calls, errors, revision_calls
from prsm_sdk.models import FieldChange, TrafficShare
from prsm_sdk.sync import SyncClient
from prsm_sdk.target import Target
from tests.sdk.wire_server import answers, cuts, refuses

ONE = "/v1/custom-models/m"
ROLLOUT = {"number": 1, "phase": "trying", "active": True, "to_revision": 3, "steps": [10, 50]}
ACCEPTED = {"deployment_id": "deploy_1", "model_id": "m"}
STATE = {**ACCEPTED, "rollout": ROLLOUT}


async def test_an_update_sends_what_is_given_and_keeps_its_nulls(server):
    change = {"field": "deployment_config.scaling.max_replicas", "before": 2, "after": 5}
    done = {**ACCEPTED, "status": "updating", "revision": 3, "changes": [change], **STATE}
    server.on("PUT", ONE, answers(done, 202))
    async with PRSMClient(base_url=server.unix_url) as client:
        found = await client.custom_models.update(
            "m",
            container_image="m:v2",
            scaling={"max_replicas": 5},
            deployment_config={"environment": {"GONE": None}},
            model_metadata={"version": None},
            rollout={"strategy": "canary"},
            if_match=2,
        )
        await client.custom_models.update("m", model_type="x", idempotency_key="mine")
    first, second = server.seen
    assert first.body == {
        "deployment_config": {
            "environment": {"GONE": None},
            "container_image": "m:v2",
            "scaling": {"max_replicas": 5},
        },
        "model_metadata": {"version": None},
        "rollout": {"strategy": "canary"},
    }
    assert first.headers["If-Match"] == '"2"'
    assert (second.body, second.headers["Idempotency-Key"]) == ({"model_type": "x"}, "mine")
    assert found.changes == (FieldChange(**change),)
    assert found.rollout is not None
    assert (found.rollout.to_revision, found.rollout.steps) == (3, (10, 50))


async def test_somebody_elses_change_is_an_error_of_its_own(server):
    moved = refuses(412, "PRECONDITION_FAILED", "it moved", {"current_revision": 5})
    server.on("PUT", ONE, moved)
    server.on("DELETE", ONE, refuses(412, "SOMETHING_NEWER", "it moved"))
    async with PRSMClient(base_url=server.unix_url) as client:
        with pytest.raises(errors.PreconditionFailedError) as caught:
            await client.custom_models.update("m", container_image="m:v2", if_match=4)
        with pytest.raises(errors.PreconditionFailedError) as newer:
            await client.custom_models.delete("m", if_match=4)
    assert caught.value.current_revision == 5
    assert newer.value.current_revision is None


def test_every_verb_reaches_its_route(server):
    server.on("POST", f"{ONE}/rollback", answers({**ACCEPTED, "status": "updated"}))
    server.on("GET", f"{ONE}/versions", answers({"versions": [{"revision": 2}], "total": 1}))
    server.on("GET", f"{ONE}/diff", answers({"model_id": "m", "to_revision": 2}))
    server.on("GET", f"{ONE}/rollout", answers(STATE))
    for step in revision_calls.STEPS:
        server.on("POST", f"{ONE}/rollout/{step}", answers({**STATE, "changed": False}))
    shares = [{"revision": 3, "version": "2.0.1", "weight": None}]
    server.on("PUT", f"{ONE}/traffic", answers({**STATE, "traffic": shares}))
    server.on("POST", f"{ONE}/scale", answers({**ACCEPTED, "target_replicas": 2}, 202))

    async def use() -> None:
        async with PRSMClient(base_url=server.tcp_url) as client:
            models = client.custom_models
            assert (await models.rollback("m")).status == "updated"
            await models.rollback("m", 2, {"strategy": "recreate"}, if_match=3)
            await models.rollback("m", "1.0.0")
            assert [one.revision for one in await models.versions("m")] == [2]
            assert (await models.diff("m", 1)).to_revision == 2
            rollout = (await models.rollout("m")).rollout
            assert rollout is not None
            assert rollout.phase == "trying"
            for steer in (
                models.pause_rollout,
                models.resume_rollout,
                models.promote_rollout,
                models.abort_rollout,
            ):
                assert not (await steer("m", 3)).changed
            divided = await models.set_traffic("m", {3: 90, 2: 10}, 3)
            assert divided.traffic == (TrafficShare(revision=3, version="2.0.1", weight=None),)
            await models.scale("m", 2, if_match=3)

    asyncio.run(use())
    bodies = [seen.body for seen in server.seen if seen.path.endswith("/rollback")]
    assert bodies == [
        {},
        {"revision": 2, "rollout": {"strategy": "recreate"}},
        {"version": "1.0.0"},
    ]
    assert [seen.query for seen in server.seen if seen.path.endswith("/diff")] == [{"from": "1"}]
    conditional = [seen.path for seen in server.seen if seen.headers.get("If-Match") == '"3"']
    assert len(conditional) == 7


async def test_waiting_ends_when_the_rollout_is_completed(server):
    over = {**STATE, "rollout": {**ROLLOUT, "phase": "completed", "active": False}}
    server.on("GET", f"{ONE}/rollout", answers(STATE), answers(over))
    async with PRSMClient(base_url=server.unix_url) as client:
        state = await client.custom_models.wait_until_rolled_out("m")
    assert state.rollout is not None
    assert state.rollout.phase == "completed"


@pytest.mark.parametrize(
    ("rollout", "why"),
    [
        ({"phase": "rolled_back", "outcome": "it crashed"}, "m to revision 3 rolled back: it"),
        ({"phase": "aborted", "outcome": ""}, "m to revision 3 aborted"),
        (None, "m has no rollout"),
    ],
)
async def test_waiting_ends_with_the_reason_when_it_ended_otherwise(server, rollout, why):
    ended: Any = rollout and {**ROLLOUT, **rollout, "active": False, "evidence": ["last line"]}
    server.on("GET", f"{ONE}/rollout", answers({**ACCEPTED, "rollout": ended}))
    async with PRSMClient(base_url=server.unix_url) as client:
        with pytest.raises(errors.RolloutFailedError, match=why) as caught:
            await client.custom_models.wait_until_rolled_out("m")
    assert caught.value.details == ({"evidence": ["last line"]} if rollout else {})


async def test_waiting_ends_when_the_time_is_over(server):
    server.on("GET", f"{ONE}/rollout", answers(STATE))
    async with PRSMClient(base_url=server.unix_url) as client:
        with pytest.raises(errors.ClientTimeoutError, match="is not rolled out after"):
            await client.custom_models.wait_until_rolled_out("m", timeout=0.1)


def test_the_synchronous_client_carries_out_the_same_calls_and_repeats_them_with_one_key(server):
    server.on("PUT", ONE, cuts, answers({**ACCEPTED, "status": "updating"}, 202))
    client = SyncClient(Target.resolve(server.unix_url, environ={}))
    done = client.send(revision_calls.update("m", {"model_type": "x"}))
    assert done.status == "updating"
    first, second = (seen.headers["Idempotency-Key"] for seen in server.seen)
    assert first == second


def test_a_conditional_delete_is_sent_with_its_condition_only_if_asked(server):
    server.on("DELETE", ONE, answers(ACCEPTED, 202))
    client = SyncClient(Target.resolve(server.unix_url, environ={}))
    client.send(calls.delete("m"))
    client.send(calls.delete("m", 4))
    assert [seen.headers.get("If-Match") for seen in server.seen] == [None, '"4"']


def test_a_status_and_a_model_carry_their_rollout_and_traffic(server):
    shown = {"model_id": "m", "rollout": ROLLOUT, "traffic": [{"revision": 3, "weight": 10}]}
    server.on("GET", ONE, answers(shown))
    found = SyncClient(Target.resolve(server.unix_url, environ={})).send(
        calls.get_custom_model("m")
    )
    assert found.rollout is not None
    assert found.rollout.active
    assert found.traffic[0].weight == 10
