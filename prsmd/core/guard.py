"""Decides whether this appliance's rules let an organization run a container as it asks to.

The rules are the operator's. A way out to the network, a root that can be written, where images
come from and what confines containers are theirs to allow, whatever a client's role is.
"""

import dataclasses

from prsmd.domain.image import DEFAULT_REGISTRY, registry_of, server_name
from prsmd.domain.spec import Spec

EVERYONE = "*"
_SECURITY = "deployment_config.security"
_IMAGE = "deployment_config.container_image"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRules:
    """What the operator allows. `EVERYONE` among organizations means all of them.

    `registries` are servers, or servers with the beginning of a name; none means any.
    """

    egress: frozenset[str] = frozenset()
    writable_root: frozenset[str] = frozenset()
    registries: tuple[str, ...] = ()
    require_digest: bool = False
    runtime_classes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Breach:
    """The field that asks for too much, why, and whether it is allowed to others."""

    field: str
    reason: str
    forbidden: bool = False


def breach(rules: ContainerRules, organization: str, spec: Spec) -> Breach | None:
    """Return why this container may not run here as asked; None where it may."""
    return (
        _loosening(rules, organization, spec)
        or _runtime_class(rules, spec.security.runtime_class)
        or _image(rules, spec.image)
    )


def _loosening(rules: ContainerRules, organization: str, spec: Spec) -> Breach | None:
    asked = (
        ("egress", spec.security.egress, rules.egress, "a way out to the network"),
        ("writable_root", spec.security.writable_root, rules.writable_root, "a writable root"),
    )
    for name, wanted, allowed, words in asked:
        if wanted and not allowed & {organization, EVERYONE}:
            reason = (
                f"{words} is not allowed to {organization}: [security] allow_{name} of this"
                " appliance does not name it"
            )
            return Breach(f"{_SECURITY}.{name}", reason, forbidden=True)
    return None


def _runtime_class(rules: ContainerRules, wanted: str | None) -> Breach | None:
    if wanted is None or wanted in rules.runtime_classes:
        return None
    known = ", ".join(rules.runtime_classes) or "none"
    reason = f"{wanted} is not among [runtime] classes of this appliance; known are: {known}"
    return Breach(f"{_SECURITY}.runtime_class", reason)


def _image(rules: ContainerRules, reference: str) -> Breach | None:
    if rules.registries and not any(_comes_from(one, reference) for one in rules.registries):
        known = ", ".join(rules.registries)
        reason = (
            f"{registry_of(reference)} is not among [images] allowed_registries of this appliance;"
            f" known are: {known}"
        )
        return Breach(_IMAGE, reason, forbidden=True)
    if rules.require_digest and "@sha256:" not in reference:
        reason = "must be pinned as name@sha256:…: [images] require_digest is set on this appliance"
        return Breach(_IMAGE, reason)
    return None


def _comes_from(allowed: str, reference: str) -> bool:
    server, _, beginning = allowed.partition("/")
    return registry_of(reference) == server_name(server) and _under(_path(reference), beginning)


def _path(reference: str) -> str:
    """Return a reference without its server and digest; Docker's own images are in `library`."""
    repository = reference.partition("@")[0]
    first, slash, rest = repository.partition("/")
    path = rest if slash and ("." in first or ":" in first or first == "localhost") else repository
    return path if "/" in path or registry_of(reference) != DEFAULT_REGISTRY else f"library/{path}"


def _under(path: str, beginning: str) -> bool:
    """Tell whether a name lies under a beginning, which ends only where a part of names does."""
    wanted = beginning.strip("/")
    return not wanted or path == wanted or path.startswith((f"{wanted}/", f"{wanted}:"))
