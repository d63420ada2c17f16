"""Derives what a deployment's status is, and why, from desired and observed state. Stores nothing.

The first rule that holds names the status; reasons and causes are passed on in their own words.
"""

import dataclasses
from collections.abc import Callable, Sequence

from prsmd.core.exits import cause_words
from prsmd.core.outlook import (
    coming_words,
    failing_rows,
    hold_words,
    holds_of,
    needs_operator,
)
from prsmd.core.plan import DesiredDeployment, Hold, Observed
from prsmd.core.rollout import course
from prsmd.core.sight import Sight
from prsmd.core.slots import Layout, lay_out
from prsmd.domain.deployment import DeploymentStatus
from prsmd.domain.replica import Replica, ReplicaState
from prsmd.domain.rollout import Rollout, RolloutPhase


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One aspect of a deployment: whether it holds, and why. `reason` is one CamelCase word."""

    type: str
    status: bool
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """A deployment as clients see it.

    `ready_replicas` are of the current revision; `available_replicas` are all that can serve, those
    of earlier revisions included. `health_status` is `healthy`, `degraded`, `unhealthy`, `starting`
    or `unknown` (nothing runs that could be asked). `rollout_waits_for` says what a rollout under
    way waits for; empty without one.
    """

    status: DeploymentStatus
    health_status: str
    desired_replicas: int
    ready_replicas: int
    available_replicas: int
    reason: str
    message: str
    conditions: tuple[Condition, ...]
    rollout_waits_for: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What the rules look at. `row` is the longest row of failures of a slot that is not ready.

    `target` is the larger of what there should be now and of where gradual scaling is going
    (`asked`). `rollout` is the latest one.
    """

    deleting: bool
    target: int
    asked: int
    stepping: bool
    rollout: Rollout | None
    rollout_waits_for: str
    ready: int
    available: int
    waiting: tuple[Replica, ...]
    older: int
    leaving: int
    row: tuple[Replica, ...]
    holds: tuple[Hold, ...]
    served_before: bool
    engine_answers: bool

    @property
    def rolling(self) -> bool:
        return self.rollout is not None and self.rollout.active

    @property
    def unplaceable(self) -> tuple[Hold, ...]:
        return tuple(hold for hold in self.holds if hold.kind == "unplaceable")

    @property
    def hopeless(self) -> bool:
        return needs_operator(self.row)

    @property
    def troubled(self) -> bool:
        """Tell whether something is wrong, and not merely on its way."""
        fell = any(replica.state is ReplicaState.RUNNING for replica in self.waiting)
        engine = any(hold.kind == "engine" for hold in self.holds)
        return bool(self.row or self.unplaceable or fell or engine)


_S = DeploymentStatus
_RULES: Sequence[tuple[DeploymentStatus, Callable[[_Facts], bool]]] = (
    (_S.DELETING, lambda f: f.deleting),
    (_S.IDLE, lambda f: not f.target and not f.leaving),
    (_S.SCALING, lambda f: not f.target),
    (_S.FAILED, lambda f: not f.available and f.hopeless),
    (_S.UPDATING, lambda f: f.rolling and not f.troubled),
    (_S.DEGRADED, lambda f: not f.available and f.served_before and f.troubled),
    (_S.SCALING, lambda f: not f.available and f.served_before),
    (_S.DEPLOYING, lambda f: not f.available),
    (_S.DEGRADED, lambda f: f.available < f.target and f.troubled),
    (_S.DEGRADED, lambda f: f.ready < f.target and (f.hopeless or bool(f.unplaceable))),
    (_S.UPDATING, lambda f: f.rolling or f.older > 0),
    (_S.SCALING, lambda f: f.ready < f.target or f.leaving > 0 or f.stepping),
    (_S.RUNNING, lambda _: True),
)


def derive(item: DesiredDeployment, observed: Observed, holds: Sequence[Hold]) -> StatusView:
    """Return the status of a deployment; `holds` may be those of all deployments."""
    sight = Sight.of(observed)
    facts = _facts(item, lay_out(item, sight), holds, sight)
    status = next(status for status, holds_true in _RULES if holds_true(facts))
    reason = _reason(status, facts)
    message = _message(facts, sight)
    return StatusView(
        status=status,
        health_status=_health(status, facts),
        desired_replicas=facts.asked,
        ready_replicas=facts.ready,
        available_replicas=facts.available,
        reason=reason,
        message=message,
        conditions=_conditions(facts, reason, message),
        rollout_waits_for=facts.rollout_waits_for,
    )


def _facts(item: DesiredDeployment, layout: Layout, holds: Sequence[Hold], sight: Sight) -> _Facts:
    active = [replica for replica in item.replicas if replica.active]
    waiting = tuple(replica for replica in layout.kept if not sight.ready(replica))
    slots = (*(replica.slot for replica in waiting), *layout.empty)
    failing = failing_rows(item)
    rows = [failing.get(slot, ()) for slot in slots]
    ready = sum(sight.ready(replica) for replica in layout.kept)
    return _Facts(
        deleting=item.deployment.deleting,
        target=max(layout.target, layout.asked),
        asked=layout.asked,
        stepping=layout.target != layout.asked,
        rollout=item.rollout,
        rollout_waits_for=course(item, layout, sight).waiting_for,
        ready=ready,
        available=ready + sum(sight.ready(replica) for replica in layout.older),
        waiting=waiting,
        older=len(layout.older),
        leaving=len(active) - len(layout.kept) - len(layout.older),
        row=max(rows, key=lambda row: (needs_operator(row), len(row)), default=()),
        holds=tuple(holds_of(item, holds)),
        served_before=any(replica.ready_at is not None for replica in item.replicas),
        engine_answers=sight.containers is not None,
    )


def _health(status: DeploymentStatus, facts: _Facts) -> str:
    if status is _S.DEGRADED and facts.available:
        return "degraded"
    if facts.available or not facts.target:
        return "healthy" if facts.available else "unknown"
    return "unhealthy" if facts.troubled else "starting"


def _reason(status: DeploymentStatus, facts: _Facts) -> str:
    if status in {_S.DELETING, _S.IDLE, _S.RUNNING}:
        return {_S.DELETING: "Deleting", _S.IDLE: "ScaledToZero", _S.RUNNING: "Running"}[status]
    if facts.ready < facts.target and (cause := _cause(facts)) is not None:
        return cause
    if status is _S.UPDATING:
        return "Updating"
    if any(replica.state is ReplicaState.PENDING for replica in facts.waiting):
        return "Launching"
    if facts.waiting:
        return "Starting"
    return "Draining" if facts.leaving and facts.ready >= facts.target else "Scheduling"


def _cause(facts: _Facts) -> str | None:
    """Return what stands in the way, gravest first; None: nothing does, it only takes time."""
    if facts.hopeless or (facts.row and not facts.holds):
        return _last_exit(facts)
    if facts.unplaceable:
        return "Unplaceable"
    if any(hold.kind == "engine" for hold in facts.holds):
        return "EngineUnreachable"
    if facts.row:
        return _last_exit(facts)
    fell = any(replica.state is ReplicaState.RUNNING for replica in facts.waiting)
    return "NotReady" if fell else None


def _last_exit(facts: _Facts) -> str:
    newest = facts.row[-1].exit
    return "Failed" if newest is None else "".join(map(str.capitalize, newest.kind.split("_")))


def _message(facts: _Facts, sight: Sight) -> str:
    if not facts.target:
        rest = f"; {facts.leaving} replicas are still ending" if facts.leaving else ""
        return ("being deleted" if facts.deleting else "scaled to zero") + rest
    parts = [f"{facts.available} of {facts.target} replicas can serve", *_rollout_words(facts)]
    if facts.older:
        parts.append(f"{facts.older} of an earlier revision stand in")
    parts += [coming_words(replica, sight) for replica in facts.waiting]
    if facts.row and not any(hold.kind == "backoff" for hold in facts.holds):
        times = "once" if len(facts.row) == 1 else f"{len(facts.row)} times in a row"
        parts.append(f"failed {times}, last: {cause_words(facts.row[-1])}")
    if facts.holds:
        parts.append(hold_words(facts.holds))
    if not facts.engine_answers and not any(hold.kind == "engine" for hold in facts.holds):
        parts.append("the container engine does not answer; what runs is left as it is")
    return ". ".join(parts)


def _rollout_words(facts: _Facts) -> list[str]:
    """Return what is to be said of the latest rollout: nothing, where it went well."""
    rollout = facts.rollout
    if rollout is None:
        return []
    if rollout.active:
        waits = f": {facts.rollout_waits_for}" if facts.rollout_waits_for else ""
        how = f"{rollout.options.strategy}, {rollout.phase}"
        return [f"revision {rollout.to_revision} is being rolled out ({how}){waits}"]
    if rollout.phase is RolloutPhase.ROLLED_BACK:
        return [f"revision {rollout.to_revision} was rolled back: {rollout.outcome}"]
    return []


def _rolled_out(facts: _Facts) -> Condition:
    words = ". ".join(_rollout_words(facts)) or "the current revision is fully rolled out"
    rolled_back = facts.rollout is not None and facts.rollout.phase is RolloutPhase.ROLLED_BACK
    return Condition(
        type="RolledOut",
        status=not (facts.rolling or rolled_back),
        reason="RolledBack" if rolled_back else "RollingOut" if facts.rolling else "RolledOut",
        message=words,
    )


def _conditions(facts: _Facts, reason: str, message: str) -> tuple[Condition, ...]:
    available = f"{facts.available} of {facts.target} replicas can serve"
    moving = bool(facts.waiting or facts.leaving or facts.ready < facts.target)
    placed = hold_words(facts.unplaceable) or "every replica that is wanted has its place"
    return (
        Condition(
            type="Available",
            status=facts.available > 0,
            reason="Serving" if facts.available else reason,
            message=available,
        ),
        Condition(
            type="Progressing",
            status=moving and not facts.hopeless and not facts.unplaceable,
            reason=reason,
            message=message,
        ),
        Condition(
            type="Placed",
            status=not facts.unplaceable,
            reason="Unplaceable" if facts.unplaceable else "Placed",
            message=placed,
        ),
        _rolled_out(facts),
        Condition(
            type="EngineReachable",
            status=facts.engine_answers,
            reason="Answering" if facts.engine_answers else "EngineUnreachable",
            message="the container engine answers"
            if facts.engine_answers
            else "the container engine does not answer; what runs is left as it is",
        ),
    )
