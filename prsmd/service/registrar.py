"""How organizations, roles, members and keys are changed: allowed, written, recorded, in force.

The verdict is given in the transaction that writes, on what it reads there; nobody gives, takes or
changes what is beyond what they may do themselves.
"""

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from prsmd.core.permit import covers
from prsmd.domain.access import Permission, Principal
from prsmd.domain.errors import InvalidInputError, PermissionDeniedError
from prsmd.service.caller import Caller, denials_recorded, require_recorded
from prsmd.service.delegation import beyond, refuse_excess
from prsmd.service.directory import Directory, Writer
from prsmd.store import audit
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """What somebody wants to do to what, and the permission that it needs.

    None: none, for it is about themselves only.
    """

    permission: Permission | None
    action: str
    subject: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[T]):
    """What a transaction came to, and whom it is about: an organization.

    `subject` is what it was done to; None: what was asked about.

    `changed` False: it was so already, and nothing is recorded.
    """

    result: T
    organization: str
    subject: str | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    changed: bool = True


class Registrar:
    """Carries changes of who may do what to the store and to memory."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self.database = database
        self.directory = directory

    async def carry_out(
        self,
        caller: Caller,
        ask: Ask,
        write: Callable[[Tx], Awaitable[Done[T]]],
        take_over: Callable[[T], None],
        writer: Writer | None = None,
    ) -> T:
        """Do what is asked if the caller may; a denial is recorded as well as what was done.

        `writer` carries out the transaction where more than the directory has to follow it.
        """
        if ask.permission is not None:
            await require_recorded(self.database, caller, ask.permission, ask.subject)

        async def transaction(tx: Tx) -> Done[T]:
            done = await write(tx)
            if done.changed:
                subject = done.subject or ask.subject
                record = caller.record(
                    ask.action, subject, "allowed", done.details, done.organization
                )
                await audit.append(tx, record)
            await caller.remember(tx, done.result)
            return done

        async with denials_recorded(self.database, caller, ask.action, ask.subject):
            done = await self.directory.commit(
                writer or self.database, transaction, lambda done: take_over(done.result)
            )
        log.info(
            "%s %s by %s",
            ask.action,
            done.subject or ask.subject,
            caller.principal.id,
            extra={"request_id": caller.request_id},
        )
        return done.result

    def place(self, caller: Caller, organization: str | None) -> str:
        """Return the organization that is meant: the caller's own unless it is named.

        Raises:
            PermissionDeniedError: it is another one, and the caller acts only for their own.
            InvalidInputError: there is none of that name; only administrators learn that.
        """
        principal = caller.principal
        wanted = organization or principal.organization
        if caller.scope not in {None, wanted}:
            raise PermissionDeniedError(
                f"You act for organization {principal.organization} and for no other.",
                required_permissions=[Permission.NODE_MANAGE.value],
                current_permissions=sorted(principal.permissions),
            )
        if self.directory.organization(wanted) is None:
            raise InvalidInputError.field("organization", "is not an organization here", wanted)
        return wanted

    def refuse_beyond(self, caller: Caller, other: Principal, what: str) -> None:
        """Raise PermissionDeniedError where `other` may what the caller may not themselves.

        So nobody takes from who is above them. `what` says what the caller wants, after "cannot".
        """
        if not covers(caller.principal, other):
            raise beyond(caller.principal, other, what)

    def refuse_excess(
        self, caller: Caller, gift: Principal, what: str, before: Principal | None = None
    ) -> None:
        """Raise PermissionDeniedError where somebody gives more than they hold themselves.

        `gift` is who there would be, `before` who there is, and `what` as in `refuse_beyond`.
        """
        refuse_excess(caller.principal, gift, what, before)
