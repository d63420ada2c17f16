"""Decides when a rollout goes a step further, is complete, or goes back, and in which words.

Looks at one deployment: its rollout, its replicas, what the data path measured. Moves no replica:
`shares` and `slots` follow from the rollout as it stands.
"""

import dataclasses
from collections.abc import Sequence

from prsmd.core.exits import cause_words
from prsmd.core.plan import Advance, DesiredDeployment, Prepare, preparing
from prsmd.core.sight import Sight
from prsmd.core.slots import Layout, has_settled, settles_at
from prsmd.core.trial import Broken, TooFew, Trial, TrialReading, judge
from prsmd.domain.deployment import same_container
from prsmd.domain.replica import ExitKind, Replica, ReplicaState
from prsmd.domain.rollout import Rollout, RolloutPhase, RolloutStrategy

CRASHES_TOLERATED = 1  # of replicas that were ready: a second one is the revision's fault
_WHOLE = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What to do about a rollout now; else what it waits for, and until when at the latest.

    `until` is in epoch seconds; None: time alone changes nothing.
    """

    action: Prepare | Advance | None = None
    waiting_for: str = ""
    until: float | None = None


_NOTHING = Course()


def course(item: DesiredDeployment, layout: Layout, sight: Sight) -> Course:
    """Return what happens to a deployment's rollout now."""
    rollout = item.rollout
    if rollout is None or not rollout.active or item.deployment.deleting:
        return _NOTHING
    if sight.containers is None:
        return Course(waiting_for="the container engine does not answer; nothing is moved on")
    trouble = _trouble(item, rollout)
    if trouble is not None and _can_go_back(item, rollout):
        return Course(action=_back(rollout, *trouble, sight.observed.at))
    if rollout.phase is RolloutPhase.PREPARING:
        return _prepare(item, rollout, sight)
    if rollout.phase is RolloutPhase.TRYING:
        return _try(item, rollout, layout, sight)
    return _replace(item, rollout, layout, sight)


def traffic(rollout: Rollout | None) -> Trial | None:
    """Return how a trial divides the traffic now; None where none is under way."""
    if rollout is None or rollout.phase is not RolloutPhase.TRYING:
        return None
    options = rollout.options
    shadow = options.strategy is RolloutStrategy.SHADOW
    canary = options.strategy is RolloutStrategy.CANARY
    weight = _weight(rollout)
    flowing = "flowing" if rollout.step_since is not None else "coming"
    return Trial(
        key=f"{rollout.deployment_id}/{rollout.number}/{rollout.step}/{weight}/{flowing}",
        weight=weight,
        shadow_percent=options.shadow_percent if shadow else 0,
        header=options.header if canary else None,
        sticky=options.sticky,
    )


def _weight(rollout: Rollout) -> int:
    """Return the percent that flows now: a canary's next step begins when its replicas are up."""
    if rollout.weight is not None:
        return rollout.weight
    if rollout.options.strategy is RolloutStrategy.BLUE_GREEN:
        return _WHOLE if rollout.step else 0
    if rollout.options.strategy is RolloutStrategy.SHADOW:
        return 0
    steps = (0, *rollout.options.steps)
    begun = rollout.step + (rollout.step_since is not None)
    return steps[min(begun, len(steps) - 1)]


def _can_go_back(item: DesiredDeployment, rollout: Rollout) -> bool:
    """Tell whether there is a good revision behind: before one was ever ready there is none."""
    known = item.deployment.stable_revision == rollout.from_revision
    stable = item.stable_numbers
    served = any(r.revision in stable and r.ready_at is not None for r in item.replicas)
    return item.stable is not None and (known or served)


def _trouble(item: DesiredDeployment, rollout: Rollout) -> tuple[str, tuple[str, ...]] | None:
    """Return why the new revision is bad, with the last lines that it logged; None: it is not.

    One that ends before it was ever ready will not get ready the next time. A container that was
    removed by somebody says nothing about the revision.
    """
    if rollout.trouble is not None:
        return rollout.trouble, ()
    current = item.current_numbers
    failed = [
        replica
        for replica in item.replicas
        if replica.state is ReplicaState.FAILED
        and replica.revision in current
        and (replica.revision == rollout.to_revision or replica.created_at >= rollout.started_at)
        and replica.exit is not None
        and replica.exit.kind is not ExitKind.LOST
    ]
    unready = [replica for replica in failed if replica.ready_at is None]
    if unready:
        return _blame("never got ready", unready[-1])
    if len(failed) > CRASHES_TOLERATED:
        return _blame(f"crashed {len(failed)} times", failed[-1])
    return None


def _blame(what: str, replica: Replica) -> tuple[str, tuple[str, ...]]:
    tail = replica.exit.log_tail if replica.exit is not None else ()
    return f"replica {replica.id} {what}: {cause_words(replica)}", tail


def _back(rollout: Rollout, why: str, evidence: Sequence[str], now: float) -> Advance:
    after = dataclasses.replace(
        rollout,
        phase=RolloutPhase.ROLLED_BACK,
        outcome=why,
        evidence=tuple(evidence),
        finished_at=now,
    )
    message = (
        f"revision {rollout.to_revision} is given up for revision {rollout.from_revision}: {why}"
    )
    return Advance(before=rollout, after=after, reason="RolledBack", message=message)


def _prepare(item: DesiredDeployment, rollout: Rollout, sight: Sight) -> Course:
    if not rollout.prepared and not (rollout.trouble and not _can_go_back(item, rollout)):
        image = item.revision.spec.image
        waiting = f"image {image} is being brought here; nothing is touched before"
        if preparing(rollout) in sight.observed.working:
            return Course(waiting_for=waiting)
        action = Prepare(rollout=rollout, revision=item.revision)
        return Course(action=action, waiting_for=waiting)
    if rollout.paused:
        return Course(waiting_for=f"paused; {rollout.trouble or 'its image is here'}")
    stable = item.stable
    same = stable is not None and same_container(item.revision, stable)
    on_trial = rollout.options.strategy.on_trial and not same and stable is not None
    standing = [r for r in item.replicas if r.active and r.state is not ReplicaState.DRAINING]
    after = dataclasses.replace(
        rollout,
        phase=RolloutPhase.TRYING if on_trial else RolloutPhase.REPLACING,
        base=len(standing),
    )
    message = (
        f"revision {rollout.to_revision} begins to replace revision {rollout.from_revision}"
        f" ({rollout.options.strategy})"
    )
    return Course(
        action=Advance(before=rollout, after=after, reason="RolloutStarted", message=message)
    )


def _try(item: DesiredDeployment, rollout: Rollout, layout: Layout, sight: Sight) -> Course:
    now = sight.observed.at
    if rollout.step_since is None:
        waiting = _coming_up(item, layout, sight)
        if waiting is not None:
            return waiting
        if rollout.paused:
            return Course(waiting_for="paused before the next step")
        return Course(action=_begin_step(rollout, layout.share.coming, now))
    return _bake(item, rollout, layout, sight)


def _coming_up(item: DesiredDeployment, layout: Layout, sight: Sight) -> Course | None:
    """Return what a trial waits for while its replicas are not all up; None: they are."""
    if not layout.target:
        return Course(waiting_for="the model is scaled to zero: nothing can be tried")
    wanted = layout.share.coming
    if len(layout.settled) >= wanted:
        return None
    words = f"{len(layout.settled)} of {wanted} replicas on trial are ready"
    return Course(waiting_for=words, until=_next_settled(item, layout, sight))


def _begin_step(rollout: Rollout, replicas: int, now: float) -> Advance:
    blue_green = rollout.options.strategy is RolloutStrategy.BLUE_GREEN
    after = dataclasses.replace(rollout, step_since=now, step=1 if blue_green else rollout.step)
    message = (
        f"{_flow_words(after)} ({replicas} ready); it bakes {rollout.options.bake_seconds:g} s"
    )
    return Advance(before=rollout, after=after, reason="TrialStep", message=message)


def _flow_words(rollout: Rollout) -> str:
    if rollout.options.strategy is RolloutStrategy.SHADOW:
        percent = rollout.options.shadow_percent
        return f"{percent} % of the requests are copied to revision {rollout.to_revision}"
    return f"{_weight(rollout)} % of the traffic goes to revision {rollout.to_revision}"


def _bake(item: DesiredDeployment, rollout: Rollout, layout: Layout, sight: Sight) -> Course:
    """Judge what flows; go on when it has flowed for long enough and holds its gate.

    A step that begins in the future began before the clock was set back: it begins anew.
    """
    now, options = sight.observed.at, rollout.options
    trial = traffic(rollout)
    reading = sight.observed.trials.get(rollout.deployment_id)
    if trial is None or reading is None or reading.key != trial.key:
        reading = TrialReading(key="")  # not measured yet: the table is just being published
    verdict = judge(options.gate, reading)
    if isinstance(verdict, Broken):
        return Course(action=_back(rollout, verdict.reason, verdict.evidence, now))
    since = now if rollout.step_since is None else rollout.step_since
    if since > now:
        return Course(action=_begin_step(rollout, layout.share.coming, now))
    unseen = max(0.0, now - since - sight.counted(since))  # then nothing was measured either
    baked_at = since + options.bake_seconds + unseen
    if now < baked_at:
        return Course(waiting_for=f"{_flow_words(rollout)}; it bakes", until=baked_at)
    if isinstance(verdict, TooFew):
        return Course(waiting_for=f"{verdict.reason}; promote it to go on without")
    if rollout.paused or rollout.weight is not None:
        by_hand = "paused" if rollout.paused else "its traffic was set by hand"
        return Course(waiting_for=f"{by_hand}; resume, promote or abort it")
    return _coming_up(item, layout, sight) or _passed(rollout, verdict.evidence)


def _passed(rollout: Rollout, evidence: tuple[str, ...]) -> Course:
    options = rollout.options
    if options.strategy is RolloutStrategy.CANARY and rollout.step + 1 < len(options.steps):
        return Course(action=_next_step(rollout, evidence))
    if options.promote_by_hand:
        return Course(waiting_for="it has passed; promote or abort it")
    return Course(action=_promote(rollout, evidence))


def _next_step(rollout: Rollout, evidence: tuple[str, ...]) -> Advance:
    after = dataclasses.replace(rollout, step=rollout.step + 1, step_since=None, evidence=evidence)
    percent = rollout.options.steps[after.step]
    message = f"step {after.step} held its gate; {percent} % is next ({'; '.join(evidence)})"
    return Advance(before=rollout, after=after, reason="TrialPassed", message=message)


def _promote(rollout: Rollout, evidence: tuple[str, ...]) -> Advance:
    after = dataclasses.replace(
        rollout, phase=RolloutPhase.REPLACING, step_since=None, evidence=evidence
    )
    message = f"revision {rollout.to_revision} held its gate and takes over ({'; '.join(evidence)})"
    return Advance(before=rollout, after=after, reason="Promoted", message=message)


def _replace(item: DesiredDeployment, rollout: Rollout, layout: Layout, sight: Sight) -> Course:
    wanted = max(1, layout.target if rollout.base is None else min(layout.target, rollout.base))
    current = item.current_numbers
    earlier = [r for r in item.replicas if r.active and r.revision not in current]
    if len(layout.settled) < wanted:
        if not layout.target:
            return Course(waiting_for="scaled to zero: it is proven when a replica gets ready")
        done = f"{len(layout.settled)} of {wanted} replicas have taken over"
        paused = "paused; " if rollout.paused else ""
        return Course(waiting_for=paused + done, until=_next_settled(item, layout, sight))
    if earlier:
        return Course(waiting_for=f"{len(earlier)} earlier replicas are still ending")
    after = dataclasses.replace(
        rollout,
        phase=RolloutPhase.COMPLETED,
        finished_at=sight.observed.at,
        outcome=f"revision {rollout.to_revision} has taken over",
    )
    took = max(0.0, sight.observed.at - rollout.started_at)
    message = f"revision {rollout.to_revision} has taken over after {took:.1f} s"
    return Course(action=Advance(before=rollout, after=after, reason="RolledOut", message=message))


def _next_settled(item: DesiredDeployment, layout: Layout, sight: Sight) -> float | None:
    """Return when the next ready replica will have been ready long enough."""
    moments = [
        at
        for replica in layout.kept
        if sight.ready(replica) and not has_settled(item, replica, sight)
        if (at := settles_at(item, replica, sight)) is not None
    ]
    return min(moments, default=None)
