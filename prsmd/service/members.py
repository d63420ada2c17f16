"""Members: who belongs to an organization, and which roles they have in it or on its models."""

import dataclasses
import os
import time
from collections.abc import Sequence

from prsmd.domain.access import Binding, Member, Permission, SubjectKind
from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import ConflictError, InvalidInputError, NotFoundError
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemberReport:
    """A member, with the models that its bindings name, by deployment id."""

    member: Member
    models: dict[str, str]


class Members:
    """Use cases on members."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar

    async def add(self, caller: Caller, wish: MemberWish) -> MemberReport:
        """Make somebody a member. ConflictError for who is one already, here or elsewhere."""
        kind, subject = _recognized(wish)

        async def write(tx: Tx) -> Done[MemberReport]:
            organization = self._registrar.place(caller, wish.organization)
            await self._refuse_impossible(tx, organization, kind, subject)
            member = Member(
                id=random_id("member"),
                organization=organization,
                kind=kind,
                subject=subject,
                name=wish.name or wish.subject,
                bindings=await self._bindings(tx, organization, wish.bindings),
                created_at=time.time(),
                created_by=caller.principal.id,
            )
            self._refuse_excess(caller, member)
            if await members.find(tx, kind, subject) is not None:
                raise ConflictError(
                    f"{kind.value} {subject} is a member already and cannot be another one's too."
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

    async def list(self, caller: Caller) -> list[MemberReport]:
        """Return the members of the caller's scope."""
        database = self._registrar.database
        await require_recorded(database, caller, Permission.MEMBERS_MANAGE, "members")
        async with database.read() as tx:
            return [
                await _report(tx, member) for member in await members.list_for(tx, caller.scope)
            ]

    async def change(
        self,
        caller: Caller,
        member_id: str,
        name: str | None,
        bindings: Sequence[BindingWish] | None,
    ) -> MemberReport:
        """Rename a member, or give it these roles in place of those it has. They count at once."""

        async def write(tx: Tx) -> Done[MemberReport]:
            known = await self._known(tx, caller, member_id)
            bound = known.bindings
            if bindings is not None:
                bound = await self._bindings(tx, known.organization, bindings)
            changed = dataclasses.replace(known, name=name or known.name, bindings=bound)
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
    models = {}
    for binding in member.bindings:
        if binding.deployment_id is not None:
            found = await deployments.get(tx, binding.deployment_id)
            models[binding.deployment_id] = found.model_id if found is not None else ""
    return MemberReport(member=member, models=models)


def _ask(verb: str, subject: str) -> Ask:
    return Ask(Permission.MEMBERS_MANAGE, f"members.{verb}", subject)


def _details(member: Member) -> dict[str, object]:
    return {
        "subject": f"{member.kind.value}:{member.subject}",
        "bindings": [
            {"role": binding.role, "deployment_id": binding.deployment_id}
            for binding in member.bindings
        ],
    }
