"""Makes principals of those who may belong to several organizations: users, bearers of tokens."""

import dataclasses
import enum

from prsmd.core.belonging import Belonging
from prsmd.core.permit import covers
from prsmd.domain.access import Bounds, Principal
from prsmd.domain.errors import ConflictError, InvalidInputError, PermissionDeniedError, PrsmdError
from prsmd.service.directory import Directory

HEADER = "X-PRSMD-Organization"


class Needs(enum.Enum):
    """What has to be known of a caller.

    `ORGANIZATION`: who they are and for whom they act. `ORGANIZATION_IF_CLEAR`: for whom, where
    that is clear. `IDENTITY`: who they are and nothing else, so that who is only invited may
    answer.
    """

    ORGANIZATION = "organization"
    ORGANIZATION_IF_CLEAR = "organization if clear"
    IDENTITY = "identity"


@dataclasses.dataclass(frozen=True, slots=True)
class ActingFor:
    """For which organization a request is (None: it does not say), and what it needs to know."""

    organization: str | None = None
    needs: Needs = Needs.ORGANIZATION


ANY = ActingFor()


class AmbiguousOrganizationError(ConflictError):
    """The caller belongs to several organizations and did not say which is meant."""

    def __init__(self, organizations: tuple[str, ...]) -> None:
        super().__init__(
            f"You belong to several organizations: {', '.join(organizations)}. Say for which one"
            f" this is: with the header {HEADER}, with 'organization' of the client, or with"
            " prsmctl --organization.",
            organizations=list(organizations),
        )


class ForeignOrganizationError(PermissionDeniedError):
    """The caller named an organization that they do not belong to; `principal` is who they are."""

    def __init__(self, principal: Principal, organization: str, known: tuple[str, ...]) -> None:
        own = ", ".join(known) or "none"
        super().__init__(
            f"You do not belong to organization {organization}; you belong to {own}.",
            required_permissions=[],
            current_permissions=sorted(principal.permissions),
            organizations=list(known),
        )
        self.principal = principal
        self.organization = organization


def resolve(
    directory: Directory, belonging: Belonging, acting: ActingFor, now: float, nobody: PrsmdError
) -> tuple[Principal, float | None]:
    """Return who calls, and when the first of their memberships ends.

    Raises:
        PrsmdError: `nobody`, for who belongs nowhere.
        AmbiguousOrganizationError: to several, and none is named.
        ForeignOrganizationError: not to the one that is named.
        InvalidApiKeyError: it is disabled or removed.
    """
    known = belonging.organizations(now)
    invited = any(member.accepted_at is None for member in belonging.own)
    bare = Principal(id=belonging.identity, organization="", role="none", permissions=frozenset())
    if not known and not (invited and acting.needs is not Needs.ORGANIZATION):
        raise nobody
    if acting.needs is Needs.IDENTITY:
        return bare, None
    chosen = acting.organization or belonging.default(now)
    if chosen is None:
        if acting.needs is Needs.ORGANIZATION_IF_CLEAR:
            return bare, None
        raise AmbiguousOrganizationError(known)
    if chosen in known:
        directory.refuse_closed(chosen)
        return _member(directory, belonging, chosen, now)
    home, until = _member(directory, belonging, belonging.default(now) or "", now)
    return acting_for(directory, home, chosen, known), until


def _member(
    directory: Directory, belonging: Belonging, organization: str, now: float
) -> tuple[Principal, float | None]:
    """Return who a caller is in an organization, and when the first of their memberships ends.

    Who they are is held to the moment from which on they may do less: they give nothing for longer.
    """
    bindings, first = belonging.roles_in(organization, now)
    principal = directory.principal(belonging.identity, organization, bindings)
    end = first
    while end is not None:
        rest, following = belonging.roles_in(organization, end)
        if not covers(directory.principal(belonging.identity, organization, rest), principal):
            return dataclasses.replace(principal, bounds=Bounds(expires_at=end)), first
        end = following
    return principal, first


def acting_for(
    directory: Directory, principal: Principal, organization: str | None, known: tuple[str, ...]
) -> Principal:
    """Return a principal as it acts for an organization that it does not belong to, or for its own.

    Administrators of the appliance act for every one, disabled ones too.

    Raises:
        ForeignOrganizationError: it is no administrator.
        InvalidInputError: there is no such organization; only administrators learn that.
    """
    if organization in {None, principal.organization}:
        return principal
    assert organization is not None  # noqa: S101 - looked at above
    if not principal.appliance_wide:
        raise ForeignOrganizationError(principal, organization, known)
    if directory.organization(organization) is None:
        raise InvalidInputError.field(HEADER, "is not an organization here", organization)
    return dataclasses.replace(principal, organization=organization)
