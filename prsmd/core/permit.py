"""Whether a principal may do something to something, and in which words not.

Roles are data (`prsmd.domain.access.ROLES`); a principal carries the permissions of its own. What
belongs to another organization does not exist for it, whatever it may do at home, unless a share
gives exactly what it asks for.
"""

import dataclasses
import enum
from collections.abc import Sequence

from prsmd.domain.access import ON_ONE_MODEL, ModelRef, Permission, Principal
from prsmd.domain.quota import Share


class Via(enum.Enum):
    """What it is that allows something."""

    OWN = "a role in the organization that it belongs to"
    BINDING = "a role on this one model"
    SHARE = "a share of its owner"
    APPLIANCE = "administering the appliance"


@dataclasses.dataclass(frozen=True, slots=True)
class Allow:
    """It may. `share` is the one that allows it, whose limits count."""

    via: Via = Via.OWN
    share: Share | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """It may not. `hidden`: answer as if the thing did not exist (404), not with the reason.

    The reason always says the truth and is for the audit log; a hidden one must not be shown.
    """

    reason: str
    hidden: bool
    required_permissions: tuple[str, ...]
    current_permissions: tuple[str, ...]


def permit(
    principal: Principal,
    permission: Permission,
    organization: str | None,
    model: ModelRef | None = None,
    shares: Sequence[Share] = (),
) -> Allow | Deny:
    """Decide about `permission` on something of `organization` (None: of the appliance itself).

    `model` is which one, if it is about one. `shares` are those of it that are in force; whom they
    reach is looked at here.
    """
    if model is not None and not _is_held_to(principal, model):
        why = f"it is held to other models than {model.model_id}"
        return _deny(principal, permission, why, hidden=True)
    if organization is None or organization == principal.organization:
        return _at_home(principal, permission, model)
    if principal.appliance_wide:
        return _granted(principal, permission, Via.APPLIANCE)
    return _from_others(principal, permission, organization, shares)


def possible(principal: Principal, permission: Permission) -> Allow | Deny:
    """Decide whether a principal has the permission anywhere at home, on a single model at least.

    Nothing is looked up for who has it nowhere, so that the answer tells nothing.
    """
    if any(permission in granted for granted in principal.on_models.values()):
        return Allow(Via.BINDING)
    return _granted(principal, permission, Via.OWN)


def covers(holder: Principal, other: Principal) -> bool:
    """Tell whether `holder` may do everything that `other` may.

    Nobody gives what they do not hold themselves, and what has begun may go on under less no more.
    Who sees every organization may more than who does not, whatever else they are held to.
    """
    at_home = holder.organization == other.organization
    if not holder.appliance_wide and (other.appliance_wide or not at_home):
        return False
    if holder.only_models is not None and (
        other.only_models is None or not other.only_models <= holder.only_models
    ):
        return False
    if not other.permissions <= holder.permissions:
        return False
    bound = holder.on_models if at_home else {}
    return all(
        granted <= holder.permissions | bound.get(deployment_id, frozenset())
        for deployment_id, granted in other.on_models.items()
    )


def _at_home(principal: Principal, permission: Permission, model: ModelRef | None) -> Allow | Deny:
    bound = principal.on_models.get(model.deployment_id, frozenset()) if model else frozenset()
    if permission in principal.permissions:
        return Allow(Via.OWN)
    if permission in bound:
        return Allow(Via.BINDING)
    sees = bool(bound or principal.permissions & ON_ONE_MODEL)
    why = f"role {principal.role} does not have {permission}"
    return _deny(principal, permission, why, hidden=model is not None and not sees)


def _granted(principal: Principal, permission: Permission, via: Via) -> Allow | Deny:
    if permission in principal.permissions:
        return Allow(via)
    why = f"role {principal.role} does not have {permission}"
    return _deny(principal, permission, why, hidden=False)


def _from_others(
    principal: Principal, permission: Permission, organization: str, shares: Sequence[Share]
) -> Allow | Deny:
    """Decide about a model of others: a share gives it to those whose own role allows it too."""
    reaching = [share for share in shares if share.reaches(principal)]
    if not reaching or not principal.permissions & ON_ONE_MODEL:
        why = f"it belongs to organization {organization}, not to {principal.organization}"
        return _deny(principal, permission, why, hidden=True)
    for share in reaching:
        if permission in share.permissions:
            allowed = _granted(principal, permission, Via.SHARE)
            return Allow(Via.SHARE, share) if isinstance(allowed, Allow) else allowed
    why = f"what organization {organization} shares of it does not include {permission}"
    return _deny(principal, permission, why, hidden=False)


def _is_held_to(principal: Principal, model: ModelRef) -> bool:
    allowed = principal.only_models
    if allowed is None or model.model_id in allowed or model.model_name in allowed:
        return True
    return model.deployment_id in allowed


def _deny(principal: Principal, permission: Permission, reason: str, *, hidden: bool) -> Deny:
    return Deny(
        reason=reason,
        hidden=hidden,
        required_permissions=(permission.value,),
        current_permissions=tuple(sorted(each.value for each in principal.permissions)),
    )
