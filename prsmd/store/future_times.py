"""Stored times that lie in the future: the wall clock was ahead then, and was set back since.

No decision may wait until they have come: they become the present.
"""

from .connection import Tx
from .decoding import decoding
from .rows import change

_ROLLOUTS = (
    "UPDATE rollouts SET value = json_set(value, "
    "'$.started_at', min(json_extract(value, '$.started_at'), :now), "
    "'$.step_since', min(json_extract(value, '$.step_since'), :now)) "
    "WHERE max(json_extract(value, '$.started_at'), "
    "ifnull(json_extract(value, '$.step_since'), 0)) > :now"
)


async def clamp(tx: Tx, now: float) -> None:
    """Set each time of a replica or rollout that is later than `now` to `now` (epoch seconds)."""
    await change(
        tx,
        "UPDATE replicas SET created_at = min(created_at, :now), "
        "started_at = min(started_at, :now), ready_at = min(ready_at, :now), "
        "draining_since = min(draining_since, :now), finished_at = min(finished_at, :now) "
        "WHERE max(created_at, ifnull(started_at, 0), ifnull(ready_at, 0), "
        "ifnull(draining_since, 0), ifnull(finished_at, 0)) > :now",
        {"now": now},
    )
    with decoding("rollouts.value"):
        await change(tx, _ROLLOUTS, {"now": now})
