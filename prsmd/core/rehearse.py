"""Tells beforehand what a change would do: runs the same `reconcile` on a model of the world.

Optimistic where the world has the say: images can be had, what is launched gets ready, what is
drained ends, a trial holds its gate, and time passes at once. Pessimistic nowhere: what remains
held at the end is held by what is known now. Decides nothing itself and touches nothing.
"""

import dataclasses
from collections.abc import Sequence

from prsmd.core.envisage import Model
from prsmd.core.plan import (
    Action,
    Advance,
    DesiredDeployment,
    Drain,
    Fail,
    Hold,
    Launch,
    MarkRunning,
    Observed,
    Plan,
    Prepare,
    ScaleStep,
    Stop,
)
from prsmd.core.policy import Policy
from prsmd.core.reconcile import reconcile
from prsmd.core.rollout import course
from prsmd.core.room import MAKES_ROOM, RECREATES
from prsmd.core.sight import Sight
from prsmd.core.slots import lay_out, target_replicas
from prsmd.domain.replica import Placement
from prsmd.domain.rollout import Rollout, RolloutStrategy

MOST_LOOKS = 100_000  # at one replica each: a rehearsal that takes more (seconds) is cut off
NOTHING = "nothing to do"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that would happen, in its turn.

    `kind` is `prepare`, `launch`, `ready`, `drain`, `stop`, `fail`, `scale`, `traffic`, `promoted`,
    `rolled_out` or `rolled_back`. `replica_id` names a replica that is there now; one that would be
    launched is known by revision and slot.
    """

    kind: str
    reason: str
    revision: int
    slot: int | None = None
    replica_id: str | None = None
    placement: Placement | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """How a deployment would come to what it is wanted to be.

    `strategy` is what it amounts to, in words. `holds` are those that remain, and `waits_for` is
    what its rollout waits for at the end, if anything. `lowest_ready` is the lowest number of
    replicas that serve on the way. `settled` is False for a rehearsal that was cut off.
    """

    strategy: str
    steps: tuple[Step, ...]
    holds: tuple[Hold, ...]
    waits_for: str
    lowest_ready: int
    reaches_goal: bool
    settled: bool
    end: DesiredDeployment


def rehearse(
    desired: Sequence[DesiredDeployment],
    observed: Observed,
    now: float,
    policy: Policy,
    deployment_id: str,
) -> Rehearsal:
    """Return what would happen to one of the deployments, which is wanted otherwise than it is.

    `desired` is complete, with the change applied: what others hold and do counts. `now` is seconds
    since the epoch.
    """
    model = Model(desired, observed, now)
    known = frozenset(row.id for item in desired for row in item.replicas)
    begun = model.item(deployment_id)
    steps: list[Step] = []
    lowest = model.ready(deployment_id)
    plan, settled, looks = Plan(), False, 0
    while not settled and looks < MOST_LOOKS:
        looks += 1 + model.size
        plan = reconcile(model.desired(), model.observed(), model.now, policy)
        for action in plan.actions:
            steps += _told(action, known) if _about(action) == deployment_id else []
            model.carry_out(action)
        lowest = min(lowest, model.ready(deployment_id))
        settled = _at_rest(plan, model, begun)
        if plan.actions:
            model.let_time_pass()
        elif not settled:
            settled = not model.skip_time(plan)
    return _result(begun, tuple(steps), plan, model, lowest=lowest, settled=settled)


def _at_rest(plan: Plan, model: Model, begun: DesiredDeployment) -> bool:
    """Tell whether the deployment is as it was wanted, so that others' future does not matter."""
    id_ = begun.deployment.id
    busy = any(_about(action) == id_ for action in plan.actions)
    return not busy and _reached(plan, model, begun)


def _reached(plan: Plan, model: Model, begun: DesiredDeployment) -> bool:
    item = model.item(begun.deployment.id)
    numbers = item.current_numbers
    current = [r for r in item.replicas if r.active and r.revision in numbers]
    there = sum(replica.active for replica in item.replicas)
    rolling = item.rollout is not None and item.rollout.active
    held = any(hold.deployment_id == item.deployment.id for hold in plan.holds)
    as_wanted = item.revision.number == begun.revision.number and not (rolling or held)
    complete = len(current) == there == target_replicas(item)
    return as_wanted and complete and model.ready(item.deployment.id) == there


def _result(
    begun: DesiredDeployment,
    steps: tuple[Step, ...],
    plan: Plan,
    model: Model,
    *,
    lowest: int,
    settled: bool,
) -> Rehearsal:
    item = model.item(begun.deployment.id)
    sight = Sight.of(model.observed())
    holds = tuple(hold for hold in plan.holds if hold.deployment_id == item.deployment.id)
    return Rehearsal(
        strategy=_strategy(begun.rollout, steps, holds),
        steps=steps,
        holds=holds,
        waits_for=course(item, lay_out(item, sight), sight).waiting_for,
        lowest_ready=lowest,
        reaches_goal=settled and _reached(plan, model, begun),
        settled=settled,
        end=item,
    )


def _about(action: Action) -> str | None:
    """Return the deployment that an action is about; None for a container without one."""
    match action:
        case Advance(before=rollout) | Prepare(rollout=rollout):
            return rollout.deployment_id
        case _:
            replica = getattr(action, "replica", None)
            found = getattr(action, "deployment_id", None)
            return replica.deployment_id if replica is not None else found


def _told(action: Action, known: frozenset[str]) -> list[Step]:
    """Return an action as a step; nothing for what only carries on with what has begun."""
    match action:
        case Prepare(revision=revision):
            reason = f"image {revision.spec.image} is brought here; nothing is touched before"
            return [Step(kind="prepare", reason=reason, revision=revision.number)]
        case Advance():
            return _moved_on(action)
        case ScaleStep(replicas=count, reason=reason):
            return [Step(kind="scale", reason=f"to {count} replicas: {reason}", revision=0)]
        case Launch() | MarkRunning() | Drain() | Stop() | Fail():
            return [_of_replica(action, known)]
        case _:
            return []


def _of_replica(action: Launch | MarkRunning | Drain | Stop | Fail, known: frozenset[str]) -> Step:
    replica = action.replica
    step = Step(
        kind=_KINDS[type(action)],
        reason="it answers its health check",
        revision=replica.revision,
        slot=replica.slot,
        replica_id=replica.id if replica.id in known else None,
        placement=replica.placement,
    )
    match action:
        case Fail(cause=cause):
            return dataclasses.replace(step, reason=cause.message)
        case Launch(reason=reason) | Drain(reason=reason) | Stop(reason=reason):
            return dataclasses.replace(step, reason=reason)
        case _:
            return step


_KINDS = {Launch: "launch", MarkRunning: "ready", Drain: "drain", Stop: "stop", Fail: "fail"}


def _moved_on(action: Advance) -> list[Step]:
    """Return a rollout's move as a step, without what the model made up: measures and times."""
    number = action.after.to_revision
    match action.reason:
        case "TrialStep":
            return [Step(kind="traffic", reason=action.message, revision=number)]
        case "Promoted":
            gate = action.after.options.gate
            reason = (
                f"revision {number} takes over once its gate has held: at most"
                f" {gate.max_error_rate:.1%} errors and {gate.max_latency_ratio:g} times the"
                f" stable latency, over at least {gate.min_requests} requests"
            )
            return [Step(kind="promoted", reason=reason, revision=number)]
        case "RolledOut":
            reason = f"revision {number} has taken over"
            return [Step(kind="rolled_out", reason=reason, revision=number)]
        case "RolledBack":
            return [Step(kind="rolled_back", reason=action.message, revision=number)]
        case _:
            return []


def _strategy(rollout: Rollout | None, steps: Sequence[Step], holds: Sequence[Hold]) -> str:
    """Return in words what the change amounts to, whatever `auto` chose."""
    if rollout is None or not rollout.active:
        return _without_rollout(steps, holds)
    asked = rollout.options.strategy
    launches = [step for step in steps if step.kind == "launch"]
    if not launches and not holds:
        return NOTHING
    if asked is RolloutStrategy.AUTO:
        return _how(steps)
    name = asked.value.replace("_", " ")
    if not asked.on_trial:
        return name
    promoted = next((at for at, step in enumerate(steps) if step.kind == "promoted"), len(steps))
    after = steps[promoted:]
    return f"{name}, then {_how(after)}" if any(s.kind == "launch" for s in after) else name


def _how(steps: Sequence[Step]) -> str:
    yielded = [s.reason for s in steps if s.kind == "drain" and s.reason.startswith(MAKES_ROOM)]
    if any(reason.endswith(RECREATES) for reason in yielded):
        return "recreate"
    return "buffered swap" if yielded else "surge"


def _without_rollout(steps: Sequence[Step], holds: Sequence[Hold]) -> str:
    kinds = {step.kind for step in steps}
    if "launch" in kinds or holds:
        return "launch"
    return "drain" if "drain" in kinds else NOTHING
