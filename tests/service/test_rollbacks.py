"""Rollbacks and versions: where a model goes back to, and what its history says of it."""

import pytest

from prsmd.domain.body import HIDDEN
from prsmd.domain.errors import (
    ConflictError,
    ModelNotFoundError,
    NotFoundError,
    PreconditionFailedError,
)
from prsmd.domain.replica import ReplicaState
from prsmd.domain.rollout import RolloutPhase
from tests.engine.harness import Life, caller
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


async def updated(life: Life) -> Desk:
    """A model whose second revision, with a new image, has taken over."""
    model = await desk(life)
    await model.update({**NEW_IMAGE, "model_metadata": {"version": "2.0.0"}})
    await model.pin(2, "sha256:" + "2" * 64)
    await model.complete()
    return model


async def test_by_default_a_rollback_wants_the_last_good_content_in_a_new_revision(
    life: Life,
) -> None:
    model = await updated(life)
    done = await model.rollback(options=canary(30))

    first, _, third = await model.history()
    assert (third.spec, third.image_digest, third.number) == (first.spec, DIGEST, 3)
    assert (done.revision, done.in_place) == (third, False)
    rollout = await model.latest()
    assert (rollout.from_revision, rollout.to_revision) == (2, 3)
    assert rollout.options == canary(30)
    assert (await life.reasons(model.id))[-1] == "RollbackRequested"
    assert (await life.audit())[-1] == ("models.rollback", "allowed")


@pytest.mark.parametrize("goal", [{"revision": 1}, {"version": "1.0.0"}])
async def test_a_goal_is_named_by_number_or_label(life: Life, goal: dict[str, object]) -> None:
    model = await updated(life)
    done = await model.rollback(**goal)

    assert done.revision.spec.image == "models/legal:1"


async def test_a_label_that_several_revisions_have_means_the_newest(life: Life) -> None:
    model = await desk(life)
    await model.update(MORE_REPLICAS)
    await model.update(MORE_CPU)
    done = await model.rollback(version="1.0.0")

    assert done.revision.spec.scaling.max_replicas == 9


async def test_going_back_over_changes_that_need_no_container_is_in_place(life: Life) -> None:
    model = await desk(life)
    await model.update(MORE_REPLICAS)
    done = await model.rollback(revision=1)

    assert (done.in_place, done.revision.spec.scaling.max_replicas) == (True, 4)
    assert await model.rollouts() == []
    assert (await life.reasons(model.id))[-1] == "RollbackRequestedInPlace"


async def test_going_back_to_what_is_wanted_changes_nothing(life: Life) -> None:
    model = await updated(life)
    done = await model.rollback(revision=2)

    assert done.unchanged
    assert len(await model.history()) == 2


@pytest.mark.parametrize("goal", [{}, {"revision": 1}, {"version": "1.0.0"}])
@pytest.mark.parametrize(
    "phase", [RolloutPhase.PREPARING, RolloutPhase.TRYING, RolloutPhase.REPLACING]
)
async def test_a_rollout_under_way_is_aborted_by_going_back_to_where_it_came_from(
    life: Life, phase: RolloutPhase, goal: dict[str, object]
) -> None:
    model = await desk(life)
    await model.update(NEW_IMAGE, options=canary())
    await model.reach(phase)
    done = await model.rollback(**goal)

    rollout = await model.latest()
    assert (rollout.phase, rollout.active) == (RolloutPhase.ABORTED, False)
    assert rollout.outcome == "a rollback to revision 1 was asked for"
    assert (await model.deployment()).revision == done.revision.number == 1
    assert len(await model.history()) == 2
    assert (await life.reasons(model.id))[-1] == "RolloutAborted"


async def test_another_goal_during_a_rollout_supersedes_it(life: Life) -> None:
    model = await updated(life)
    await model.update(MORE_CPU)
    done = await model.rollback(revision=1)

    *_, old, new = await model.rollouts()
    assert old.phase is RolloutPhase.SUPERSEDED
    assert (new.from_revision, new.to_revision) == (2, 4)
    assert done.revision.spec.image == "models/legal:1"


@pytest.mark.parametrize(
    ("goal", "known"),
    [
        ({"revision": 9}, r"no revision 9 of custom_legal; its revisions are 1 \(1\.0\.0\), 2"),
        ({"version": "9.9.9"}, r"no version 9\.9\.9 of custom_legal; its revisions are 1"),
    ],
)
async def test_an_unknown_goal_is_not_found_and_those_known_are_named(
    life: Life, goal: dict[str, object], known: str
) -> None:
    model = await updated(life)
    with pytest.raises(NotFoundError, match=known) as missing:
        await model.rollback(**goal)

    assert missing.value.details["revisions"] == [1, 2]
    assert len(await model.history()) == 2


async def test_without_another_good_revision_there_is_nothing_to_go_back_to(life: Life) -> None:
    model = await desk(life)
    with pytest.raises(ConflictError, match="revision 1 is the only one"):
        await model.rollback()
    await model.update(NEW_IMAGE)
    await model.reach(RolloutPhase.ROLLED_BACK, outcome="it crashed")
    with pytest.raises(ConflictError, match="none but revision 1, which is wanted now"):
        await model.rollback()


async def test_before_anything_was_good_there_is_nothing_good_to_go_back_to(life: Life) -> None:
    model = Desk(life, await life.deploy())
    await model.update(MORE_REPLICAS)
    with pytest.raises(ConflictError, match="none was ever fully ready"):
        await model.rollback()

    assert (await model.rollback(revision=1)).revision.spec.scaling.max_replicas == 4


async def test_what_is_ready_is_good_though_no_tick_has_noted_it_yet(life: Life) -> None:
    model = Desk(life, await life.deploy())
    await put_replica(life, model.id, "gpu-0")
    await model.update(NEW_IMAGE)
    assert [one.good_at is not None for one in await model.history()] == [True, False]
    assert (await model.deployment()).stable_revision == 1
    await model.complete()

    assert (await model.rollback()).revision.spec.image == "models/legal:1"


async def test_what_was_changed_in_place_is_as_good_as_what_it_runs_in(life: Life) -> None:
    model = await desk(life)
    await put_replica(life, model.id, "gpu-0")
    await model.update(MORE_REPLICAS)
    await model.update(NEW_IMAGE)
    assert (await model.latest()).from_revision == 2
    await model.complete()

    assert (await model.rollback()).revision.spec.scaling.max_replicas == 9


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.DRAINING])
async def test_what_is_not_ready_is_not_good(life: Life, state: ReplicaState) -> None:
    model = Desk(life, await life.deploy())
    await put_replica(life, model.id, "gpu-0", state=state)
    await model.update(NEW_IMAGE)

    assert [one.good_at for one in await model.history()] == [None, None]


async def test_what_is_ready_on_trial_is_not_good_before_its_rollout_is_done(life: Life) -> None:
    model = Desk(life, await life.deploy())
    await model.update(NEW_IMAGE)
    await put_replica(life, model.id, "gpu-0", revision=2)
    await model.update(MORE_CPU)

    assert [one.good_at for one in await model.history()] == [None, None, None]


async def test_a_stale_rollback_is_refused(life: Life) -> None:
    model = await updated(life)
    with pytest.raises(PreconditionFailedError, match="is at revision 2 now"):
        await model.rollback(revision=1, expected=frozenset({1}))

    assert (await life.audit())[-1] == ("models.update", "allowed")


async def test_history_says_who_why_and_what_became_of_each_revision(life: Life) -> None:
    model = await updated(life)
    await model.update(MORE_CPU)
    await model.reach(RolloutPhase.ROLLED_BACK, outcome="replica x never got ready")
    await model.rollback()
    await model.complete()
    await model.update({"deployment_config": {"container_image": "models/legal:1"}})
    found, total = await life.services.versions.page(caller("viewer"), "legal", 20, 0)

    assert total == 5
    assert [(one.revision.number, one.why, one.state, one.reason) for one in found] == [
        (5, "updated", "rolling_out", "auto: preparing"),
        (4, "rollback to 1", "stable", ""),
        (3, "updated", "rolled_back", "replica x never got ready"),
        (2, "updated", "replaced", ""),
        (1, "deployed", "replaced", ""),
    ]
    assert [one.revision.created_by for one in found[:-1]] == ["key:operator@default"] * 4
    some, _ = await life.services.versions.page(caller("viewer"), "legal", 2, 1)
    assert [one.revision.number for one in some] == [4, 3]


async def test_the_wanted_revision_is_the_current_one_once_nothing_is_under_way(
    life: Life,
) -> None:
    model = await updated(life)
    again = {
        "deployment_config": {"container_image": "models/legal:2"},
        "model_metadata": {"version": "2.0.0"},
    }
    await model.update(again)
    await model.reach(RolloutPhase.ABORTED, outcome="by hand")
    await model.update(again)
    await model.complete()
    found, _ = await life.services.versions.page(caller(), "legal", 20, 0)

    assert [one.state for one in found] == ["current", "aborted", "replaced", "replaced"]
    assert found[0].why == "updated: the image was resolved again"


async def test_revisions_are_compared_by_field_with_the_image_they_were_pinned_to(
    life: Life,
) -> None:
    model = await updated(life)
    await model.update({"deployment_config": {"environment": {"TOKEN": "s3cret"}}})
    versions = life.services.versions
    by_default = await versions.compare(caller("viewer"), "legal", None, None)
    chosen = await versions.compare(caller("viewer"), "legal", 2, 1)

    assert (by_default.before.number, by_default.after.number) == (2, 3)
    assert {(one.field, one.before, one.after) for one in by_default.changes} == {
        ("deployment_config.environment.TOKEN", None, HIDDEN),
        ("model_metadata.version", "2.0.0", "2.0.1"),
    }
    assert [one.field for one in chosen.changes] == [
        "deployment_config.container_image",
        "model_metadata.version",
        "image_digest",
    ]


async def test_the_first_revision_differs_from_nothing(life: Life) -> None:
    await desk(life)
    found = await life.services.versions.compare(caller(), "legal", None, None)

    assert (found.before.number, found.after.number, found.changes) == (1, 1, ())


async def test_only_who_may_read_a_model_sees_its_history(life: Life) -> None:
    await desk(life)
    stranger = caller("owner", "rival")
    with pytest.raises(ModelNotFoundError):
        await life.services.versions.page(stranger, "legal", 20, 0)
    with pytest.raises(ModelNotFoundError):
        await life.services.versions.compare(stranger, "legal", 1, 1)
    with pytest.raises(NotFoundError, match="no revision 7"):
        await life.services.versions.compare(caller(), "legal", 7, None)
