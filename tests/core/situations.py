"""Deployments in the middle of a rollout, for tests of what is decided about them."""

from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.sight import Sight
from prsmd.core.slots import lay_out
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import Placement
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase
from tests.core.cases import NOW, changed, deployment, replica

PREPARING, TRYING = RolloutPhase.PREPARING, RolloutPhase.TRYING
REPLACING = RolloutPhase.REPLACING


def rollout(phase=REPLACING, **values):
    """Return a rollout from revision 1 to 2, ten seconds old; options are told by their names."""
    known = RolloutOptions.__dataclass_fields__
    options = {name: values.pop(name) for name in list(values) if name in known}
    defaults = {
        "deployment_id": "deploy_a",
        "number": 1,
        "from_revision": 1,
        "to_revision": 2,
        "options": RolloutOptions(**options),
        "started_at": NOW - 10,
        "started_by": "someone",
        "phase": phase,
        "prepared": phase is not PREPARING,
        "base": None if phase is PREPARING else 1,
    }
    return Rollout(**(defaults | values))


def rolling(*rows, now=REPLACING, resources=None, **changes):
    """Return a deployment that goes from revision 1 to 2; `now` is its rollout, or its phase."""
    under_way = now if isinstance(now, Rollout) else rollout(now)
    sizes = {} if resources is None else {"resources": resources}
    first = deployment(**sizes).revision
    others = (changed(first, image_digest="sha-of-1"), *changes.pop("earlier", ()))
    item = deployment(
        *rows,
        **({"revision": 2, "stable_revision": 1, "rollout": under_way} | sizes | changes),
    )
    wanted = changed(item.revision, image_digest="sha-of-2", spec=changed(first.spec, image="m:2"))
    wanted = changed(wanted, spec=changed(wanted.spec, scaling=item.revision.spec.scaling))
    return changed(item, revision=wanted, others=others)


def new(slot=0, *args, **values):
    """Return a replica of the new revision: launched, and by default ready, since it began."""
    values = {"created_at": NOW - 8, "ready_at": NOW - 5, "started_at": NOW - 7} | values
    return replica(slot, *args, revision=2, **values)


def on_gpu(*indices, millis=1000, **values):
    """Return a placement on GPUs, whole unless said otherwise."""
    return Placement(
        node="here",
        cpu_millis=values.get("cpu", 1000),
        memory_bytes=GIB,
        gpu_uuids=tuple(f"GPU-{index}" for index in indices),
        gpu_millis=millis,
    )


def plan(*items, sees, now=NOW):
    return reconcile(items, sees, now, Policy())


def layout(item, sees, now=NOW):
    return lay_out(item, sight(sees, now))


def sight(sees, now=NOW):
    return Sight.of(changed(sees, at=now))


def done(result):
    """Return what a plan does, readable in a failed assertion."""
    return [
        (type(one).__name__, one.replica.id if hasattr(one, "replica") else one.reason)
        for one in result.actions
    ]
