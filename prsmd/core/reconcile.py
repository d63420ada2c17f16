"""Decides what the daemon does next: compares what is desired with what is observed.

Pure: the same desired and observed state at the same moment give the same plan. The plan of a
world that is as it should be is empty. Expects the rows in `desired` to be no older than the
containers in `observed`; then a container without an active row is truly an orphan.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from prsmd.core.capacity import capacity_of, reserve
from prsmd.core.claims import claims
from prsmd.core.fill import Decision, fill
from prsmd.core.plan import (
    Action,
    Adopt,
    DesiredDeployment,
    Drain,
    Fail,
    FinishDelete,
    Hold,
    Launch,
    NoteGood,
    Observed,
    Plan,
    RemoveOrphan,
    Stop,
)
from prsmd.core.policy import Policy
from prsmd.core.rollout import Course, course
from prsmd.core.room import Yield, without
from prsmd.core.sight import Sight
from prsmd.core.slots import Layout, lay_out
from prsmd.core.steps import next_step
from prsmd.core.supervise import Care, Moment, look_after
from prsmd.domain.replica import Replica, ReplicaState

__all__ = ["Policy", "reconcile"]


def reconcile(
    desired: Sequence[DesiredDeployment], observed: Observed, now: float, policy: Policy
) -> Plan:
    """Return what to do now and what is held back, each with its reason.

    Every replica gets at most one action. Replicas that are ill or done are ended, those on their
    way are helped on, those too many are drained; empty slots are filled with what no replica has
    reserved, first those of deployments that are being rolled out, then the oldest deployment's;
    what one gave up for its new revision is for nobody else; rollouts go a step further; containers
    that belong to no active replica go. `now` is seconds since the epoch.
    """
    observed = dataclasses.replace(observed, at=now)
    moment = Moment(sight=Sight.of(observed), now=now, policy=policy)
    limits = {item.deployment.organization: item.limits for item in desired}
    capacity = capacity_of(observed, (r for item in desired for r in item.replicas), limits)
    claimed = ((item.deployment.id, claims(item, moment.sight)) for item in desired)
    kept_free = {id_: rows for id_, rows in claimed if rows}
    actions: list[Action] = []
    holds: list[Hold] = []
    moments: list[float] = []
    for item in sorted(desired, key=_turn):
        layout = lay_out(item, moment.sight)
        others = [
            one for id_, rows in kept_free.items() if id_ != item.deployment.id for one in rows
        ]
        room = dataclasses.replace(reserve(capacity, others), tenant=item.deployment.organization)
        decisions, left = fill(item, layout, room, moment)
        capacity = without(left, others)
        actions += _upkeep(item, layout, _yielded(decisions), moment)
        actions += [one for one in decisions if isinstance(one, Launch)]
        holds += [one for one in decisions if isinstance(one, Hold)]
        onward = course(item, layout, moment.sight)
        actions += _onward(item, layout, onward, moment.sight)
        moments += [onward.until] if onward.until is not None else []
    actions += _orphans(desired, observed)
    actions += _forgotten(desired)
    return Plan(actions=tuple(actions), holds=tuple(holds), until=min(moments, default=None))


def _turn(item: DesiredDeployment) -> tuple[bool, float, str]:
    rolling = item.rollout is not None and item.rollout.active
    return not rolling, item.deployment.created_at, item.deployment.id


def _yielded(decisions: Sequence[Decision]) -> dict[str, str]:
    """Return the replicas that give way, with the reason."""
    given = (one for one in decisions if isinstance(one, Yield))
    return {replica.id: one.reason for one in given for replica in one.replicas}


def _onward(item: DesiredDeployment, layout: Layout, onward: Course, sight: Sight) -> list[Action]:
    """Return what moves the deployment itself on: its rollout, gradual scaling, what is good."""
    if onward.action is not None:
        return [onward.action]
    step = next_step(item, layout, sight)
    if step is not None:
        return [step]
    deployment, rollout = item.deployment, item.rollout
    known = deployment.stable_revision == deployment.revision
    under_way = (rollout is not None and rollout.active) or deployment.deleting
    if known or under_way or not layout.settled or sight.containers is None:
        return []
    return [NoteGood(deployment_id=deployment.id, revision=deployment.revision)]


def _upkeep(
    item: DesiredDeployment, layout: Layout, yielded: Mapping[str, str], moment: Moment
) -> list[Action]:
    """Return at most one action for each active replica of a deployment."""
    surplus = {**{replica.id: reason for replica, reason in layout.surplus}, **yielded}
    actions: list[Action] = []
    for replica in item.replicas:
        if replica.active:
            timeout = item.revision_of(replica).spec.serving.startup_timeout_seconds
            care = look_after(replica, timeout, moment)
            action = _drain_instead(replica, care, surplus, moment.sight) or care
            actions += [action] if action is not None else []
    return actions


def _drain_instead(
    replica: Replica, care: Care | None, surplus: Mapping[str, str], sight: Sight
) -> Drain | None:
    """Return the drain of a replica that is not wanted, unless it has to end or be noted first.

    What the executor works on is left alone, but for a launch: that is given up.
    """
    if replica.id not in surplus or isinstance(care, Fail | Stop | Adopt):
        return None
    if sight.worked_on(replica) and replica.state is not ReplicaState.PENDING:
        return None
    return Drain(replica=replica, reason=surplus[replica.id])


def _orphans(desired: Sequence[DesiredDeployment], observed: Observed) -> list[RemoveOrphan]:
    rows = {replica.id: replica for item in desired for replica in item.replicas}
    wanted = {id_ for id_, replica in rows.items() if replica.active} | observed.working
    return [
        RemoveOrphan(
            container_id=container.id,
            replica_id=container.replica_id,
            reason="its replica has ended" if container.replica_id in rows else "it has no replica",
        )
        for container in observed.containers or ()
        if container.replica_id not in wanted
    ]


def _forgotten(desired: Sequence[DesiredDeployment]) -> list[FinishDelete]:
    return [
        FinishDelete(deployment_id=item.deployment.id)
        for item in desired
        if item.deployment.deleting and not any(replica.active for replica in item.replicas)
    ]
