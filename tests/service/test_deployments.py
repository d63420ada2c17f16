"""Deploy, scale, delete: who may, what is refused and why, and what is on record afterwards."""

import dataclasses

import pytest

from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.errors import (
    ConflictError,
    InvalidInputError,
    ModelNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ResourceUnavailableError,
)
from prsmd.domain.quantity import GIB
from prsmd.domain.spec import Resources, Serving
from tests.engine.harness import Life, World, caller, spec
from tests.service.revising import desk, put_replica

SCALE, IMMEDIATE = "models.scale", ScalingStrategy.IMMEDIATE


async def test_a_deploy_is_accepted_with_its_audit_record_and_event(life: Life) -> None:
    deployed = await life.services.deployments.deploy(caller("deployer"), "Legal-Model", spec())

    assert deployed.deployment.model_id == "custom_legal_model"
    assert deployed.gpu == "0"
    assert deployed.refused is None
    assert deployed.expected_seconds is None
    assert await life.audit() == [("models.deploy", "allowed")]
    assert await life.reasons(deployed.deployment.id) == ["Deployed"]
    assert life.appliance.reconciler._woken.is_set()


@pytest.mark.parametrize("role", ["viewer", "operator", "invoker", "auditor"])
async def test_who_may_not_deploy_is_denied_and_on_record(life: Life, role: str) -> None:
    with pytest.raises(PermissionDeniedError) as denied:
        await life.services.deployments.deploy(caller(role), "legal", spec())

    assert denied.value.details["required_permissions"] == ["models.deploy"]
    assert await life.audit() == [("models.deploy", "denied")]
    assert await life.deployments() == []


@pytest.mark.parametrize(
    ("role", "action"),
    [("viewer", "scale"), ("invoker", "scale"), ("viewer", "delete"), ("operator", "delete")],
)
async def test_who_may_not_change_a_model_is_denied_and_on_record(
    life: Life, role: str, action: str
) -> None:
    await life.deploy()
    service = life.services.deployments
    arguments = (2, IMMEDIATE) if action == "scale" else ()
    with pytest.raises(PermissionDeniedError):
        await getattr(service, action)(caller(role), "legal", *arguments)

    assert (await life.audit())[-1] == (f"models.{action}", "denied")
    [deployment] = await life.deployments()
    assert (deployment.asked_replicas, deployment.deleting) == (1, False)


async def test_another_organizations_model_looks_as_if_it_did_not_exist(life: Life) -> None:
    await life.deploy()
    stranger = caller("owner", "rival")
    with pytest.raises(ModelNotFoundError) as foreign:
        await life.services.deployments.delete(stranger, "legal")
    with pytest.raises(ModelNotFoundError) as unknown:
        await life.services.deployments.delete(stranger, "nobody")

    assert foreign.value.message.replace("legal", "X") == unknown.value.message.replace(
        "nobody", "X"
    )
    assert (await life.audit())[1:] == [("models.delete", "denied")] * 2
    assert not (await life.deployments())[0].deleting


async def test_two_organizations_may_use_the_same_name(life: Life) -> None:
    await life.deploy()
    other = await life.services.deployments.deploy(caller("owner", "rival"), "legal", spec())

    assert other.deployment.organization == "rival"
    assert len(await life.deployments()) == 2


@pytest.mark.parametrize("name", ["legal", "LEGAL", "custom_legal", "default-legal"])
async def test_a_name_that_is_taken_is_refused_with_what_to_do(life: Life, name: str) -> None:
    await life.deploy()
    with pytest.raises(
        ConflictError, match=r"exists\. To change it.*PUT /v1/custom-models/custom_.*prsmctl update"
    ):
        await life.services.deployments.deploy(caller(), name, spec())

    assert len(await life.deployments()) == 1


async def test_a_name_whose_model_is_being_deleted_is_free_only_afterwards(life: Life) -> None:
    await life.deploy()
    await life.settle()
    await life.delete()
    with pytest.raises(ConflictError, match="is being deleted; try again shortly"):
        await life.deploy()
    await life.settle()

    assert await life.deploy()


async def test_what_can_never_fit_is_refused_with_a_reason_for_each_limit(
    life: Life, world: World
) -> None:
    too_big = dataclasses.replace(
        spec(), resources=Resources(cpu_millis=900_000, memory_bytes=900 * GIB)
    )
    with pytest.raises(ResourceUnavailableError) as refused:
        await life.deploy(given=too_big)

    assert refused.value.message.startswith("This appliance can never place it")
    assert len(refused.value.details["reasons"]) == 2
    assert refused.value.details["resource_type"] == "node"
    assert refused.value.details["permanent"] is True
    assert await life.deployments() == []


async def test_more_gpus_than_there_are_is_refused_by_gpu(life: Life, world: World) -> None:
    world.gpus.add("GPU-aaaa")
    with pytest.raises(ResourceUnavailableError) as refused:
        await life.deploy(given=spec(gpu_millis=2000))

    assert refused.value.details["resource_type"] == "gpu"


async def test_a_gpu_model_on_a_machine_without_a_driver_is_refused(
    life: Life, world: World
) -> None:
    world.gpus.remove_driver()
    with pytest.raises(ResourceUnavailableError, match="can never place it"):
        await life.deploy(given=spec(gpu_millis=1000))


async def test_gpus_that_do_not_answer_now_refuse_nothing_but_cpu_still_does(
    life: Life, world: World
) -> None:
    world.gpus.add("GPU-aaaa")
    world.gpus.stall()
    assert await life.deploy(given=spec(gpu_millis=1000))
    too_big = Resources(cpu_millis=900_000, memory_bytes=GIB, gpu_millis=1000)
    with pytest.raises(ResourceUnavailableError, match="can never place it"):
        await life.deploy("other", dataclasses.replace(spec(), resources=too_big))


async def test_a_gpu_that_is_ill_now_is_not_never(life: Life, world: World) -> None:
    world.gpus.add("GPU-aaaa")
    world.gpus.lose("GPU-aaaa")

    assert await life.deploy(given=spec(gpu_millis=1000))


async def test_what_does_not_fit_now_is_accepted_and_says_so(life: Life, world: World) -> None:
    world.gpus.add("GPU-aaaa", name="NVIDIA L4")
    first = await life.services.deployments.deploy(caller(), "first", spec(gpu_millis=1000))
    await life.settle()
    second = await life.services.deployments.deploy(caller(), "second", spec(gpu_millis=1000))

    assert first.gpu == "1 x NVIDIA L4"
    assert first.refused is None
    assert second.refused is not None
    assert any("reserved whole" in reason for reason in second.refused.reasons)


async def test_a_serving_protocol_nobody_speaks_is_refused_with_those_known(life: Life) -> None:
    with pytest.raises(InvalidInputError, match=r"is not a serving protocol; known are .*native"):
        await life.deploy(given=dataclasses.replace(spec(), serving=Serving(protocol="telepathy")))


@pytest.mark.parametrize("target", [0, 5, -1])
async def test_a_count_outside_the_models_bounds_is_refused(life: Life, target: int) -> None:
    await life.deploy()
    with pytest.raises(InvalidInputError, match="from min_replicas 1 to max_replicas 4"):
        await life.scale(target)

    assert (await life.deployments())[0].asked_replicas == 1
    assert (SCALE, "allowed") not in await life.audit()


async def test_scaling_tells_what_is_active_and_what_does_not_fit(life: Life, world: World) -> None:
    world.gpus.add("GPU-aaaa")
    await life.deploy(given=spec(gpu_millis=1000))
    await life.settle()
    scaled = await life.services.deployments.scale(caller("operator"), "legal", 2, IMMEDIATE)

    assert (scaled.active_replicas, scaled.target_replicas) == (1, 2)
    assert scaled.refused is not None
    assert (await life.audit())[-1] == (SCALE, "allowed")


async def test_a_model_that_is_being_deleted_cannot_be_scaled(life: Life) -> None:
    await life.deploy()
    await life.delete()
    with pytest.raises(ConflictError, match="is being deleted and cannot be scaled"):
        await life.scale(2)


async def test_deleting_twice_is_no_error_and_once_gone_it_is_not_found(life: Life) -> None:
    await life.deploy()
    await life.delete()
    await life.delete()
    await life.settle()

    assert await life.audit() == [
        ("models.deploy", "allowed"),
        ("models.delete", "allowed"),
        ("models.delete", "allowed"),
    ]
    with pytest.raises(ModelNotFoundError):
        await life.delete()


async def test_an_administrator_reaches_every_organization_its_own_first(life: Life) -> None:
    await life.services.deployments.deploy(caller("owner", "rival"), "theirs", spec())
    await life.services.deployments.deploy(caller("owner", "rival"), "legal", spec())
    await life.deploy()
    await life.delete("theirs")
    await life.delete("legal")

    deleting = {
        (one.organization, one.model_name) for one in await life.deployments() if one.deleting
    }
    assert deleting == {("rival", "theirs"), ("default", "legal")}


async def test_an_administrator_never_hits_one_of_several_organizations_models(life: Life) -> None:
    for organization in ("rival", "third"):
        await life.services.deployments.deploy(caller("owner", organization), "twin", spec())
    with pytest.raises(ConflictError, match="of rival"):
        await life.delete("twin")
    with pytest.raises(ConflictError, match="of rival"):
        await life.services.status.get(caller("admin"), "twin")

    assert not any(deployment.deleting for deployment in await life.deployments())


async def test_a_deployments_id_means_it_and_no_other_model_of_its_name(life: Life) -> None:
    own = await life.deploy("twin")
    theirs = await life.services.deployments.deploy(caller("owner", "rival"), "twin", spec())
    with pytest.raises(ModelNotFoundError):
        await life.services.deployments.delete(caller("owner"), theirs.deployment.id)
    await life.services.deployments.delete(caller(), theirs.deployment.id)

    gone = {one.id: one.deleting for one in await life.deployments()}
    assert gone == {own: False, theirs.deployment.id: True}
    await life.services.deployments.delete(caller("owner"), own)
    assert all(one.deleting for one in await life.deployments())


async def test_a_model_is_found_by_its_id_too(life: Life) -> None:
    await life.deploy()
    await life.scale(2, "custom_legal")

    assert (await life.deployments())[0].asked_replicas == 2


@pytest.mark.parametrize(("target", "level"), [(4, 3), (2, None), (1, 1)])
async def test_gradual_scaling_begins_one_step_from_what_is_there(
    life: Life, target: int, level: int | None
) -> None:
    model = await desk(life)
    for slot in range(2):
        await put_replica(life, model.id, "GPU-aaaa", slot)
    scale = life.services.deployments.scale
    await scale(caller("operator"), "legal", target, ScalingStrategy.GRADUAL)
    assert (await model.deployment()).gradual_level == (level or target)
    await scale(caller("operator"), "legal", target, IMMEDIATE)
    assert (await model.deployment()).gradual_level is None


async def test_scaling_and_deleting_upon_another_revision_are_refused(life: Life) -> None:
    model = await desk(life)
    before = await model.deployment()
    service = life.services.deployments
    with pytest.raises(PreconditionFailedError) as stale:
        await service.scale(caller("operator"), "legal", 2, IMMEDIATE, frozenset({2, 3}))
    with pytest.raises(PreconditionFailedError):
        await service.delete(caller(), "legal", frozenset({2}))

    assert stale.value.details == {"model_id": "custom_legal", "current_revision": 1}
    assert await model.deployment() == before
    await service.scale(caller("operator"), "legal", 2, IMMEDIATE, frozenset({1, 2}))
    assert (await service.delete(caller(), "legal", frozenset({1}))).deleting
