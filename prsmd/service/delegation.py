"""Refusals of gifts that go beyond their giver, in words that say what is in the way."""

import datetime as dt

from prsmd.core.delegation import Respect, excess, excess_of_change
from prsmd.domain.access import Principal
from prsmd.domain.errors import PermissionDeniedError


def refuse_excess(
    giver: Principal, gift: Principal, what: str, before: Principal | None = None
) -> None:
    """Raise PermissionDeniedError where a gift, or a change to it, is more than its giver holds."""
    found = excess(giver, gift) if before is None else excess_of_change(giver, before, gift)
    if found is Respect.PERMISSIONS:
        raise beyond(giver, gift, what)
    if found is not None:
        raise PermissionDeniedError(
            f"You cannot {what}. {_in_words(giver, found)}",
            required_permissions=_all_of(gift),
            current_permissions=_all_of(giver),
            beyond=found.value,
        )


def beyond(giver: Principal, other: Principal, what: str) -> PermissionDeniedError:
    """Return the refusal of who wants (`what`, after "cannot") more than they may themselves."""
    needed, held = _all_of(other), _all_of(giver)
    missing = sorted(set(needed) - set(held))
    because = f": it needs {', '.join(missing)}" if missing else ""
    return PermissionDeniedError(
        f"Role {giver.role} in {giver.organization} cannot {what}, which may do more"
        f" than you may{because}.",
        required_permissions=needed,
        current_permissions=held,
    )


def _in_words(giver: Principal, respect: Respect) -> str:
    """Return what a giver is held to, and what can be done where that is in the way."""
    bounds = giver.bounds
    held = {
        Respect.PERMISSIONS: "Your own permissions do not include all of this",
        Respect.EXPIRES_AT: f"Your own {_proof(giver)} ends {_moment(bounds.expires_at)}",
        Respect.NETWORKS: f"Your own key is held to {', '.join(bounds.networks or ())}",
        Respect.REQUESTS_PER_MINUTE: f"Your own key may make {bounds.requests_per_minute} requests"
        " per minute",
        Respect.REQUESTS_PER_DAY: f"Your own key may make {bounds.requests_per_day} requests"
        " per day",
    }[respect]
    wanted = {
        Respect.PERMISSIONS: "ask somebody who may do it all",
        Respect.EXPIRES_AT: "give this the same end or an earlier one, or have somebody do it whose"
        " own access has none",
        Respect.NETWORKS: "hold this to the same networks or to parts of them, where it can be held"
        " to networks, or use a key that is held to none",
    }.get(respect, "give this the same limit or a lower one, or use a key without one")
    return f"{held}, and nobody gives more than they hold: {wanted}."


def _proof(principal: Principal) -> str:
    """Return what lets somebody in, as they know it."""
    return "key" if principal.id.startswith("key:") else "membership"


def _all_of(principal: Principal) -> list[str]:
    return sorted(principal.permissions.union(*principal.on_models.values()))


def _moment(at: float | None) -> str:
    if at is None:
        return "never"
    return (
        dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )
