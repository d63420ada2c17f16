"""Who gives way in a swap, and what the new replica waits for meanwhile."""

from prsmd.core.outlook import outlook
from prsmd.core.policy import Policy
from prsmd.core.reconcile import reconcile
from prsmd.core.sight import Sight
from prsmd.core.slots import lay_out
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import Placement, ReplicaState
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase
from tests.core import cases

WHOLE = Placement(node="here", cpu_millis=1000, memory_bytes=GIB, gpu_millis=1000)


def test_memory_of_a_container_that_just_ended_is_waited_for_and_refuses_nobody():
    """Between its end and its row's, what it held looks like a stranger's."""
    placement = cases.changed(WHOLE, gpu_uuids=("GPU-0",))
    old = cases.replica(state=ReplicaState.DRAINING, placement=placement)
    first = cases.deployment(resources=cases.ONE_GPU)
    rolling = cases.deployment(
        old,
        resources=cases.ONE_GPU,
        revision=2,
        stable_revision=1,
        others=(first.revision,),
        rollout=Rollout(
            deployment_id="deploy_a",
            number=1,
            from_revision=1,
            to_revision=2,
            options=RolloutOptions(),
            started_at=cases.NOW - 10,
            started_by="someone",
            phase=RolloutPhase.REPLACING,
            prepared=True,
            base=1,
        ),
    )
    seen = cases.observed(
        cases.container(old, running=False),
        here=cases.node(cases.gpu(used=12 * GIB)),
        strangers={"GPU-0": 12 * GIB},
        working=frozenset({old.id}),
    )

    plan = reconcile([rolling], seen, cases.NOW, Policy())

    sight = Sight.of(seen)
    [hold] = plan.holds
    assert (hold.kind, hold.reason) == (
        "swap",
        f"waits for the room of {old.id}, which is draining",
    )
    assert not outlook(rolling, lay_out(rolling, sight), plan.holds, sight).hopeless
