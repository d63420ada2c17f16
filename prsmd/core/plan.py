"""The values that decisions are made from and made of: what is desired, what is observed, the plan.

`Desired` and `Observed` are complete: `reconcile` needs nothing else. A `Plan` says what should
happen and why; the executor carries it out and decides nothing.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from prsmd.core.stalls import Stall
from prsmd.core.trial import TrialReading
from prsmd.domain.deployment import Deployment, Revision, same_container
from prsmd.domain.node import Gpu, Node
from prsmd.domain.replica import Endpoint, ExitCause, Placement, Replica
from prsmd.domain.resource_quota import Amounts, Limits
from prsmd.domain.rollout import Rollout, RolloutPhase


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DesiredDeployment:
    """One deployment with its current revision and its replicas' rows.

    `replicas` holds every active replica (of any revision) and, newest last, the ended ones that
    still matter for a slot's restart backoff. `others` are the earlier revisions that still matter:
    the stable one and those of active replicas. `rollout` is the latest one, ended or not.
    `limits` is its organization's quota.
    """

    deployment: Deployment
    revision: Revision
    replicas: tuple[Replica, ...]
    others: tuple[Revision, ...] = ()
    rollout: Rollout | None = None
    limits: Limits = dataclasses.field(default_factory=dict)

    @property
    def current_numbers(self) -> frozenset[int]:
        """The revisions whose replicas count as current ones: they run the same container."""
        same = (one.number for one in self.others if same_container(one, self.revision))
        return frozenset({self.revision.number, *same})

    @property
    def stable(self) -> Revision | None:
        """The revision that a rollout under way goes back to; None without one."""
        if self.rollout is None or not self.rollout.active:
            return None
        number = self.rollout.from_revision
        return next((one for one in self.others if one.number == number), None)

    @property
    def stable_numbers(self) -> frozenset[int]:
        """The revisions whose replicas count as stable ones; none without a rollout under way."""
        return self._like(self.stable)

    @property
    def given_up_numbers(self) -> frozenset[int]:
        """The revisions whose replicas are bad, as far as is known: what was just rolled back."""
        if self.rollout is None or self.rollout.phase is not RolloutPhase.ROLLED_BACK:
            return frozenset()
        number = self.rollout.to_revision
        bad = next((one for one in self.others if one.number == number), None)
        return self._like(bad) - self.current_numbers

    def revision_of(self, replica: Replica) -> Revision:
        """Return what a replica was made from; the current revision if its own is not known."""
        found = (one for one in self.others if one.number == replica.revision)
        return next(found, self.revision)

    def _like(self, revision: Revision | None) -> frozenset[int]:
        if revision is None:
            return frozenset()
        known = (self.revision, *self.others)
        return frozenset(one.number for one in known if same_container(one, revision))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObservedContainer:
    """What the engine says of one container of this instance."""

    id: str
    replica_id: str
    running: bool
    endpoint: Endpoint | None = None
    exit_code: int | None = None
    out_of_memory: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the prober last found. `failures` counts liveness failures in a row.

    `last_error` is what the last failed probe met, in words ("connection refused"). `unknown` is
    why the newest probe found nothing out, so that the rest is what the one before it found.
    """

    ready: bool
    failures: int = 0
    last_error: str | None = None
    unknown: str | None = None

    @property
    def words(self) -> str | None:
        """What keeps the replica from being known to be well; None: nothing does."""
        return self.last_error if self.unknown is None else f"unknown: {self.unknown}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The world at one moment.

    `containers` is None when the engine did not answer: then nothing may be concluded about it.
    `probes`, `in_flight` and `working` are by replica id; `working` are the replicas on which the
    executor has a task in progress (pull, start, stop), and what `preparing` names. `strangers` is
    GPU memory in use, in bytes by GPU UUID, by processes that are not ours, and `stranger_pids`
    who they are. `trials` is what the data path measured, and `demand` how many replicas' worth of
    work there was lately (in flight and queued over a replica's slots), by deployment id. `stalls`
    is when nobody could look. `at` is seconds since the epoch.
    """

    node: Node
    containers: tuple[ObservedContainer, ...] | None
    probes: Mapping[str, Probe] = dataclasses.field(default_factory=dict)
    in_flight: Mapping[str, int] = dataclasses.field(default_factory=dict)
    working: frozenset[str] = frozenset()
    strangers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    stranger_pids: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    trials: Mapping[str, TrialReading] = dataclasses.field(default_factory=dict)
    demand: Mapping[str, float] = dataclasses.field(default_factory=dict)
    stalls: tuple[Stall, ...] = ()
    at: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Commit this new replica's row with its reservation, then pull and start its container."""

    replica: Replica
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """A pending replica has no container and nobody works on it (the daemon died): launch again."""

    replica: Replica
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """A pending replica's container exists: note it and go on from `starting`."""

    replica: Replica
    container_id: str
    endpoint: Endpoint | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MarkRunning:
    """A starting replica answered its readiness probe for the first time."""

    replica: Replica


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Take the replica out of the routes and let it finish what it accepted."""

    replica: Replica
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End a drained replica's container and mark the row stopped."""

    replica: Replica
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Keep the container's last log lines, remove it, and mark the row failed with the cause."""

    replica: Replica
    cause: ExitCause


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RemoveOrphan:
    """A container with our instance label belongs to no active replica: remove it."""

    container_id: str
    replica_id: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FinishDelete:
    """A deployment being deleted has no replica left: forget it."""

    deployment_id: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Bring a revision's image here and resolve it, before anything that serves is touched."""

    rollout: Rollout
    revision: Revision


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Move a rollout on, unless it is no longer as it was: `before` is what was decided upon.

    Where `after` has ended, the deployment's revision and its stable one are set by how it ended.
    `reason` is the event's word and `message` says why.
    """

    before: Rollout
    after: Rollout
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoteGood:
    """The current revision serves and nothing is being rolled out: it is the one to go back to."""

    deployment_id: str
    revision: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScaleStep:
    """Let gradual scaling go one step further: to `replicas`."""

    deployment_id: str
    replicas: int
    reason: str


Action = (
    Launch
    | Resume
    | Adopt
    | MarkRunning
    | Drain
    | Stop
    | Fail
    | RemoveOrphan
    | FinishDelete
    | Prepare
    | Advance
    | NoteGood
    | ScaleStep
)


def preparing(rollout: Rollout) -> str:
    """Return how `Observed.working` names the preparation of a rollout."""
    return f"{rollout.deployment_id}/rollout/{rollout.number}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A slot of a revision that should be filled but is not, and why, in words for the user.

    `kind` is `unplaceable`, `backoff`, `gradual`, `engine`, `surge` (as many as may are coming) or
    `swap` (it waits for room that is being made); `until` is when time alone ends it.
    """

    deployment_id: str
    slot: int
    kind: str
    reason: str
    details: tuple[str, ...] = ()
    until: float | None = None
    revision: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, what was held back and why. Empty `actions` is a fixed point.

    `until` is when time alone lets more happen (epoch seconds), beside the ends of the holds.
    """

    actions: tuple[Action, ...] = ()
    holds: tuple[Hold, ...] = ()
    until: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What placement sees: one node, everything reserved on it, and strangers' GPU memory.

    `gpus_unknown` is why nothing is known of the GPUs now, or None. `holders` names the replicas
    that reserve something of a GPU, by its UUID, `owners` whose these are, and `stranger_pids` who
    else uses its memory: for the words of a refusal only. `limits` are organizations' quotas and
    `held` what their replicas hold; `tenant` is for whom is being placed (None: no quota counts).
    """

    node: str
    cpu_millis: int
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    reservations: Sequence[Placement]
    strangers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    gpus_unknown: str | None = None
    holders: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    owners: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stranger_pids: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)
    held: Mapping[str, Amounts] = dataclasses.field(default_factory=dict)
    tenant: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unplaceable:
    """Why a replica fits nowhere: a summary, and one line for each node limit and GPU."""

    summary: str
    reasons: tuple[str, ...]
