"""In which organization a caller acts who belongs to several, and with which roles.

It is the one that they name; else the one that the configuration puts them in; else the only one
that they are a member of themselves; else the only one that a group of theirs is a member of. Where
there are several at that place, none is taken: nobody's act moves another's calls unseen.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from prsmd.domain.access import Binding, Member


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """Where somebody belongs.

    `configured` are organizations and roles by the configuration, whose order counts; `own` are
    memberships of the very identity, invitations too, and `groups` those of its groups.
    """

    identity: str
    configured: Sequence[tuple[str, Binding]] = ()
    own: Sequence[Member] = ()
    groups: Sequence[Member] = ()

    def organizations(self, now: float) -> tuple[str, ...]:
        """Return every organization that it belongs to; an invitation is no belonging."""
        by_members = {each.organization for each in self._in_force(now)}
        return tuple(sorted(by_members.union(name for name, _ in self.configured)))

    def default(self, now: float) -> str | None:
        """Return the organization that it acts in where none is named; None: none, or several."""
        if self.configured:
            return self.configured[0][0]
        for level in (self.own, self.groups):
            found = {each.organization for each in level if each.in_force(now)}
            if found:
                return found.pop() if len(found) == 1 else None
        return None

    def roles_in(self, organization: str, now: float) -> tuple[tuple[Binding, ...], float | None]:
        """Return the roles that it has in an organization, and when the first of them ends."""
        bindings = [binding for name, binding in self.configured if name == organization]
        ends: list[float] = []
        for member in self._in_force(now):
            if member.organization == organization:
                bindings += member.bindings
                ends += [] if member.expires_at is None else [member.expires_at]
        return tuple(bindings), min(ends, default=None)

    def _in_force(self, now: float) -> Iterable[Member]:
        return (each for each in (*self.own, *self.groups) if each.in_force(now))
