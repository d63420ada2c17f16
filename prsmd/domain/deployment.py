"""Desired state: the deployment, its revisions, and the statuses that are derived from them."""

import dataclasses
import enum
from typing import Any

from .spec import Spec, container_part


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
class FieldChange:
    """One field of a spec that changed, named as in the request's body; None: it was not there."""

    field: str
    before: Any
    after: Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One immutable, numbered spec of a deployment.

    `image_digest` is what the engine resolved `spec.image` to; None until the first pull.
    `spec_hash` names the content of the spec and labels the containers made from it. `good_at` is
    when it was first fully rolled out and ready (None: never); `diff` is what it changed.
    """

    deployment_id: str
    number: int
    spec: Spec
    spec_hash: str
    created_at: float
    created_by: str
    image_digest: str | None = None
    good_at: float | None = None
    diff: tuple[FieldChange, ...] = ()


def same_container(a: Revision, b: Revision) -> bool:
    """Tell whether replicas of the one are as good as replicas of the other.

    An image that was not resolved yet (no digest) is not the same as one that was, even under the
    same name: a tag can have moved.
    """
    return a.image_digest == b.image_digest and container_part(a.spec) == container_part(b.spec)


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
    `gradual_level` is how far gradual scaling may go by now towards what was asked (None: all the
    way). `stable_revision` is the last one that was good, None before the first was; an update
    under way goes back to it.
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
    gradual_level: int | None = None
    stable_revision: int | None = None
