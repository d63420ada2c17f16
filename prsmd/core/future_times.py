"""Tells whether stored times lie in the future, as they do after the clock was set back."""

from collections.abc import Iterable, Iterator

from prsmd.core.plan import DesiredDeployment

_SAME_SECONDS = 1.0


def any_in_future(desired: Iterable[DesiredDeployment], now: float) -> bool:
    """Tell whether a time of a replica or rollout is later than `now`, by more than a second."""
    latest = now + _SAME_SECONDS
    return any(at is not None and at > latest for item in desired for at in _times(item))


def _times(item: DesiredDeployment) -> Iterator[float | None]:
    for replica in item.replicas:
        yield replica.created_at
        yield replica.started_at
        yield replica.ready_at
        yield replica.draining_since
        yield replica.finished_at
    if item.rollout is not None:
        yield item.rollout.started_at
        yield item.rollout.step_since
