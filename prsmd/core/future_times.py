"""Tells whether something is to have happened that is still to come: the clock was set back."""

from collections.abc import Iterable, Iterator

from prsmd.core.plan import DesiredDeployment

_SAME_SECONDS = 1.0


def any_to_come(desired: Iterable[DesiredDeployment], now: float) -> bool:
    """Tell whether replicas or rollouts have moments later than `now`, by more than a second."""
    latest = now + _SAME_SECONDS
    return any(at is not None and at > latest for item in desired for at in _moments(item))


def _moments(item: DesiredDeployment) -> Iterator[float | None]:
    for replica in item.replicas:
        yield replica.created_at
        yield replica.started_at
        yield replica.ready_at
        yield replica.draining_since
        yield replica.finished_at
    if item.rollout is not None:
        yield item.rollout.started_at
        yield item.rollout.step_since
