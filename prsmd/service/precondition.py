"""What a caller changed upon: the revision that `If-Match` names must still be the wanted one."""

from collections.abc import Set as AbstractSet

from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import PreconditionFailedError

Expected = AbstractSet[int] | None  # the revisions that the caller has seen; None: any


def refuse_stale(deployment: Deployment, expected: Expected) -> None:
    """Raise PreconditionFailedError unless the wanted revision is one that the caller expects."""
    if expected is None or deployment.revision in expected:
        return
    raise PreconditionFailedError(
        f"Model {deployment.model_id} is at revision {deployment.revision} now: somebody changed it"
        " since you looked. Look at it again, and send its ETag as If-Match.",
        model_id=deployment.model_id,
        current_revision=deployment.revision,
    )
