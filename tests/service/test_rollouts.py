"""Rollouts by hand: pause, resume, promote, abort, traffic; in each phase, and what is refused."""

import asyncio
import dataclasses
from typing import Any

import pytest

from prsmd.domain.errors import (
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
)
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase, RolloutStrategy
from prsmd.service.rollouts import Divided, RolloutReport, shares_of
from prsmd.store import rollouts
from prsmd.store.db import Tx
from tests.engine.harness import Life, caller
from tests.service.revising import MORE_REPLICAS, NEW_IMAGE, Desk, canary, desk

UNDER_WAY = [RolloutPhase.PREPARING, RolloutPhase.TRYING, RolloutPhase.REPLACING]


async def rolling(life: Life, phase: RolloutPhase, **changes: Any) -> tuple[Desk, Rollout]:
    """A model with a canary that has got this far."""
    model = await desk(life)
    await model.update(NEW_IMAGE, options=canary())
    return model, await model.reach(phase, **changes)


def weights(done: Divided) -> dict[int, int | None]:
    return {share.revision.number: share.weight for share in done.shares}


def rollouts_of(life: Life) -> Any:
    return life.services.rollouts


@pytest.mark.parametrize("phase", UNDER_WAY)
async def test_a_rollout_is_paused_and_resumed_in_any_phase(
    life: Life, phase: RolloutPhase
) -> None:
    model, before = await rolling(life, phase)
    paused = await rollouts_of(life).pause(caller("operator"), "legal")

    assert paused.changed
    assert paused.report.rollout == dataclasses.replace(before, paused=True)
    assert not (await rollouts_of(life).pause(caller("operator"), "legal")).changed
    assert (await rollouts_of(life).resume(caller("operator"), "legal")).report.rollout == before
    assert not (await rollouts_of(life).resume(caller("operator"), "legal")).changed
    assert (await life.reasons(model.id))[-2:] == ["RolloutPaused", "RolloutResumed"]
    assert (await life.audit())[-4:] == [
        *[("models.rollout.pause", "allowed")] * 2,
        *[("models.rollout.resume", "allowed")] * 2,
    ]


async def test_a_trial_is_promoted_whatever_it_was_given_and_measured(life: Life) -> None:
    model, before = await rolling(
        life, RolloutPhase.TRYING, step=1, step_since=1.0, weight=30, paused=True
    )
    done = await rollouts_of(life).promote(caller("operator"), "legal")

    assert await model.latest() == done.report.rollout
    assert done.report.rollout == dataclasses.replace(
        before, phase=RolloutPhase.REPLACING, step_since=None, weight=None, paused=False
    )
    assert (await life.reasons(model.id))[-1] == "Promoted"


@pytest.mark.parametrize("phase", [RolloutPhase.PREPARING, RolloutPhase.REPLACING])
async def test_what_is_not_on_trial_cannot_be_promoted(life: Life, phase: RolloutPhase) -> None:
    model, before = await rolling(life, phase)
    with pytest.raises(ConflictError, match=f"not on trial.*is {phase.value}"):
        await rollouts_of(life).promote(caller("operator"), "legal")

    assert await model.latest() == before


@pytest.mark.parametrize("phase", UNDER_WAY)
async def test_an_aborted_rollout_leaves_what_it_came_from(life: Life, phase: RolloutPhase) -> None:
    model, before = await rolling(life, phase)
    done = await rollouts_of(life).abort(caller("operator"), "legal")

    after = await model.latest()
    assert (after.phase, after.outcome) == (RolloutPhase.ABORTED, f"aborted by hand ({phase})")
    assert after.finished_at is not None
    assert (before.from_revision, done.deployment.revision) == (1, 1)
    assert (await model.deployment()).revision == 1
    assert life.appliance.reconciler._woken.is_set()


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "abort"])
async def test_without_a_rollout_under_way_there_is_nothing_to_steer(life: Life, verb: str) -> None:
    model = await desk(life)
    act = getattr(rollouts_of(life), verb)
    with pytest.raises(ConflictError, match="No rollout of custom_legal is under way"):
        await act(caller("operator"), "legal")
    await model.update(NEW_IMAGE)
    await model.reach(RolloutPhase.ROLLED_BACK, outcome="it crashed twice")
    with pytest.raises(ConflictError, match="the last one was rolled_back: it crashed twice"):
        await act(caller("operator"), "legal")


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "abort"])
async def test_who_may_not_update_steers_nothing(life: Life, verb: str) -> None:
    model, before = await rolling(life, RolloutPhase.TRYING)
    act = getattr(rollouts_of(life), verb)
    with pytest.raises(PermissionDeniedError):
        await act(caller("viewer"), "legal")
    with pytest.raises(PreconditionFailedError):
        await act(caller("operator"), "legal", frozenset({1}))

    assert await model.latest() == before
    assert (await life.audit())[-1] == ("models.update", "denied")


async def test_of_an_abort_and_a_promotion_at_once_the_abort_wins_in_any_order(life: Life) -> None:
    """A promotion that comes first is undone; one that comes after finds nothing under way."""
    model, _ = await rolling(life, RolloutPhase.TRYING)
    service = rollouts_of(life)
    outcomes = await asyncio.gather(
        service.abort(caller("operator"), "legal"),
        service.promote(caller("operator"), "legal"),
        return_exceptions=True,
    )

    aborted, promoted = outcomes
    assert not isinstance(aborted, BaseException)
    assert not isinstance(promoted, BaseException) or isinstance(promoted, ConflictError)
    assert (await model.latest()).phase is RolloutPhase.ABORTED
    assert (await model.deployment()).revision == 1


async def test_a_step_of_the_loop_in_between_is_not_undone(life: Life) -> None:
    _, before = await rolling(life, RolloutPhase.TRYING)
    moved = dataclasses.replace(before, step=1, step_since=9.0)

    async def write(tx: Tx) -> bool:
        return await rollouts.replace(tx, before, moved)

    stepped, paused = await asyncio.gather(
        life.database.write(write), rollouts_of(life).pause(caller("operator"), "legal")
    )
    assert stepped
    assert paused.report.rollout == dataclasses.replace(moved, paused=True)


async def test_the_latest_rollout_is_shown_ended_or_not(life: Life) -> None:
    model = await desk(life)
    with pytest.raises(NotFoundError, match="has had no rollout"):
        await rollouts_of(life).get(caller("viewer"), "legal")
    await model.update(NEW_IMAGE)
    await model.reach(RolloutPhase.ROLLED_BACK, outcome="it crashed", evidence=("last line",))
    _, report = await rollouts_of(life).get(caller("viewer"), "legal")

    assert (report.stable.number, report.coming.number) == (1, 2)
    assert report.rollout.evidence == ("last line",)


@pytest.mark.parametrize("strategy", [RolloutStrategy.CANARY, RolloutStrategy.BLUE_GREEN])
async def test_the_traffic_of_a_trial_is_divided_by_hand(
    life: Life, strategy: RolloutStrategy
) -> None:
    model = await desk(life)
    await model.update(NEW_IMAGE, options=RolloutOptions(strategy=strategy))
    before = await model.reach(RolloutPhase.TRYING)
    done = await rollouts_of(life).set_traffic(caller("operator"), "legal", {1: 70, 2: 30})

    assert await model.latest() == dataclasses.replace(before, weight=30)
    assert weights(done) == {1: 70, 2: 30}
    assert (await life.events(model.id))[-1].message == (
        "divided by hand: 70 % to revision 1, 30 % to revision 2"
    )
    done = await rollouts_of(life).set_traffic(caller("operator"), "legal", {1: 100})
    assert (weights(done), (await model.latest()).weight) == ({1: 100, 2: 0}, 0)


async def test_without_a_trial_all_traffic_goes_to_the_one_that_serves(life: Life) -> None:
    model = await desk(life)
    done = await rollouts_of(life).set_traffic(caller("operator"), "legal", {1: 100})
    assert (weights(done), done.report) == ({1: 100}, None)
    await model.update(MORE_REPLICAS)
    with pytest.raises(ConflictError, match=r"Revision 1 of custom_legal .*live is revision 2"):
        await rollouts_of(life).set_traffic(caller("operator"), "legal", {1: 100})


DEAD = [
    (RolloutPhase.PREPARING, canary(), r"live is revision 1 \(the rollout is preparing\)"),
    (RolloutPhase.TRYING, RolloutOptions(strategy=RolloutStrategy.SHADOW), "live is revision 1"),
    (RolloutPhase.REPLACING, canary(), "revision 2 is replacing revision 1"),
]


@pytest.mark.parametrize(
    ("phase", "options", "why"), DEAD, ids=["preparing", "shadow", "replacing"]
)
async def test_traffic_to_what_cannot_take_it_is_refused_saying_what_can(
    life: Life, phase: RolloutPhase, options: RolloutOptions, why: str
) -> None:
    model = await desk(life)
    await model.update(NEW_IMAGE, options=options)
    before = await model.reach(phase)
    with pytest.raises(ConflictError, match=why):
        await rollouts_of(life).set_traffic(caller("operator"), "legal", {1: 50, 2: 50})

    assert await model.latest() == before


async def test_traffic_to_what_was_never_there_is_refused(life: Life) -> None:
    await rolling(life, RolloutPhase.TRYING)
    with pytest.raises(ConflictError, match=r"Revision 7 .* live are revisions 1 and 2") as refused:
        await rollouts_of(life).set_traffic(caller("operator"), "legal", {1: 50, 7: 50})

    assert refused.value.details["live_revisions"] == [1, 2]


async def test_traffic_is_what_the_trial_says_and_nobodys_while_replicas_are_replaced(
    life: Life,
) -> None:
    model, trying = await rolling(life, RolloutPhase.TRYING)
    first, second = await model.history()
    shown = {}
    for name, changes in {
        "before it flows": {},
        "first step": {"step_since": 1.0},
        "second step": {"step": 1, "step_since": 1.0},
        "preparing": {"phase": RolloutPhase.PREPARING},
        "replacing": {"phase": RolloutPhase.REPLACING},
        "ended": {"phase": RolloutPhase.COMPLETED},
    }.items():
        rollout = dataclasses.replace(trying, **changes)
        report = RolloutReport(rollout=rollout, stable=first, coming=second)
        shares = shares_of(second, report)
        shown[name] = {share.revision.number: share.weight for share in shares}

    assert shown == {
        "before it flows": {2: 0, 1: 100},
        "first step": {2: 10, 1: 90},
        "second step": {2: 50, 1: 50},
        "preparing": {2: 0, 1: 100},
        "replacing": {2: None, 1: None},
        "ended": {2: 100},
    }
