"""Members: who belongs to an organization, and which roles they have in it or on its models."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prsmd.domain.access import Binding, Member, Permission, SubjectKind
from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
)
from prsmd.domain.ids import random_id
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.quota_ledger import refuse_one_more
from prsmd.service.access import gid_of, uid_of
from prsmd.service.caller import Caller, require_recorded
from prsmd.service.registrar import Ask, Done, Registrar
from prsmd.service.roles import refuse_appliance_role_on_model, refuse_unknown_role
from prsmd.store import deployments, keys, members
from prsmd.store.db import Tx

_HIGHEST_ID = 2**32 - 2  # the next one means "no change" to the kernel
_MOST_SUBJECT = 128


@dataclasses.dataclass(frozen=True, slots=True)
class BindingWish:
    """A role to have: in the whole organization, or on a model by its id or name."""

    role: str
    model: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemberWish:
    """Who should belong to an organization (None: the caller's) and have which roles.

    `kind` may be `user` or `group` too: a name of this machine, which is looked up once.
    """

    kind: str
    subject: str
    bindings: Sequence[BindingWish]
    organization: str | None = None
    name: str | None = None
    expires_at: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemberReport:
    """A member, with the models that its bindings name, and maybe others, by deployment id."""

    member: Member
    models: Mapping[str, str]


class Members:
    """Use cases on members."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar

    async def add(self, caller: Caller, wish: MemberWish) -> MemberReport:
        """Make somebody a member, or invite them: whom nobody may claim is asked for consent.

        ConflictError for who is one of this organization already, or invited.
        """
        kind, subject = _recognized(wish)

        async def write(tx: Tx) -> Done[MemberReport]:
            organization = self._registrar.place(caller, wish.organization)
            await self._refuse_impossible(tx, organization, kind, subject)
            now = time.time()
            member = Member(
                id=random_id("member"),
                organization=organization,
                kind=kind,
                subject=subject,
                name=wish.name or wish.subject,
                bindings=await self._bindings(tx, organization, wish.bindings),
                created_at=now,
                created_by=caller.principal.id,
                expires_at=wish.expires_at,
            )
            _refuse_end(member, now)
            accepted = _counts_at_once(caller, member)
            member = dataclasses.replace(member, accepted_at=now if accepted else None)
            self._refuse_excess(caller, member)
            if await members.find(tx, kind, subject, organization) is not None:
                raise ConflictError(
                    f"{kind.value} {subject} is a member of {organization} already, or invited."
                )
            await refuse_one_more(tx, organization, Dimension.MEMBERS)
            await members.add(tx, member)
            report = await _report(tx, member)
            return Done(
                result=report,
                organization=organization,
                subject=f"member:{member.id}",
                details=_details(member),
            )

        ask = _ask("add", f"member:{kind.value}:{subject}")
        return await self._registrar.carry_out(caller, ask, write, self._take_over)

    async def page(self, caller: Caller, limit: int, offset: int) -> tuple[list[MemberReport], int]:
        """Return some members of the caller's scope, oldest first, and how many there are."""
        database = self._registrar.database
        await require_recorded(database, caller, Permission.MEMBERS_MANAGE, "members")
        async with database.read() as tx:
            found, total = await members.page(tx, caller.scope, limit, offset)
            return await _reports(tx, found), total

    async def change(
        self, caller: Caller, member_id: str, changes: Mapping[str, Any]
    ) -> MemberReport:
        """Change `name`, `expires_at` or `bindings` (wishes, in place of those it has), at once."""

        async def write(tx: Tx) -> Done[MemberReport]:
            known = await self._known(tx, caller, member_id)
            given = dict(changes)
            if "bindings" in given:
                given["bindings"] = await self._bindings(tx, known.organization, given["bindings"])
            changed = dataclasses.replace(known, **given)
            now = time.time()
            if changed.expires_at != known.expires_at:
                _refuse_end(changed, now)
            if _goes_on_longer(known, changed) and not _counts_at_once(caller, changed):
                changed = dataclasses.replace(changed, accepted_at=_accepted(known, now))
            self._refuse_beyond(caller, known)
            self._refuse_excess(caller, changed, known)
            await members.put(tx, changed)
            report = await _report(tx, changed)
            return Done(
                result=report,
                organization=known.organization,
                details=_details(changed),
                changed=changed != known,
            )

        ask = _ask("update", f"member:{member_id[:100]}")
        return await self._registrar.carry_out(caller, ask, write, self._take_over)

    async def remove(self, caller: Caller, member_id: str) -> MemberReport:
        """Let a member have no role any more. What they began ends."""

        async def write(tx: Tx) -> Done[MemberReport]:
            known = await self._known(tx, caller, member_id)
            self._refuse_beyond(caller, known)
            report = await _report(tx, known)
            await members.remove(tx, member_id)
            return Done(result=report, organization=known.organization, details=_details(known))

        ask = _ask("remove", f"member:{member_id[:100]}")
        return await self._registrar.carry_out(
            caller, ask, write, lambda gone: self._registrar.directory.drop_member(gone.member)
        )

    async def own(self, caller: Caller) -> Sequence[MemberReport]:
        """Return the memberships and invitations of whoever calls; not those of their groups."""
        kind, _, subject = caller.principal.id.partition(":")
        if kind not in {SubjectKind.UID, SubjectKind.OIDC}:
            return []
        found = self._registrar.directory.memberships(SubjectKind(kind), subject)
        async with self._registrar.database.read() as tx:
            return await _reports(tx, found)

    async def accept(self, caller: Caller, member_id: str) -> MemberReport:
        """Accept an invitation; only who was invited does. NotFoundError for everybody else."""

        async def write(tx: Tx) -> Done[MemberReport]:
            known = await _meant(tx, caller, member_id)
            self._registrar.directory.refuse_closed(known.organization)
            now = time.time()
            if known.expires_at is not None and known.expires_at <= now:
                raise ConflictError("This invitation has ended; ask for another one.")
            accepted = known
            if known.accepted_at is None:
                accepted = dataclasses.replace(known, accepted_at=now)
                await members.put(tx, accepted)
            return Done(
                result=await _report(tx, accepted),
                organization=known.organization,
                details=_details(accepted),
                changed=accepted != known,
            )

        ask = Ask(None, "members.accept", f"member:{member_id[:100]}")
        return await self._registrar.carry_out(caller, ask, write, self._take_over)

    async def leave(self, caller: Caller, member_id: str) -> MemberReport:
        """End one's own membership, or refuse an invitation. NotFoundError for another's."""

        async def write(tx: Tx) -> Done[MemberReport]:
            known = await _meant(tx, caller, member_id)
            report = await _report(tx, known)
            await members.remove(tx, member_id)
            return Done(result=report, organization=known.organization, details=_details(known))

        ask = Ask(None, "members.leave", f"member:{member_id[:100]}")
        return await self._registrar.carry_out(
            caller, ask, write, lambda gone: self._registrar.directory.drop_member(gone.member)
        )

    def _take_over(self, report: MemberReport) -> None:
        self._registrar.directory.put_member(report.member)

    async def _known(self, tx: Tx, caller: Caller, member_id: str) -> Member:
        found = await members.get(tx, member_id, caller.scope)
        if found is None:
            raise NotFoundError(f"There is no member {member_id[:100]}.")
        return found

    def _refuse_beyond(self, caller: Caller, member: Member) -> None:
        """Nobody changes or takes roles that allow more than they may themselves."""
        other = self._registrar.directory.given_to(member, member.bindings)
        self._registrar.refuse_beyond(caller, other, "change or take the roles of this member")

    def _refuse_excess(self, caller: Caller, member: Member, before: Member | None = None) -> None:
        given_to = self._registrar.directory.given_to
        known = None if before is None else given_to(before, before.bindings)
        gift = given_to(member, member.bindings)
        self._registrar.refuse_excess(caller, gift, "give a member these roles", known)

    async def _bindings(
        self, tx: Tx, organization: str, wished: Sequence[BindingWish]
    ) -> tuple[Binding, ...]:
        found: list[Binding] = []
        for place, wish in enumerate(wished):
            field = f"bindings.{place}.role"
            refuse_unknown_role(self._registrar, organization, wish.role, field)
            if wish.model is None:
                found.append(Binding(wish.role))
                continue
            refuse_appliance_role_on_model(wish.role, field)
            model = await _model(tx, organization, wish.model, f"bindings.{place}.model")
            found.append(Binding(wish.role, model.id))
        return tuple(dict.fromkeys(found))

    async def _refuse_impossible(
        self, tx: Tx, organization: str, kind: SubjectKind, subject: str
    ) -> None:
        if kind is SubjectKind.UID and int(subject) in {0, os.geteuid()}:
            raise InvalidInputError.field(
                "subject", "administers the appliance always and cannot be made a member", subject
            )
        if kind is SubjectKind.KEY:
            key = await keys.get(tx, subject, organization)
            if key is None or key.revoked_at is not None:
                problem = f"is not an API key of organization {organization} that is in force"
                raise InvalidInputError.field("subject", problem, subject[:_MOST_SUBJECT])


def _counts_at_once(caller: Caller, member: Member) -> bool:
    """Tell whether a membership needs no consent. PermissionDeniedError for who cannot give it.

    A key is its organization's own thing. Users and bearers of tokens are nobody's: an
    administrator of the appliance places them, or they place themselves.
    """
    principal = caller.principal
    places = principal.appliance_wide and Permission.NODE_MANAGE in principal.permissions
    if places or member.kind is SubjectKind.KEY or member.identity == principal.id:
        return True
    if member.kind is SubjectKind.GID:
        raise PermissionDeniedError(
            "A group cannot be asked for its consent, so that only an administrator of the"
            " appliance adds one; invite its users one by one.",
            required_permissions=[Permission.NODE_MANAGE.value],
            current_permissions=sorted(principal.permissions),
        )
    return False


def _goes_on_longer(known: Member, changed: Member) -> bool:
    """Tell whether a change lets a membership that was accepted go on after its end."""
    if known.accepted_at is None or known.expires_at is None:
        return False
    return changed.expires_at is None or changed.expires_at > known.expires_at


def _accepted(member: Member, now: float) -> float | None:
    """Return since when a membership is accepted; None: it has ended, and is to be asked anew."""
    ended = member.expires_at is not None and member.expires_at <= now
    return None if ended else member.accepted_at


def _refuse_end(member: Member, now: float) -> None:
    if member.expires_at is None:
        return
    if member.kind is SubjectKind.KEY:
        problem = "is the key's own: change the key"
        raise InvalidInputError.field("expires_in_seconds", problem)
    if member.expires_at <= now:
        raise InvalidInputError.field("expires_in_seconds", "must be in the future")


async def _meant(tx: Tx, caller: Caller, member_id: str) -> Member:
    """Return a membership of the caller's own. Whose any other is, is not said."""
    found = await members.get(tx, member_id)
    if found is None or found.identity != caller.principal.id:
        raise NotFoundError(f"There is no membership or invitation {member_id[:100]} of yours.")
    return found


def _recognized(wish: MemberWish) -> tuple[SubjectKind, str]:
    """Return how a member will be recognized; names of this machine become numbers."""
    subject = wish.subject
    if wish.kind in {"user", "group"}:
        look_up = uid_of if wish.kind == "user" else gid_of
        try:
            number = look_up(subject)
        except KeyError:
            problem = f"is not a {wish.kind} of this machine"
            raise InvalidInputError.field("subject", problem, subject[:_MOST_SUBJECT]) from None
        return (SubjectKind.UID if wish.kind == "user" else SubjectKind.GID), str(number)
    kind = SubjectKind(wish.kind)
    if kind in {SubjectKind.UID, SubjectKind.GID} and not _is_id(subject):
        problem = "must be a number; name a user or group with kind user or group"
        raise InvalidInputError.field("subject", problem, subject[:_MOST_SUBJECT])
    return kind, subject


def _is_id(text: str) -> bool:
    plain = text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
    return plain and len(text) <= 10 and int(text) <= _HIGHEST_ID


async def _model(tx: Tx, organization: str, name: str, field: str) -> Deployment:
    found = await deployments.find_model(tx, name, organization)
    if found is None:
        raise InvalidInputError.field(field, f"is not a model of {organization}", name[:100])
    return found


async def _report(tx: Tx, member: Member) -> MemberReport:
    [report] = await _reports(tx, [member])
    return report


async def _reports(tx: Tx, found: Sequence[Member]) -> list[MemberReport]:
    """Return the members with the models that they all name, which are looked up once."""
    named = {
        binding.deployment_id
        for member in found
        for binding in member.bindings
        if binding.deployment_id is not None
    }
    models = await deployments.model_ids(tx, named) if named else {}
    return [MemberReport(member=member, models=models) for member in found]


def _ask(verb: str, subject: str) -> Ask:
    return Ask(Permission.MEMBERS_MANAGE, f"members.{verb}", subject)


def _details(member: Member) -> dict[str, object]:
    return {
        "subject": member.identity,
        "accepted": member.accepted_at is not None,
        "expires_at": member.expires_at,
        "bindings": [
            {"role": binding.role, "deployment_id": binding.deployment_id}
            for binding in member.bindings
        ],
    }
