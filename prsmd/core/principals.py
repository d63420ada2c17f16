"""What a caller may do, put together from the roles that they have been given.

An own role never gives more than an owner has, whatever is stored of it; a role that is no longer
there gives nothing.
"""

from collections.abc import Iterable, Mapping

from prsmd.domain.access import (
    APPLIANCE_ROLE,
    ON_ONE_MODEL,
    OWNER_ROLE,
    ROLES,
    UNBOUNDED,
    Binding,
    Bounds,
    Permission,
    Principal,
)

OwnRoles = Mapping[str, frozenset[Permission]]  # an organization's, by name
_NOTHING: frozenset[Permission] = frozenset()


def permissions_of(role: str, own: OwnRoles) -> frozenset[Permission] | None:
    """Return what a role allows; None where there is no such role."""
    built_in = ROLES.get(role)
    if built_in is not None:
        return built_in
    return own[role] & ROLES[OWNER_ROLE] if role in own else None


def principal_of(
    identity: str,
    organization: str,
    bindings: Iterable[Binding],
    own: OwnRoles,
    only_models: Iterable[str] | None = None,
    bounds: Bounds = UNBOUNDED,
) -> Principal:
    """Return who `identity` is with these roles; `own` are the roles of its organization.

    Who is held to some models has no permission but those on models: nobody can be held to models
    and still make keys that are not.
    """
    wide: set[str] = set()
    permissions, on_models = _NOTHING, dict[str, frozenset[Permission]]()
    for binding in bindings:
        granted = permissions_of(binding.role, own) or _NOTHING
        if binding.deployment_id is None:
            wide.add(binding.role)
            permissions |= granted
        else:
            before = on_models.get(binding.deployment_id, _NOTHING)
            on_models[binding.deployment_id] = before | granted & ON_ONE_MODEL
    held = None if only_models is None else frozenset(only_models)
    role = APPLIANCE_ROLE if APPLIANCE_ROLE in wide else "+".join(sorted(wide)) or "none"
    return Principal(
        id=identity,
        organization=organization,
        role=role,
        permissions=permissions if held is None else permissions & ON_ONE_MODEL,
        on_models=on_models,
        only_models=held,
        bounds=bounds,
    )
