"""Whether somebody gives no more than they hold: the one rule for all that hands out access.

What is given, a key, a membership, a role, a share, is looked at as the principal that there would
be. It may do nothing that its giver may not, nowhere that they may not, and not for longer.
"""

import dataclasses
import enum
from collections.abc import Iterable

from prsmd.domain.access import Bounds, ModelRef, Principal
from prsmd.domain.quota import Share

from .networks import within
from .permit import covers


class Respect(enum.StrEnum):
    """In which respect a gift goes beyond its giver."""

    PERMISSIONS = "permissions"
    EXPIRES_AT = "expires_at"
    NETWORKS = "networks"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    REQUESTS_PER_DAY = "requests_per_day"


_NUMBERS = (Respect.EXPIRES_AT, Respect.REQUESTS_PER_MINUTE, Respect.REQUESTS_PER_DAY)


def excess(giver: Principal, gift: Principal) -> Respect | None:
    """Tell in which respect a gift goes beyond what its giver holds; None: in none."""
    if not covers(giver, gift):
        return Respect.PERMISSIONS
    held, given = giver.bounds, gift.bounds
    if held.networks is not None and not _inside(given.networks, held.networks):
        return Respect.NETWORKS
    for respect in _NUMBERS:
        if _beyond(getattr(held, respect), getattr(given, respect)):
            return respect
    return None


def excess_of_change(giver: Principal, before: Principal, after: Principal) -> Respect | None:
    """Tell in which respect a change gives more than its giver holds; None: in none.

    A change that only takes gives nothing. Any other one gives all that there is afterwards.
    """
    return None if excess(before, after) is None else excess(giver, after)


def lent(share: Share, model: ModelRef, giver: Principal) -> Principal:
    """Return who a borrower of a share is, as far as its model goes.

    A giver that is held to models may have named this one in three ways.
    """
    names = frozenset({model.deployment_id, model.model_id, model.model_name})
    held = giver.only_models
    limits = share.limits
    return Principal(
        id="",
        organization=share.organization,
        role="",
        permissions=frozenset(),
        on_models={share.deployment_id: share.permissions},
        only_models=None if held is None else (held & names or names),
        bounds=Bounds(
            expires_at=share.expires_at,
            requests_per_minute=limits.requests_per_minute,
            requests_per_day=limits.requests_per_day,
        ),
    )


def held_to(own: Bounds, more: Bounds) -> Bounds:
    """Return bounds with those of `more` in the place of what is not bounded."""
    return Bounds(
        **{
            field.name: getattr(own, field.name)
            if getattr(own, field.name) is not None
            else getattr(more, field.name)
            for field in dataclasses.fields(Bounds)
        }
    )


def _beyond(bound: float | None, value: float | None) -> bool:
    return bound is not None and (value is None or value > bound)


def _inside(inner: Iterable[str] | None, outer: Iterable[str]) -> bool:
    return inner is not None and within(inner, outer)
