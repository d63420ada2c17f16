"""Decides whether an organization may have more, and in which words it may not.

The one admission of everything that an organization's callers can make. It is asked inside the
transaction that writes, with what is used as that transaction sees it: so what is used never
exceeds what is allowed, whatever comes at the same time. What does not grow is always let through:
a limit that was lowered below what is used stops nothing.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from prsmd.domain.replica import Placement
from prsmd.domain.resource_quota import COMPUTE, Amounts, Dimension, Limits, format_amount
from prsmd.domain.spec import Needs, Resources

_HINTS: Mapping[Dimension, str] = {
    Dimension.MODELS: "delete a model",
    Dimension.KEYS: "revoke a key",
    Dimension.MEMBERS: "remove a member",
    Dimension.ROLES: "remove a role",
    Dimension.SECRETS: "remove a secret",
    Dimension.REGISTRIES: "remove a registry login",
    Dimension.SHARES: "revoke a share",
    Dimension.IMAGE_BYTES: "use a smaller image, or delete models with images of their own",
    Dimension.ANSWER_BYTES: "wait, for each answer is kept a day, or send no Idempotency-Key",
    Dimension.CONNECTIONS: "close connections",
}
_SCALE_DOWN = "scale a model down or delete one"


@dataclasses.dataclass(frozen=True, slots=True)
class Excess:
    """One dimension that would go beyond its limit: what is used, what is asked beside it."""

    dimension: Dimension
    used: int
    asked: int
    hard: int

    @property
    def words(self) -> str:
        """What a person is told: `cpu: 7 of 8 used, 2 more asked`."""
        used, hard, asked = (
            format_amount(self.dimension, n) for n in (self.used, self.hard, self.asked)
        )
        return f"{self.dimension}: {used} of {hard} used, {asked} more asked"

    @property
    def hint(self) -> str:
        """What the organization itself can do about it."""
        return _HINTS.get(self.dimension, _SCALE_DOWN)


def admit(limits: Limits, used: Amounts, more: Amounts) -> tuple[Excess, ...]:
    """Return every limit that `more` would break beside what is used; none: it is admitted.

    A dimension that does not grow breaks nothing.
    """
    found = []
    for dimension, asked in more.items():
        limit = limits.get(dimension)
        if asked <= 0 or limit is None or limit.hard is None:
            continue
        there = used.get(dimension, 0)
        if there + asked > limit.hard:
            found.append(Excess(dimension, there, asked, limit.hard))
    return tuple(found)


def needs_of(revisions: Sequence[Needs], wanted: int) -> Amounts:
    """Return what a model asks for: `wanted` replicas within the bounds of each revision.

    While a rollout is under way that is the larger of what it leads from and to, in each dimension:
    so that going back, by hand or by itself, never asks for more.
    """
    found = dict.fromkeys(COMPUTE, 0)
    for one in revisions:
        scaling = one.scaling
        count = max(scaling.min_replicas, min(wanted, scaling.max_replicas))
        for dimension, amount in reserved(one.resources, count).items():
            found[dimension] = max(found[dimension], amount)
    return found


def reserved(resources: Resources, replicas: int) -> Amounts:
    """Return what so many replicas reserve together."""
    return {
        Dimension.CPU: resources.cpu_millis * replicas,
        Dimension.MEMORY: resources.memory_bytes * replicas,
        Dimension.GPU: resources.gpu_millis * replicas,
        Dimension.REPLICAS: replicas,
    }


def held(placements: Iterable[Placement]) -> Amounts:
    """Return what replicas hold together where they were placed."""
    found: Amounts = {}
    for one in placements:
        found = with_one_more(found, one)
    return found


def with_one_more(amounts: Amounts, placement: Placement) -> Amounts:
    """Return what is held once a replica holds this too."""
    return {name: amounts.get(name, 0) + one for name, one in _of_placement(placement).items()}


def without_one(amounts: Amounts, placement: Placement) -> Amounts:
    """Return what is held once a replica holds this no more."""
    less = _of_placement(placement)
    return {name: max(0, amounts.get(name, 0) - one) for name, one in less.items()}


def _of_placement(placement: Placement) -> Amounts:
    return {
        Dimension.CPU: placement.cpu_millis,
        Dimension.MEMORY: placement.memory_bytes,
        Dimension.GPU: placement.gpu_millis * len(placement.gpu_uuids),
        Dimension.REPLICAS: 1,
    }


def growth(before: Amounts, after: Amounts) -> Amounts:
    """Return how much more `after` is than `before`, where it is more."""
    changes = {name: amount - before.get(name, 0) for name, amount in after.items()}
    return {name: change for name, change in changes.items() if change > 0}


def most_replicas(
    limits: Limits, asked: Amounts, needs: Sequence[Needs], current: int, wanted: int
) -> tuple[int, tuple[Excess, ...]]:
    """Return how far from `current` to `wanted` replicas a model may go, and what forbids more.

    `asked` is what all models of the organization ask for, this one's `current` among it.
    """
    before = needs_of(needs, current)
    forbidden: tuple[Excess, ...] = ()
    for count in range(wanted, current, -1):
        excesses = admit(limits, asked, growth(before, needs_of(needs, count)))
        if not excesses:
            return count, forbidden
        forbidden = excesses
    return min(current, wanted), forbidden
