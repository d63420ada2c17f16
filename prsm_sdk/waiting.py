"""When waiting for a deployment is over. Decides; waits for nothing."""

from .errors import DeploymentFailedError
from .models import DeploymentStatus

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
