"""Decides when gradual scaling goes one step further: one replica at a time, as the load justifies.

Without a reading of the load nothing is decided: silence never scales.
"""

import math

from prsmd.core.plan import DesiredDeployment, ScaleStep
from prsmd.core.sight import Sight
from prsmd.core.slots import Layout
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.replica import ReplicaState


def first_level(strategy: ScalingStrategy, active: int, target: int) -> int | None:
    """Return how far scaling to `target` goes at once; None: all the way.

    The first step of gradual scaling is the asking itself; the load has to justify only the rest.
    """
    if strategy is not ScalingStrategy.GRADUAL:
        return None
    return active + (target > active) - (target < active)


def next_step(item: DesiredDeployment, layout: Layout, sight: Sight) -> ScaleStep | None:
    """Return the next step of gradual scaling, once the last one is done and the load wants it.

    The need is demand over the target utilization, as the autoscaler computes it.
    """
    demand = sight.observed.demand.get(item.deployment.id)
    rolling = item.rollout is not None and item.rollout.active
    if layout.target == layout.asked or demand is None or rolling:
        return None
    there = [r for r in item.replicas if r.active]
    ending = any(r.state is ReplicaState.DRAINING for r in there)
    if ending or len(there) != layout.target or len(layout.settled) < layout.target:
        return None
    goal = item.revision.spec.scaling.target_utilization
    needed = math.ceil(demand / goal)
    up = layout.asked > layout.target
    if needed <= layout.target if up else needed >= layout.target:
        return None
    replicas = layout.target + (1 if up else -1)
    return ScaleStep(
        deployment_id=item.deployment.id,
        replicas=replicas,
        reason=f"gradual: {replicas} on the way to {layout.asked}, as {demand:.2f} replicas' worth"
        f" of work at {goal:.0%} needs {needed}",
    )
