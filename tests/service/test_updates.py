"""Updates: what makes a revision, what needs a rollout, what is refused; and what is on record."""

import asyncio
import dataclasses
from typing import Any

import pytest

from prsmd.api.update_schemas import spec_of
from prsmd.domain.errors import (
    ConflictError,
    InvalidInputError,
    ModelNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    ResourceUnavailableError,
)
from prsmd.domain.rollout import RolloutOptions, RolloutPhase, RolloutStrategy
from prsmd.service.updates import UpdateRequest
from tests.engine.harness import Life, World, caller, spec
from tests.service.revising import (
    DIGEST,
    MORE_CPU,
    MORE_REPLICAS,
    NEW_IMAGE,
    Desk,
    canary,
    desk,
    put_replica,
)


async def test_a_new_image_is_a_new_revision_that_is_rolled_out(life: Life) -> None:
    model = await desk(life)
    done = await model.update(NEW_IMAGE, options=canary(5, 20))

    assert (done.revision.number, done.previous.number, done.in_place) == (2, 1, False)
    assert done.revision.spec.image == "models/legal:2"
    assert done.revision.image_digest is None
    assert done.rollout is not None
    [rollout] = await model.rollouts()
    assert rollout == done.rollout.rollout
    assert (rollout.from_revision, rollout.to_revision) == (1, 2)
    assert (rollout.phase, rollout.options) == (RolloutPhase.PREPARING, canary(5, 20))
    assert rollout.started_by == "key:operator@default"
    deployment = await model.deployment()
    assert (deployment.revision, deployment.stable_revision) == (2, 1)
    assert life.appliance.reconciler._woken.is_set()


async def test_an_update_is_on_record_with_its_fields_and_no_value(life: Life) -> None:
    model = await desk(life)
    secret = {"environment": {"TOKEN": "s3cret"}}
    await model.update({"deployment_config": {**NEW_IMAGE["deployment_config"], **secret}})

    [_, event] = await life.events(model.id)
    assert event.reason == "Updated"
    assert "revision 2 (1.0.1) is to replace 1 (auto): container_image" in event.message
    assert (await life.audit())[-1] == ("models.update", "allowed")
    fields = [change.field for change in (await model.history())[-1].diff]
    assert fields == [
        "deployment_config.container_image",
        "model_metadata.version",
        "deployment_config.environment.TOKEN",
    ]
    rows = await _everything(life)
    assert "s3cret" not in rows["events"] + rows["audit"]
    assert "deployment_config.environment.TOKEN" in rows["audit"]
    assert "s3cret" not in str((await model.history())[-1].diff)


async def _everything(life: Life) -> dict[str, str]:
    async with life.database.read() as tx:
        return {
            table: str([tuple(r) for r in await tx.execute_fetchall(f"SELECT * FROM {table}")])
            for table in ("events", "audit")
        }


async def test_what_needs_no_container_applies_in_place(life: Life) -> None:
    model = await desk(life)
    done = await model.update(MORE_REPLICAS)

    assert (done.in_place, done.rollout, done.revision.number) == (True, None, 2)
    assert done.revision.image_digest == DIGEST
    assert done.revision.spec.metadata.version == "1.0.0"
    assert await model.rollouts() == []
    assert (await model.deployment()).revision == 2
    assert (await life.reasons(model.id))[-1] == "UpdatedInPlace"


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"model_type": "text-classification"},
        {"model_name": "legal"},
        {"deployment_config": {"environment": {"NEVER_SET": None}}},
    ],
    ids=str,
)
async def test_what_is_so_already_changes_nothing_but_is_on_record(
    life: Life, patch: dict[str, Any]
) -> None:
    model = await desk(life)
    before = await model.deployment()
    done = await model.update(patch)

    assert done.unchanged
    assert (await model.deployment(), len(await model.history())) == (before, 1)
    assert await life.reasons(model.id) == ["Deployed"]
    assert (await life.audit())[-1] == ("models.update", "allowed")


async def test_a_null_resets_a_field_to_its_default(life: Life) -> None:
    model = await desk(life, min_replicas=2)
    done = await model.update({"model_type": None, "deployment_config": {"scaling": None}})

    assert done.revision.spec.model_type == "custom"
    assert (done.revision.spec.scaling.min_replicas, done.revision.spec.scaling.max_replicas) == (
        1,
        10,
    )


async def test_the_same_image_given_again_is_resolved_again(life: Life) -> None:
    model = await desk(life)
    done = await model.update({"deployment_config": {"container_image": "models/legal:1"}})

    assert (done.in_place, done.revision.image_digest) == (False, None)
    assert done.revision.spec.metadata.version == "1.0.1"


async def test_the_same_image_by_digest_cannot_have_moved(life: Life) -> None:
    image = "models/legal@sha256:" + "2" * 64
    model = await desk(life)
    await model.update({"deployment_config": {"container_image": image}})
    await model.pin(2)

    assert (await model.update({"deployment_config": {"container_image": image}})).unchanged


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"model_name": "other"}, "model_name"),
        ({"model_name": None}, "model_name"),
        ({"deployment_config": {"container_image": None}}, "deployment_config.container_image"),
        ({"deployment_config": None}, "deployment_config"),
        (
            {"deployment_config": {"scaling": {"min_replicas": 5}}},
            "deployment_config.scaling",
        ),
        (
            {"deployment_config": {"serving": {"protocol": "telepathy"}}},
            "deployment_config.serving.protocol",
        ),
        (
            {"deployment_config": {"resource_requirements": {"gpu_memory": "1Gi"}}},
            "deployment_config.resource_requirements",
        ),
    ],
    ids=str,
)
async def test_what_a_patch_makes_wrong_is_named_and_nothing_changes(
    life: Life, patch: dict[str, Any], field: str
) -> None:
    model = await desk(life)
    with pytest.raises(InvalidInputError) as refused:
        await model.update(patch)

    assert [p["field"] for p in refused.value.details["validation_errors"]] == [field]
    assert len(await model.history()) == 1


async def test_what_can_never_fit_is_refused(life: Life) -> None:
    model = await desk(life)
    huge = {"deployment_config": {"resource_requirements": {"cpu": "900"}}}
    with pytest.raises(ResourceUnavailableError, match="can never place it"):
        await model.update(huge)

    assert (await model.deployment()).revision == 1


async def test_what_does_not_fit_now_is_accepted_and_says_so(life: Life, world: World) -> None:
    world.gpus.add("GPU-aaaa", name="NVIDIA L4")
    model = await desk(life)
    await put_replica(life, await life.deploy("other", spec(gpu_millis=1000)), "GPU-aaaa")
    whole = {"deployment_config": {"resource_requirements": {"gpu": "1"}}}
    done = await model.update(whole)

    assert done.refused is not None
    assert any("reserved whole" in reason for reason in done.refused.reasons)


async def test_room_is_looked_for_as_the_strategy_makes_it(life: Life, world: World) -> None:
    world.gpus.add("GPU-aaaa")
    model = Desk(life, await life.deploy(given=spec(gpu_millis=1000)))
    await put_replica(life, model.id, "GPU-aaaa")
    for strategy, fits in (
        (RolloutStrategy.AUTO, True),
        (RolloutStrategy.BUFFERED_SWAP, True),
        (RolloutStrategy.RECREATE, True),
        (RolloutStrategy.SURGE, False),
        (RolloutStrategy.CANARY, False),  # the only replica stays where it is
    ):
        patch = {"deployment_config": {"args": [strategy.value]}}
        done = await model.update(patch, options=RolloutOptions(strategy=strategy))
        assert (done.refused is None) is fits, strategy


async def test_bounds_that_exclude_what_was_asked_are_said(life: Life) -> None:
    model = await desk(life)
    await life.scale(4)
    fewer = await model.update({"deployment_config": {"scaling": {"max_replicas": 2}}})
    more = await model.update(
        {"deployment_config": {"scaling": {"min_replicas": 6, "max_replicas": 8}}}
    )

    assert fewer.notes == ("4 replicas were asked for; max_replicas 2 holds now",)
    assert more.notes == ("4 replicas were asked for; min_replicas 6 holds now",)
    assert (await model.deployment()).asked_replicas == 4


async def test_a_model_that_is_being_deleted_cannot_be_updated(life: Life) -> None:
    model = await desk(life)
    await life.delete()
    with pytest.raises(ConflictError, match="is being deleted"):
        await model.update(NEW_IMAGE)


@pytest.mark.parametrize("role", ["viewer", "invoker", "auditor"])
async def test_who_may_not_update_is_denied_and_on_record(life: Life, role: str) -> None:
    model = await desk(life)
    for attempt in (model.update(NEW_IMAGE, role=role), model.rollback(role=role, revision=1)):
        with pytest.raises(PermissionDeniedError):
            await attempt

    assert (await life.audit())[-2:] == [("models.update", "denied")] * 2
    assert len(await model.history()) == 1


async def test_another_organizations_model_cannot_be_found_to_be_updated(life: Life) -> None:
    await desk(life)
    stranger = caller("owner", "rival")
    request = UpdateRequest(patch=NEW_IMAGE, read=spec_of)
    with pytest.raises(ModelNotFoundError):
        await life.services.revisions.update(stranger, "legal", request)
    assert (await life.audit())[-1] == ("models.update", "denied")


async def test_two_operators_do_not_overwrite_each_other_unseen(life: Life) -> None:
    model = await desk(life)
    first = model.update(NEW_IMAGE, expected=frozenset({1}))
    second = model.update(MORE_CPU, expected=frozenset({1}))
    outcomes = await asyncio.gather(first, second, return_exceptions=True)

    [stale] = [one for one in outcomes if isinstance(one, PreconditionFailedError)]
    assert stale.details["current_revision"] == 2
    assert len(await model.history()) == 2


async def test_without_a_condition_the_second_patch_lies_over_the_first(life: Life) -> None:
    model = await desk(life)
    await asyncio.gather(model.update(NEW_IMAGE), model.update(MORE_CPU))

    last = (await model.history())[-1]
    assert (last.spec.image, last.spec.resources.cpu_millis) == ("models/legal:2", 600)


async def test_an_update_supersedes_the_rollout_under_way_and_keeps_what_it_goes_back_to(
    life: Life,
) -> None:
    model = await desk(life)
    await model.update(NEW_IMAGE)
    await model.reach(RolloutPhase.REPLACING)
    done = await model.update(MORE_CPU)

    old, new = await model.rollouts()
    assert (old.phase, old.outcome) == (RolloutPhase.SUPERSEDED, "revision 3 was asked for")
    assert old.finished_at is not None
    assert (new.from_revision, new.to_revision) == (1, 3)
    assert "the rollout of revision 2 ends" in done.notes
    assert (await life.reasons(model.id))[-2:] == ["RolloutSuperseded", "Updated"]


async def test_an_update_in_place_leads_the_rollout_under_way_to_its_revision(life: Life) -> None:
    model = await desk(life)
    await model.update(NEW_IMAGE, options=canary())
    trying = await model.reach(RolloutPhase.TRYING, step=1, step_since=5.0)
    done = await model.update(MORE_REPLICAS)

    assert (done.in_place, done.revision.spec.image) == (True, "models/legal:2")
    assert await model.rollouts() == [dataclasses.replace(trying, to_revision=3)]
    assert done.rollout is not None
    assert done.rollout.rollout.to_revision == (await model.deployment()).revision == 3


async def test_before_the_first_revision_was_good_an_update_goes_back_to_it(life: Life) -> None:
    await life.deploy()
    model = Desk(life, (await life.deployments())[0].id)
    await model.pin(1)
    await model.update(NEW_IMAGE)

    assert (await model.latest()).from_revision == 1
    assert (await model.deployment()).stable_revision is None


async def test_a_rollout_goes_back_to_what_was_good_not_to_what_came_in_place_since(
    life: Life,
) -> None:
    model = await desk(life)
    await model.update({"deployment_config": {"serving": {"health_path": "/wrong"}}})
    await model.update(NEW_IMAGE)

    assert (await model.latest()).from_revision == 1


LABELS = [
    ("2.0.0", "2.0.0"),
    (None, "1.0.1"),
]


@pytest.mark.parametrize(("given", "found"), LABELS)
async def test_a_new_container_gets_the_given_label_or_the_next_one(
    life: Life, given: str | None, found: str
) -> None:
    model = await desk(life)
    labelled = {} if given is None else {"model_metadata": {"version": given}}
    done = await model.update({**NEW_IMAGE, **labelled})

    assert done.revision.spec.metadata.version == found
    said = () if given else (f"its version is {found}, after 1.0.0",)
    assert done.notes == said


async def test_the_next_label_is_one_that_labels_nothing(life: Life) -> None:
    model = await desk(life)
    await model.update({**NEW_IMAGE, "model_metadata": {"version": "1.0.1"}})
    await model.update({**MORE_CPU, "model_metadata": {"version": "1.0.0-rc.1"}})
    last = await model.update({"deployment_config": {"args": ["x"]}})

    assert last.revision.spec.metadata.version == "1.0.2"


async def test_a_label_of_another_container_is_refused_naming_its_revision(life: Life) -> None:
    model = await desk(life)
    await model.update({**NEW_IMAGE, "model_metadata": {"version": "2.0.0"}})
    for patch in (
        {**MORE_CPU, "model_metadata": {"version": "1.0.0"}},
        {**MORE_CPU, "model_metadata": {"version": "2.0.0"}},
        {"model_metadata": {"version": "1.0.0"}},
        {"model_metadata": None},
    ):
        with pytest.raises(ConflictError, match=r"labels revision [12], which runs another"):
            await model.update(patch)

    assert len(await model.history()) == 2


async def test_a_label_may_be_used_again_for_the_same_container(life: Life) -> None:
    model = await desk(life)
    await model.update({**NEW_IMAGE, "model_metadata": {"version": "2.0.0"}})
    again = {
        "deployment_config": {
            "container_image": "models/legal:2",
            "scaling": {"max_replicas": 8},
        },
        "model_metadata": {"version": "2.0.0"},
    }
    done = await model.update(again)

    assert done.revision.spec.metadata.version == "2.0.0"


async def test_one_of_two_equal_updates_at_once_makes_one_revision(life: Life) -> None:
    model = await desk(life)
    done = await asyncio.gather(model.update(MORE_CPU), model.update(MORE_CPU))

    assert sorted(one.unchanged for one in done) == [False, True]
    assert len(await model.history()) == 2
