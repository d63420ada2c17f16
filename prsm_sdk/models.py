"""The API's nouns as frozen values. Times are RFC 3339 text as sent; `None` means not known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .wire import Wire, many, one, strings

_value = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)


@_value
class Deployment(Wire):
    """The answer to a deploy: it was accepted and goes on in the background.

    `message` and `reasons` are there when it cannot be placed now, and say why.
    """

    deployment_id: str
    model_id: str
    status: str
    endpoint_url: str = ""
    estimated_deployment_time: str = ""
    resource_allocation: Mapping[str, str] = dataclasses.field(default_factory=dict)
    message: str = ""
    reasons: tuple[str, ...] = strings()


@_value
class ScaleResult(Wire):
    """The answer to a scale. `message` and `reasons` say why not all of it fits now."""

    deployment_id: str
    model_id: str
    status: str = ""
    current_replicas: int = 0
    target_replicas: int = 0
    scaling_strategy: str = ""
    message: str = ""
    reasons: tuple[str, ...] = strings()


@_value
class FieldChange(Wire):
    """One field that changed, named as in the request; None: it was not there, or is no more."""

    field: str = ""
    before: Any = None
    after: Any = None


@_value
class TrafficShare(Wire):
    """One revision's part of the traffic in percent; None: as its replicas' load allows."""

    revision: int = 0
    version: str = ""
    weight: int | None = None


@_value
class Rollout(Wire):
    """How one revision takes over from another, and how far that is.

    `step` counts the `steps` of a canary from 1; `weight` is the new revision's percent while it is
    on trial, and `measured` what its step measured so far: `trial` and `stable` with their
    `requests`, `errors`, `error_rate` and `mean_latency_ms`, `copies` with how many answers were
    `compared` and `differing`. `outcome` says why it ended and `evidence` shows it.
    """

    number: int = 0
    strategy: str = ""
    phase: str = ""
    active: bool = False
    paused: bool = False
    step: int = 0
    steps: tuple[int, ...] = strings()
    weight: int | None = None
    from_revision: int = 0
    from_version: str = ""
    to_revision: int = 0
    to_version: str = ""
    started_at: str | None = None
    started_by: str = ""
    finished_at: str | None = None
    waiting_for: str = ""
    outcome: str = ""
    evidence: tuple[str, ...] = strings()
    measured: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@_value
class RolloutState(Wire):
    """A model's latest rollout and how its traffic divides. `changed` False: it was so already."""

    deployment_id: str
    model_id: str
    revision: int = 0
    status: str = ""
    message: str = ""
    changed: bool = True
    rollout: Rollout | None = one(Rollout)
    traffic: tuple[TrafficShare, ...] = many(TrafficShare)


@_value
class UpdateResult(Wire):
    """The answer to an update or a rollback: `status` is updating, updated or unchanged.

    `message` says what was not asked for in words; `reasons` why it cannot be placed now.
    """

    deployment_id: str
    model_id: str
    status: str = ""
    revision: int = 0
    previous_revision: int = 0
    version: str = ""
    in_place: bool = False
    changes: tuple[FieldChange, ...] = many(FieldChange)
    rollout: Rollout | None = one(Rollout)
    message: str = ""
    reasons: tuple[str, ...] = strings()


@_value
class Version(Wire):
    """One revision of a model: who made it, when and why, and what became of it."""

    revision: int
    version: str = ""
    state: str = ""
    reason: str = ""
    why: str = ""
    container_image: str = ""
    image_digest: str | None = None
    created_at: str | None = None
    created_by: str = ""
    good_at: str | None = None
    changes: tuple[FieldChange, ...] = many(FieldChange)


@_value
class Comparison(Wire):
    """How one revision differs from another."""

    model_id: str
    from_revision: int = 0
    from_version: str = ""
    to_revision: int = 0
    to_version: str = ""
    changes: tuple[FieldChange, ...] = many(FieldChange)


@_value
class Replicas(Wire):
    """How many replicas are wanted, answer their health check, and get traffic."""

    desired: int = 0
    ready: int = 0
    available: int = 0


@_value
class PerformanceMetrics(Wire):
    """Of recent real traffic. `error_rate` is a fraction in [0, 1]."""

    requests_per_second: float | None = None
    avg_latency_ms: float | None = None
    error_rate: float | None = None


@_value
class ResourceUsage(Wire):
    """In percent of what the replicas reserved."""

    cpu_percent: float | None = None
    memory_percent: float | None = None
    gpu_percent: float | None = None


@_value
class ReplicaExit(Wire):
    """How a replica ended, with the last lines it logged."""

    kind: str = ""
    message: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = strings()


@_value
class ReplicaDetail(Wire):
    """One replica: where it runs and how it does."""

    replica_id: str = ""
    slot: int = 0
    revision: int = 0
    state: str = ""
    ready: bool = False
    gpu_uuids: tuple[str, ...] = strings()
    endpoint: str | None = None
    started_at: str | None = None
    message: str = ""
    exit: ReplicaExit | None = one(ReplicaExit)


@_value
class DeploymentStatus(Wire):
    """How a deployment does now, and why: `reason` is a word for scripts, `message` for people."""

    deployment_id: str
    status: str
    health_status: str = ""
    replicas: Replicas = dataclasses.field(
        default_factory=Replicas, metadata={"wire": Replicas.decode}
    )
    performance_metrics: PerformanceMetrics | None = one(PerformanceMetrics)
    resource_usage: ResourceUsage | None = one(ResourceUsage)
    model_id: str = ""
    model_name: str = ""
    model_version: str = ""
    revision: int = 0
    reason: str = ""
    message: str = ""
    endpoint_url: str = ""
    traffic: tuple[TrafficShare, ...] = many(TrafficShare)
    rollout: Rollout | None = one(Rollout)
    created_at: str | None = None
    updated_at: str | None = None
    replica_details: tuple[ReplicaDetail, ...] = many(ReplicaDetail)
    conditions: tuple[Mapping[str, Any], ...] = strings()


@_value
class Model(Wire):
    """A model: what the caller owns, or may infer with."""

    model_id: str
    model_name: str = ""
    model_type: str = ""
    organization: str = ""
    deployment_id: str = ""
    status: str = ""
    revision: int = 0
    version: str = ""
    endpoint_url: str = ""
    traffic: tuple[TrafficShare, ...] = many(TrafficShare)
    rollout: Rollout | None = one(Rollout)
    created_at: str | None = None
    updated_at: str | None = None


@_value
class InferenceMetadata(Wire):
    """How long the model took, and which version answered."""

    inference_time_ms: float | None = None
    model_version: str = ""


@_value
class InferenceResult(Wire):
    """What the model answered; `outputs` is the container's own JSON."""

    model_id: str
    outputs: Any = None
    metadata: InferenceMetadata = dataclasses.field(
        default_factory=InferenceMetadata, metadata={"wire": InferenceMetadata.decode}
    )


@_value
class Event(Wire):
    """One thing that happened to a deployment. `sequence` grows; `reason` is one stable word."""

    sequence: int = 0
    at: str = ""
    severity: str = "normal"
    reason: str = ""
    message: str = ""
    replica_id: str | None = None


@_value
class LogLine(Wire):
    """One line that a replica wrote; `stream` is stdout or stderr."""

    at: str = ""
    stream: str = "stdout"
    text: str = ""
    replica_id: str | None = None


@_value
class Node(Wire):
    """The appliance: its runtime and what of its host models may reserve."""

    name: str = ""
    version: str = ""
    runtime: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cpu: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    memory: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gpus_supported: bool | None = None


@_value
class Gpu(Wire):
    """One GPU, named by its UUID. `reserved_by` are the replicas that hold a part of it."""

    uuid: str
    name: str = ""
    index: int = 0
    memory_total_bytes: int = 0
    memory_used_bytes: int = 0
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    health: str = ""
    reserved_by: tuple[Any, ...] = strings()
    processes: tuple[Mapping[str, Any], ...] = strings()


@_value
class GpuList(Wire):
    """All GPUs as last measured. `stale_since` is set when fresh samples stopped coming."""

    gpus: tuple[Gpu, ...] = many(Gpu)
    stale_since: str | None = None
    error: str | None = None


@_value
class ApiKey(Wire):
    """A key as the server knows it. `key` itself is there only in the answer that creates it."""

    key_id: str
    key: str = dataclasses.field(default="", repr=False)
    name: str = ""
    organization: str = ""
    role: str = ""
    created_at: str | None = None
    expires_at: str | None = None
    revoked_at: str | None = None
    rotated_at: str | None = None
    previous_secret_until: str | None = None
    last_used_at: str | None = None
    created_by: str | None = None
    models: list[str] | None = None
    networks: list[str] | None = None
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
