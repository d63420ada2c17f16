"""When waiting for a deployment or a rollout is over. Decides; waits for nothing."""

from .errors import DeploymentFailedError, RolloutFailedError
from .models import DeploymentStatus, RolloutState

POLL_SECONDS = 2.0  # how long the server may hold one status request until something settles
_UP = {"running", "idle"}


def is_up(status: DeploymentStatus) -> bool:
    """Return True when the deployment answers, or would when asked (scaled to zero)."""
    return status.status in _UP


def raise_if_failed(status: DeploymentStatus) -> None:
    """Raise DeploymentFailedError, with the server's reason, for a deployment that failed."""
    if status.status != "failed":
        return
    exits = [r.exit for r in status.replica_details if r.exit is not None]
    why = status.message or next((e.message for e in reversed(exits) if e.message), "")
    raise DeploymentFailedError(
        f"{status.deployment_id} failed: {why or status.reason or 'the server gave no reason'}",
        details={"log_tail": list(exits[-1].log_tail) if exits else []},
    )


def has_completed(state: RolloutState) -> bool:
    """Return True once the latest rollout has ended well.

    Raises:
        RolloutFailedError: It ended otherwise, or there is none; the message has the server's
            reason and `details` its evidence.
    """
    rollout = state.rollout
    if rollout is not None and rollout.active:
        return False
    if rollout is not None and rollout.phase == "completed":
        return True
    how = "has no rollout" if rollout is None else rollout.phase.replace("_", " ")
    why = "" if rollout is None or not rollout.outcome else f": {rollout.outcome}"
    number = "" if rollout is None else f" to revision {rollout.to_revision}"
    raise RolloutFailedError(
        f"{state.model_id}{number} {how}{why}",
        details={} if rollout is None else {"evidence": list(rollout.evidence)},
    )
