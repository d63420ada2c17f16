"""Desired state: the deployment, its revisions, and the statuses that are derived from them."""

import dataclasses
import enum

from .spec import Spec


class DeploymentStatus(enum.StrEnum):
    """Derived from desired and observed state, never stored."""

    DEPLOYING = "deploying"
    RUNNING = "running"
    UPDATING = "updating"
    SCALING = "scaling"
    DEGRADED = "degraded"
    IDLE = "idle"
    FAILED = "failed"
    DELETING = "deleting"


class ScalingStrategy(enum.StrEnum):
    """How a change of the replica count is carried out."""

    IMMEDIATE = "immediate"
    GRADUAL = "gradual"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One immutable, numbered spec of a deployment.

    `image_digest` is what the engine resolved `spec.image` to; None until the first pull.
    `spec_hash` names the content of the spec and labels the containers made from it.
    """

    deployment_id: str
    number: int
    spec: Spec
    spec_hash: str
    created_at: float
    created_by: str
    image_digest: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What the autoscaler thinks a deployment needs, and why, in words for the operator."""

    replicas: int
    reasons: tuple[str, ...]
    utilization: float | None
    at: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The long-lived running form of one model. Times are seconds since the epoch.

    `asked_replicas` is the last count set by a person (deploy: `min_replicas`; scale: the target);
    the autoscaler's `recommendation`, when newer, takes over from it within the spec's bounds.
    """

    id: str
    organization: str
    model_id: str
    model_name: str
    revision: int
    asked_replicas: int
    created_at: float
    updated_at: float
    scaling_strategy: ScalingStrategy = ScalingStrategy.IMMEDIATE
    recommendation: Recommendation | None = None
    deleting: bool = False
