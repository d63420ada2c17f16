"""Inference: who may, what is found, and what a model that cannot answer yet says."""

import dataclasses
from collections.abc import Sequence

import pytest
from multidict import CIMultiDict

from prsmd.core.routes import RoutingTable
from prsmd.core.trial import Trial
from prsmd.domain.errors import (
    InvalidInputError,
    ModelNotFoundError,
    PermissionDeniedError,
    PrsmdError,
    QueueFullError,
    RateLimitedError,
    ResourceUnavailableError,
)
from prsmd.domain.rollout import HeaderRule
from prsmd.gateway.infer import Inference
from prsmd.gateway.meters import Held
from prsmd.service.keys import KeyRequest
from tests.engine.harness import Life, caller, spec
from tests.support.asking import asking, outputs_of

QUESTION = asking(inputs={"text": "hello"}, request_id="q1")


@pytest.mark.parametrize("model", ["legal", "custom_legal"])
async def test_a_running_model_answers_by_name_and_by_id(life: Life, model: str) -> None:
    await life.deploy()
    await life.settle()
    await life.tick()
    route, result = await life.services.inferences.infer(caller("invoker"), model, QUESTION)

    assert outputs_of(result) == {"echo": {"text": "hello"}}
    assert route.model_id == "custom_legal"


async def test_a_model_that_was_just_accepted_says_so_and_can_be_tried_again(life: Life) -> None:
    await life.deploy()
    with pytest.raises(ResourceUnavailableError, match="was accepted and is not routed") as told:
        await life.services.inferences.infer(caller(), "legal", QUESTION)

    assert told.value.retryable
    assert told.value.details["resource_type"] == "replica"


async def test_who_may_not_infer_is_denied(life: Life) -> None:
    await life.deploy()
    await life.settle()
    with pytest.raises(PermissionDeniedError):
        await life.services.inferences.infer(caller("viewer"), "legal", QUESTION)


@pytest.mark.parametrize("routed", [True, False])
async def test_another_organizations_model_does_not_exist(life: Life, *, routed: bool) -> None:
    await life.deploy()
    if routed:
        await life.settle()
    with pytest.raises(ModelNotFoundError):
        await life.services.inferences.infer(caller("owner", "rival"), "legal", QUESTION)


async def test_each_organization_reaches_its_own_model_of_a_name(life: Life) -> None:
    await life.deploy()
    await life.services.deployments.deploy(caller("owner", "rival"), "legal", spec())
    await life.settle()
    await life.tick()
    route, _ = await life.services.inferences.infer(caller("owner", "rival"), "legal", QUESTION)

    assert route.organization == "rival"


async def test_answering_touches_no_store(life: Life) -> None:
    await life.deploy()
    await life.settle()
    await life.tick()
    writes = len(life.fuse.passed)
    await life.services.inferences.infer(caller(), "legal", QUESTION)

    assert len(life.fuse.passed) == writes


async def test_an_unknown_model_is_not_found(life: Life) -> None:
    with pytest.raises(ModelNotFoundError, match="There is no model nobody"):
        await life.services.inferences.infer(caller(), "nobody", QUESTION)


@pytest.mark.parametrize(
    ("headers", "on_trial"),
    [
        ({"x-CANARY": "yes", "Authorization": "secret"}, True),
        ({"X-Canary": "no"}, False),
        ({}, False),
    ],
)
async def test_the_header_that_a_trial_asks_for_chooses_the_side(
    life: Life, headers: dict[str, str], *, on_trial: bool
) -> None:
    await life.deploy()
    await life.settle()
    await life.tick()
    gateway = life.appliance.gateway
    route = gateway.find("default", "legal")
    assert route is not None
    (stable,) = route.targets
    tried = dataclasses.replace(stable, replica_id="tried", version="2.0.0", on_trial=True)
    trial = Trial(key="1", header=HeaderRule(name="X-Canary", value="yes"))
    published = dataclasses.replace(route, targets=(stable, tried), trial=trial)
    gateway.publish(RoutingTable({route.deployment_id: published}))

    _, result = await life.services.inferences.infer(
        caller(), "legal", QUESTION, CIMultiDict(headers)
    )

    assert result.replica_id == ("tried" if on_trial else stable.replica_id)
    assert (result.model_version == "2.0.0") == on_trial


class Reading:
    """Completes inferences, as the API does by reading the body; or fails, as a bad body does."""

    def __init__(self, error: PrsmdError | None = None) -> None:
        self.error = error
        self.held: list[Held] = []
        self.asked = 0

    async def __call__(self, held: Sequence[Held], inference: Inference) -> Inference:
        self.asked += 1
        self.held += held
        if self.error is not None:
            raise self.error
        return inference


async def test_the_body_of_who_is_refused_is_not_asked_for(life: Life) -> None:
    await life.deploy()
    await life.settle()
    await life.tick()
    infer, reading = life.services.inferences.infer, Reading()
    for who, model in ((caller("viewer"), "legal"), (caller(), "nobody")):
        with pytest.raises((PermissionDeniedError, ModelNotFoundError)):
            await infer(who, model, QUESTION, {}, reading)
    await life.appliance.gateway.drain(1.0)
    with pytest.raises(ResourceUnavailableError, match="stopping"):
        await infer(caller(), "legal", QUESTION, {}, reading)

    assert reading.asked == 0


async def test_the_body_of_what_finds_the_queue_full_is_not_asked_for(life: Life) -> None:
    await life.deploy()
    await life.settle()
    await life.tick()
    gateway, reading = life.appliance.gateway, Reading()
    route = gateway.find("default", "legal")
    assert route is not None
    full = dataclasses.replace(route.serving, queue_depth=0)
    nobody = dataclasses.replace(route, targets=(), hopeless=False, serving=full)
    gateway.publish(RoutingTable({route.deployment_id: nobody}))

    with pytest.raises(QueueFullError):
        await life.services.inferences.infer(caller(), "legal", QUESTION, {}, reading)

    assert reading.asked == 0


async def test_what_turns_out_to_be_wrong_is_not_counted(life: Life) -> None:
    await life.deploy()
    await life.settle()
    await life.tick()
    limited = await life.services.keys.create(
        caller("owner"), KeyRequest(name="k", role="invoker", requests_per_day=2)
    )
    held_to = caller("invoker")
    who = dataclasses.replace(
        held_to, principal=dataclasses.replace(held_to.principal, id=f"key:{limited[0].id}")
    )
    wrong = Reading(InvalidInputError.field("body", "is not valid JSON"))
    for _ in range(4):
        with pytest.raises(InvalidInputError):
            await life.services.inferences.infer(who, "legal", QUESTION, {}, wrong)
    right = Reading()
    for _ in range(2):
        await life.services.inferences.infer(who, "legal", QUESTION, {}, right)
    with pytest.raises(RateLimitedError):
        await life.services.inferences.infer(who, "legal", QUESTION, {}, right)

    assert (wrong.asked, right.asked) == (4, 2)
