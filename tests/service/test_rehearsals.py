"""Dry runs: what they say comes true, what they refuse is refused, and nothing is written."""

from typing import Any

import pytest

from prsmd.api.update_schemas import spec_of
from prsmd.domain.deployment import Recommendation, ScalingStrategy
from prsmd.domain.errors import (
    ConflictError,
    InvalidInputError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ResourceUnavailableError,
)
from prsmd.domain.rollout import RolloutOptions, RolloutPhase, RolloutStrategy
from prsmd.service.rehearsals import Foretold
from prsmd.service.updates import RollbackRequest, UpdateRequest
from prsmd.store import deployments
from tests.engine.harness import IMAGE, Life, caller, spec
from tests.service.revising import MORE_CPU, MORE_REPLICAS, NEW_IMAGE, Desk, desk

IMMEDIATE = ScalingStrategy.IMMEDIATE
TABLES = (
    "deployments",
    "revisions",
    "rollouts",
    "replicas",
    "events",
    "audit",
    "remembered_answers",
)


async def everything(life: Life) -> dict[str, Any]:
    """All that a dry run must leave as it is."""
    async with life.database.read() as tx:
        return {
            table: [tuple(r) for r in await tx.execute_fetchall(f"SELECT * FROM {table}")]
            for table in TABLES
        }


async def update(
    life: Life, patch: dict[str, Any], role: str = "operator", **request: Any
) -> Foretold:
    asked = UpdateRequest(patch=patch, read=spec_of, **request)
    return await life.services.rehearsals.update(caller(role), "legal", asked)


async def scale(life: Life, target: int, role: str = "operator", **more: Any) -> Foretold:
    asked = (caller(role), "legal", target, IMMEDIATE)
    return await life.services.rehearsals.scale(*asked, **more)


async def rollback(life: Life, role: str = "operator", **request: Any) -> Foretold:
    asked = RollbackRequest(**request)
    return await life.services.rehearsals.rollback(caller(role), "legal", asked)


async def running(life: Life, **scaling: Any) -> Desk:
    """Deploy a model and let the loop bring it up."""
    model = Desk(life, await life.deploy(**scaling))
    await life.settle()
    return model


def kinds(found: Foretold) -> list[str]:
    return [step.kind for step in found.rehearsal.steps]


async def test_a_deploy_is_told_and_nothing_of_it_is_there(life: Life) -> None:
    before = await everything(life)
    found = await life.services.rehearsals.deploy(caller(), "legal", spec(min_replicas=2))

    assert kinds(found) == ["launch", "launch", "ready", "ready"]
    assert found.rehearsal.reaches_goal
    assert (found.revision.number, found.previous, found.strategy) == (1, None, "launch")
    assert (found.image.reference, found.image.here) == (IMAGE, True)
    assert found.image.digest is not None
    fields = {change.field: change.after for change in found.changes}
    assert fields["deployment_config.container_image"] == IMAGE
    assert fields["deployment_config.resource_requirements.cpu"] == "500m"
    assert "deployment_config.serving.predict_path" not in fields, "it is given nothing"
    assert await everything(life) == before
    assert not life.appliance.reconciler._woken.is_set()


async def test_an_image_that_no_registry_has_is_unknown(life: Life) -> None:
    found = await life.services.rehearsals.deploy(caller(), "legal", spec(image="no/such:1"))
    assert (found.image.digest, found.image.here) == (None, False)


async def test_an_image_is_looked_up_and_not_brought(life: Life) -> None:
    life.world.engine.make_pullable("models/legal:2")
    found = await life.services.rehearsals.deploy(caller(), "legal", spec(image="models/legal:2"))
    assert found.image.digest is not None
    assert not found.image.here
    assert life.world.engine.images == {IMAGE: life.world.engine.images[IMAGE]}


async def test_an_engine_that_does_not_answer_is_what_is_waited_for(life: Life) -> None:
    life.world.engine.become_unreachable()
    found = await life.services.rehearsals.deploy(caller(), "legal", spec())
    assert [hold.kind for hold in found.rehearsal.holds] == ["engine"]
    assert found.image.digest is None
    assert not found.rehearsal.reaches_goal


async def test_an_update_is_told_and_comes_to_what_was_told(life: Life) -> None:
    model = await running(life)
    before = await everything(life)
    found = await update(life, MORE_CPU)

    assert kinds(found) == ["prepare", "launch", "ready", "drain", "stop", "rolled_out"]
    assert (found.strategy, found.revision.number, found.in_place) == ("surge", 2, False)
    assert found.rehearsal.lowest_ready == 1
    assert found.notes == ("its version is 1.0.1, after 1.0.0",)
    assert [change.field for change in found.changes] == [
        "deployment_config.resource_requirements.cpu",
        "model_metadata.version",
    ]
    assert await everything(life) == before

    done = await model.update(MORE_CPU, options=RolloutOptions(min_ready_seconds=0))
    assert (done.revision.diff, done.notes) == (found.changes, found.notes)
    await life.settle()
    assert [(row.revision, row.slot) for row in await life.active()] == [
        (row.revision, row.slot) for row in found.rehearsal.end.replicas if row.active
    ]


async def test_an_update_in_place_is_told_so(life: Life) -> None:
    await running(life)
    found = await update(life, MORE_REPLICAS)
    assert (found.strategy, found.in_place, found.rehearsal.steps) == ("in place", True, ())
    assert not found.unchanged


async def test_an_update_in_place_that_wants_more_replicas_launches_them(life: Life) -> None:
    await running(life)
    found = await update(life, {"deployment_config": {"scaling": {"min_replicas": 2}}})
    assert (found.strategy, kinds(found)) == ("in place, then launch", ["launch", "ready"])


async def test_what_is_so_already_is_told_as_unchanged(life: Life) -> None:
    await running(life)
    found = await update(life, {"model_type": "text-classification"})
    assert (found.unchanged, found.changes, found.strategy) == (True, (), "nothing to do")


async def test_a_tag_that_still_means_the_same_image_replaces_nothing(life: Life) -> None:
    await running(life)
    again = {"deployment_config": {"container_image": IMAGE}}
    found = await update(life, again)
    assert found.image.here
    assert found.revision.image_digest is None, "it is resolved anew"
    assert (found.strategy, kinds(found)) == ("nothing to do", ["prepare", "rolled_out"])
    life.world.engine.shelf.make_image(IMAGE, "what the tag was moved to")
    found = await update(life, again)
    assert (found.strategy, kinds(found)[:2]) == ("surge", ["prepare", "launch"])


async def test_an_update_supersedes_the_one_under_way(life: Life) -> None:
    model = await running(life)
    await model.update(MORE_CPU)
    found = await update(life, NEW_IMAGE, options=RolloutOptions(strategy=RolloutStrategy.SURGE))
    assert "the rollout of revision 2 ends" in found.notes
    assert found.revision.number == 3
    assert found.rehearsal.end.rollout is not None
    assert found.rehearsal.end.rollout.phase is RolloutPhase.COMPLETED
    assert (await model.latest()).to_revision == 2


async def test_a_rollback_that_aborts_a_rollout_is_told(life: Life) -> None:
    model = await running(life)
    await model.update(MORE_CPU)
    before = await everything(life)
    found = await rollback(life)
    assert (found.revision.number, found.previous and found.previous.number) == (1, 2)
    assert found.notes == ("the rollout of revision 2 is aborted",)
    assert found.rehearsal.end.revision.number == 1
    assert found.changes == ()
    assert not found.unchanged
    assert await everything(life) == before


async def test_a_rollback_to_an_earlier_revision_is_told_as_a_new_one(life: Life) -> None:
    model = await running(life)
    await model.update(MORE_CPU)
    await model.complete()
    found = await rollback(life, revision=1)
    assert (found.revision.number, found.revision.spec.resources.cpu_millis) == (3, 500)
    assert found.rehearsal.end.revision.number == 3


async def test_a_scale_is_told(life: Life) -> None:
    await running(life)
    before = await everything(life)
    found = await scale(life, 3)
    assert (kinds(found), found.rehearsal.reaches_goal) == (
        ["launch", "launch", "ready", "ready"],
        True,
    )
    assert [(c.field, c.before, c.after) for c in found.changes] == [("target_replicas", 1, 3)]
    assert (await scale(life, 1)).unchanged
    assert await everything(life) == before


async def test_a_scale_back_to_what_was_asked_is_a_change_where_the_load_wanted_more(
    life: Life,
) -> None:
    model = await running(life)
    wants = Recommendation(replicas=3, reasons=(), utilization=1.0, at=life.world.now())
    await life.database.write(lambda tx: deployments.set_recommendation(tx, model.id, wants))
    await life.settle()
    found = await scale(life, 1)
    assert [(c.field, c.before, c.after) for c in found.changes] == [("target_replicas", 3, 1)]
    assert kinds(found).count("drain") == 2


async def test_what_does_not_fit_is_held_with_its_reasons(life: Life) -> None:
    for number in range(2):
        life.world.gpus.add(f"GPU-{number}")
    await life.deploy(given=spec(gpu_millis=1000))
    await life.settle()
    found = await scale(life, 4)
    assert not found.rehearsal.reaches_goal
    assert [(hold.slot, hold.kind) for hold in found.rehearsal.holds] == [
        (2, "unplaceable"),
        (3, "unplaceable"),
    ]
    assert len(found.rehearsal.holds[0].details) == 2, "one reason for each GPU"


async def test_who_may_not_is_refused_and_that_is_on_record(life: Life) -> None:
    await desk(life)
    with pytest.raises(PermissionDeniedError):
        await life.services.rehearsals.deploy(caller("viewer"), "other", spec())
    with pytest.raises(PermissionDeniedError):
        await update(life, MORE_CPU, role="viewer")
    with pytest.raises(PermissionDeniedError):
        await scale(life, 2, role="viewer")
    with pytest.raises(PermissionDeniedError):
        await rollback(life, role="viewer")
    assert (await life.audit())[-4:] == [
        ("models.deploy", "denied"),
        ("models.update", "denied"),
        ("models.scale", "denied"),
        ("models.update", "denied"),
    ]


async def test_what_another_organization_has_is_not_there(life: Life) -> None:
    await desk(life)
    asked = UpdateRequest(patch=MORE_CPU, read=spec_of)
    stranger = caller("owner", "rival")
    with pytest.raises(ModelNotFoundError):
        await life.services.rehearsals.update(stranger, "legal", asked)
    assert (await life.audit())[-1] == ("models.update", "denied")


async def test_what_the_real_request_refuses_is_refused(life: Life) -> None:
    await desk(life)
    with pytest.raises(ConflictError, match="exists"):
        await life.services.rehearsals.deploy(caller(), "legal", spec())
    with pytest.raises(ResourceUnavailableError, match="never place"):
        await life.services.rehearsals.deploy(caller(), "other", spec(gpu_millis=64_000))
    with pytest.raises(InvalidInputError, match="target_replicas"):
        await scale(life, 99)
    with pytest.raises(InvalidInputError):
        await update(life, {"deployment_config": {"resource_requirements": {"cpu": "much"}}})
    with pytest.raises(NotFoundError, match="revision 9"):
        await rollback(life, revision=9)
    with pytest.raises(ConflictError, match="nothing good"):
        await rollback(life)
    for stale in (scale(life, 2, expected={7}), update(life, MORE_CPU, expected={7})):
        with pytest.raises(PreconditionFailedError):
            await stale
    await life.delete()
    with pytest.raises(ConflictError, match="being deleted"):
        await update(life, MORE_CPU)


# The whole body of an update, as declarative files give it.


async def test_what_a_whole_body_leaves_out_gets_its_default(life: Life) -> None:
    model = await desk(life)
    whole = {
        "deployment_config": {
            "container_image": IMAGE,
            "resource_requirements": {"cpu": "500m", "memory": "256Mi"},
            "environment": {"A": "1"},
        }
    }
    done = await model.update({**whole, "model_type": "text-classification"}, whole=True)
    assert done.revision.spec.environment == {"A": "1"}
    assert done.revision.spec.scaling.max_replicas == 10, "4 was asked for, and is no more"
    whole["deployment_config"].pop("environment")
    done = await model.update(whole, whole=True)
    assert done.revision.spec.environment == {}
    assert done.revision.spec.model_type == "custom"


async def test_a_whole_body_that_is_given_again_changes_nothing(life: Life) -> None:
    model = await desk(life)
    whole = {
        "model_name": "legal",
        "deployment_config": {
            "container_image": IMAGE,
            "resource_requirements": {"cpu": "2", "memory": "256Mi"},
        },
    }
    first = await model.update(whole, whole=True)
    assert first.revision.spec.metadata.version == "1.0.1", "no label was given: the next one"
    assert first.revision.image_digest is not None, "the same name is the same image"
    again = await model.update(whole, whole=True)
    assert again.unchanged
    assert (await update(life, whole, whole=True)).unchanged


async def test_a_whole_body_without_an_image_is_refused(life: Life) -> None:
    model = await desk(life)
    with pytest.raises(InvalidInputError, match="deployment_config"):
        await model.update({"model_type": "custom"}, whole=True)


async def test_null_in_a_whole_body_is_the_default_too(life: Life) -> None:
    model = await desk(life)
    config = {"container_image": IMAGE, "scaling": None, "serving": {"port": None}}
    done = await model.update({"deployment_config": config}, whole=True)
    assert (done.revision.spec.scaling.max_replicas, done.revision.spec.serving.port) == (10, 8080)
