"""Decides which free room is kept for a deployment: what it gave up for a rollout is its own.

Whether it goes on or back, a replica of it has to fit there again. Not for ever: what it has not
taken after a while is anybody's.
"""

import dataclasses
from collections.abc import Sequence

from prsmd.core.plan import DesiredDeployment
from prsmd.core.room import ROOM_BACK_SECONDS
from prsmd.core.sight import Sight
from prsmd.core.slots import gradual_target
from prsmd.domain.replica import Replica
from prsmd.domain.rollout import Rollout, RolloutPhase

_ENDED_WELL = {RolloutPhase.COMPLETED, RolloutPhase.SUPERSEDED}


def claims(item: DesiredDeployment, sight: Sight) -> tuple[Replica, ...]:
    """Return what a deployment that is being rolled out, or back, may still take, as reservations.

    As many as it lacks of those that stood when its rollout began to replace them, each in the
    room of one that ended lately and in whose place none has come.
    """
    rollout = item.rollout
    if rollout is None or rollout.base is None or rollout.phase in _ENDED_WELL:
        return ()
    lacking = min(gradual_target(item), rollout.base) - sum(r.active for r in item.replicas)
    if lacking <= 0:
        return ()
    whose = f"the rollout of {item.deployment.id}"
    vacated = _vacated(item.replicas, rollout, sight.observed.at)
    return tuple(dataclasses.replace(replica, id=whose) for replica in vacated[:lacking])


def _vacated(replicas: Sequence[Replica], rollout: Rollout, now: float) -> list[Replica]:
    """Return those that ended lately and have no successor in their place, newest end first."""
    ended = [
        (replica.finished_at, replica)
        for replica in replicas
        if replica.finished_at is not None
        and replica.finished_at >= rollout.started_at
        and 0 <= now - replica.finished_at < ROOM_BACK_SECONDS
    ]
    ended.sort(key=lambda one: (one[0], one[1].id), reverse=True)
    places = {replica.placement.gpu_uuids for _, replica in ended}
    found = []
    for place in sorted(places):
        here = [(at, replica) for at, replica in ended if replica.placement.gpu_uuids == place]
        oldest = here[-1][0]
        after = [r for r in replicas if r.placement.gpu_uuids == place and r.created_at >= oldest]
        found += here[: max(0, len(here) - len(after))]
    found.sort(key=lambda one: (one[0], one[1].id), reverse=True)
    return [replica for _, replica in found]
