"""Whether a principal may do something to something, and in which words not.

Roles are data (`prsmd.domain.access.ROLES`); a principal carries the permissions of its own. What
belongs to another organization does not exist for it, whatever it may do at home.
"""

import dataclasses

from prsmd.domain.access import Permission, Principal


@dataclasses.dataclass(frozen=True, slots=True)
class Allow:
    """It may."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """It may not. `hidden`: answer as if the thing did not exist (404), not with the reason.

    The reason always says the truth and is for the audit log; a hidden one must not be shown.
    """

    reason: str
    hidden: bool
    required_permissions: tuple[str, ...]
    current_permissions: tuple[str, ...]


def permit(principal: Principal, permission: Permission, organization: str | None) -> Allow | Deny:
    """Decide about `permission` on something of `organization` (None: of the appliance itself)."""
    if (
        organization is not None
        and organization != principal.organization
        and not principal.appliance_wide
    ):
        why = f"it belongs to organization {organization}, not to {principal.organization}"
        return _deny(principal, permission, why, hidden=True)
    if permission not in principal.permissions:
        why = f"role {principal.role} does not have {permission}"
        return _deny(principal, permission, why, hidden=False)
    return Allow()


def _deny(principal: Principal, permission: Permission, reason: str, *, hidden: bool) -> Deny:
    return Deny(
        reason=reason,
        hidden=hidden,
        required_permissions=(permission.value,),
        current_permissions=tuple(sorted(each.value for each in principal.permissions)),
    )
