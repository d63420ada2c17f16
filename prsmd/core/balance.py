"""Which replica gets the next request: the least busy one of its side that has a free slot.

Ties rotate, so that idle replicas share the work. A suspect replica (its last exchange broke off,
or it could not be connected to) is the last resort. While a revision is on trial there are two
sides; a request whose own side has no replica to offer goes to the other. Nothing is counted here:
the pool does that, in the same step.
"""

from collections.abc import Container, Sequence
from typing import Protocol, TypeVar


class Target(Protocol):
    """What the choice looks at."""

    @property
    def replica_id(self) -> str:
        """Names the replica."""
        ...

    @property
    def in_flight(self) -> int:
        """How many requests it is working on."""
        ...

    @property
    def slots(self) -> int:
        """How many requests it may work on at once."""
        ...

    @property
    def suspect(self) -> bool:
        """Whether its last exchange broke off or did not come about."""
        ...


AnyTarget = TypeVar("AnyTarget", bound=Target)


def least_busy(
    targets: Sequence[AnyTarget], turn: int, excluded: Container[str] = ()
) -> AnyTarget | None:
    """Return the free target with the fewest requests in flight; None when none is free.

    `turn` increases with every choice; among equals the first one at or after it is taken.
    `excluded` are replica ids that must not be chosen.
    """
    best: AnyTarget | None = None
    for offset in range(len(targets)):
        target = targets[(turn + offset) % len(targets)]
        if target.in_flight >= target.slots or target.replica_id in excluded:
            continue
        if best is None or (target.suspect, target.in_flight) < (best.suspect, best.in_flight):
            best = target
    return best


def choose(
    own: Sequence[AnyTarget],
    spare: Sequence[AnyTarget],
    turn: int,
    excluded: Container[str] = (),
) -> AnyTarget | None:
    """Return the free target for a request of the side `own`; None when it has to wait.

    `spare` is the other side, where this request may go there. It is used only while `own` has no
    replica that is neither excluded nor suspect: a busy one is waited for.
    """
    target = least_busy(own, turn, excluded)
    if not spare or (target is not None and not target.suspect):
        return target
    if any(not each.suspect and each.replica_id not in excluded for each in own):
        return target
    other = least_busy(spare, turn, excluded)
    if other is None or (other.suspect and target is not None):
        return target
    return other
