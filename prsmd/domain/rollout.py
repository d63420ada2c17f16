"""Rollouts: how one revision of a deployment takes over from another, and how far that is."""

import dataclasses
import enum


class RolloutStrategy(enum.StrEnum):
    """How the new revision's replicas come in and traffic moves to them."""

    AUTO = "auto"  # surge where the new replica fits beside the old, else swap, else recreate
    SURGE = "surge"  # new beside old, then the old one goes
    BUFFERED_SWAP = "buffered_swap"  # one old goes, its room is taken; requests wait in the queue
    RECREATE = "recreate"  # all old go, then the new come
    BLUE_GREEN = "blue_green"  # a full set beside the old; traffic switches at once
    CANARY = "canary"  # a few replicas take a growing part of the traffic
    SHADOW = "shadow"  # copies of requests; the answers are compared, never given

    @property
    def on_trial(self) -> bool:
        """True where the new revision is tried before it replaces anything."""
        return self in {self.BLUE_GREEN, self.CANARY, self.SHADOW}


class RolloutPhase(enum.StrEnum):
    """How far a rollout is. The last four are ends."""

    PREPARING = "preparing"  # the image is brought here; nothing has been touched
    TRYING = "trying"  # on trial beside what was there
    REPLACING = "replacing"  # old replicas give way to new ones
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"  # by itself: it did not get ready, crashed, or broke its gate
    ABORTED = "aborted"  # by a person
    SUPERSEDED = "superseded"  # by another update


ENDED_PHASES = frozenset(
    {
        RolloutPhase.COMPLETED,
        RolloutPhase.ROLLED_BACK,
        RolloutPhase.ABORTED,
        RolloutPhase.SUPERSEDED,
    }
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a revision on trial has to hold, measured against the stable one in the same time.

    `max_error_rate` is a fraction of its answers; `max_latency_ratio` is its mean latency over the
    stable one's; neither is judged before `min_requests` were answered.
    """

    max_error_rate: float = 0.05
    max_latency_ratio: float = 2.0
    min_requests: int = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRule:
    """Requests with this header and value go to the revision on trial, whatever its weight."""

    name: str
    value: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """How a rollout was asked for.

    `max_surge` replicas may exist beyond the target (None: as many again, where they fit). A new
    replica counts once it has been ready for `min_ready_seconds`. `steps` are a canary's percents
    of the traffic; each step, a blue-green switch and a shadow bake for `bake_seconds`. `sticky`
    keeps a client on one side. `shadow_percent` of the requests are copied. `promote_by_hand`: a
    trial that has passed waits for a person.
    """

    strategy: RolloutStrategy = RolloutStrategy.AUTO
    max_surge: int | None = None
    min_ready_seconds: float = 1.0
    steps: tuple[int, ...] = (10, 50)
    bake_seconds: float = 60.0
    header: HeaderRule | None = None
    sticky: bool = False
    shadow_percent: int = 100
    gate: Gate = Gate()
    promote_by_hand: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One rollout of a deployment; `number` counts them. Times are seconds since the epoch.

    `from_revision` is what it goes back to. `prepared`: the image is here. `trouble` is why it
    cannot be had. `base` is how many replicas stood when the first was replaced. `step` counts the
    steps of a trial, `step_since` is since when its traffic flows as the step says. `weight` is the
    new revision's percent as set by hand (None: as the step says). `outcome` says why it ended and
    `evidence` shows it: measured values, last log lines.
    """

    deployment_id: str
    number: int
    from_revision: int
    to_revision: int
    options: RolloutOptions
    started_at: float
    started_by: str
    phase: RolloutPhase = RolloutPhase.PREPARING
    prepared: bool = False
    trouble: str | None = None
    base: int | None = None
    step: int = 0
    step_since: float | None = None
    paused: bool = False
    weight: int | None = None
    finished_at: float | None = None
    outcome: str = ""
    evidence: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """True until it has ended."""
        return self.phase not in ENDED_PHASES
