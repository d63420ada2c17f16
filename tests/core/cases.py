"""Small desired and observed states for tests, with only what a test is about spelled out."""

import dataclasses

from prsmd.core.plan import Capacity, DesiredDeployment, Observed, ObservedContainer, Probe
from prsmd.domain.deployment import Deployment, Recommendation, Revision
from prsmd.domain.node import Gpu, GpuSample, HostSample, Node
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import Endpoint, ExitCause, ExitKind, Placement, Replica, ReplicaState
from prsmd.domain.spec import Resources, Scaling, Serving, Spec

NOW = 100_000.0
SMALL = Resources(cpu_millis=1000, memory_bytes=GIB)
ONE_GPU = Resources(cpu_millis=1000, memory_bytes=GIB, gpu_millis=1000)
HALF_GPU = Resources(cpu_millis=1000, memory_bytes=GIB, gpu_millis=500)


def gpu(index=0, *, total=15 * GIB, used=0, **changes):
    return Gpu(
        uuid=changes.pop("uuid", f"GPU-{index}"),
        index=index,
        name="NVIDIA T4",
        memory_total_bytes=total,
        memory_used_bytes=used,
        **changes,
    )


def capacity(*gpus, cpu=8000, memory=32 * GIB, **changes):
    return Capacity(
        node="here",
        cpu_millis=cpu,
        memory_bytes=memory,
        gpus=gpus,
        reservations=changes.pop("reservations", ()),
        **changes,
    )


def node(*gpus, cpu=8000, memory=32 * GIB, **sample):
    return Node(
        name="here",
        cpu_millis=cpu,
        memory_bytes=memory,
        gpus=GpuSample(gpus=gpus, taken_at=NOW, **sample),
        host=HostSample(
            cpu_count=8,
            cpu_percent=0.0,
            memory_total_bytes=memory,
            memory_available_bytes=memory,
            taken_at=NOW,
        ),
    )


def replica(slot=0, state=ReplicaState.RUNNING, **changes):
    revision = changes.get("revision", 1)
    deployment = changes.get("deployment_id", "deploy_a")
    values = {
        "id": f"{deployment}-r{revision}-s{slot}",
        "deployment_id": deployment,
        "organization": "org",
        "revision": 1,
        "slot": slot,
        "state": state,
        "placement": Placement(node="here", cpu_millis=1000, memory_bytes=GIB),
        "created_at": NOW - 100,
        "endpoint": Endpoint("10.0.0.1", 8000 + slot),
    }
    if state is not ReplicaState.PENDING:
        values |= {"started_at": NOW - 90, "container_id": f"c-{values['id']}"}
    if state is ReplicaState.RUNNING:
        values["ready_at"] = NOW - 80
    if state is ReplicaState.DRAINING:
        values["draining_since"] = NOW - 1
    return Replica(**(values | changes))


def failed(slot=0, number=0, at=NOW - 1, **changes):
    cause = ExitCause(kind=ExitKind.EXITED, message="exited with code 3", exit_code=3)
    values = {"id": f"failed-s{slot}-{number}", "finished_at": at, "exit": cause}
    return replica(slot, ReplicaState.FAILED, **(values | changes))


def deployment(*replicas, asked=1, least=0, most=10, **changes):
    """Return a desired deployment. Spec fields and deployment fields are told apart by name."""
    number = changes.pop("revision", 1)
    id_ = changes.pop("id", "deploy_a")
    recommended = changes.pop("recommended", None)
    others, rollout = changes.pop("others", ()), changes.pop("rollout", None)
    changes.setdefault("stable_revision", number)
    spec = Spec(
        image="model:1",
        model_type="text",
        resources=changes.pop("resources", SMALL),
        scaling=Scaling(min_replicas=least, max_replicas=most),
        serving=Serving(startup_timeout_seconds=changes.pop("startup_timeout", 600.0)),
    )
    return DesiredDeployment(
        deployment=Deployment(
            id=id_,
            organization="org",
            model_id="custom_m",
            model_name="m",
            revision=number,
            asked_replicas=asked,
            created_at=changes.pop("created_at", 1.0),
            updated_at=1.0,
            recommendation=recommended
            and Recommendation(replicas=recommended, reasons=(), utilization=None, at=NOW),
            **changes,
        ),
        revision=Revision(
            deployment_id=id_,
            number=number,
            spec=spec,
            spec_hash="hash",
            created_at=1.0,
            created_by="someone",
        ),
        replicas=replicas,
        others=others,
        rollout=rollout,
    )


def container(of, *, running=True, **changes):
    return ObservedContainer(
        id=f"c-{of.id}",
        replica_id=of.id,
        running=running,
        endpoint=of.endpoint if running else None,
        **changes,
    )


def observed(*containers, here=None, **changes):
    return Observed(node=here or node(), containers=containers, **changes)


def healthy(*replicas, here=None, **changes):
    """Return an observation in which every given replica's container runs and answers."""
    return observed(
        *(container(one) for one in replicas),
        here=here,
        probes={one.id: Probe(ready=True) for one in replicas},
        **changes,
    )


def silent_engine(*ready):
    return Observed(
        node=node(), containers=None, probes={one.id: Probe(ready=True) for one in ready}
    )


def ids(actions):
    """Return what the actions are about, with their kind: readable in a failed assertion."""
    return [(type(action).__name__, action.replica.id) for action in actions]


def changed(value, **changes):
    return dataclasses.replace(value, **changes)
