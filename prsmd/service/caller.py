"""Who makes this request, and how a use case is allowed, denied and recorded."""

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from prsmd.core.permit import Allow, Deny, permit, possible
from prsmd.domain.access import ModelRef, Permission, Principal
from prsmd.domain.errors import NotFoundError, PermissionDeniedError, PrsmdError
from prsmd.domain.events import AuditRecord
from prsmd.domain.quota import Share
from prsmd.engine.denials import TABLE, Denials
from prsmd.service.idempotency import Once
from prsmd.store import audit
from prsmd.store.db import Database, Tx


def _always() -> None:
    """Let whatever is asked for go on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """One authenticated request. `once` is there if it is one that changes something.

    `address` is where it came from, as audit records have it. Its `denials` are recorded there;
    None: each as itself. `require_still` raises where the caller is nobody any more, or may less
    than when they asked: a body may be long in coming, and what comes before a change take long.
    """

    principal: Principal
    request_id: str
    once: Once | None = None
    address: str = ""
    denials: Denials | None = None
    require_still: Callable[[], object] = _always

    @property
    def scope(self) -> str | None:
        """The organization whose models this caller sees; None for all of them."""
        return None if self.principal.appliance_wide else self.principal.organization

    def borrows(self, organization: str) -> bool:
        """Tell whether what this caller sees of the organization's models is lent to it."""
        return self.scope not in {None, organization}

    def record(
        self,
        action: str,
        subject: str,
        outcome: str,
        details: Mapping[str, Any] | None = None,
        organization: str | None = None,
    ) -> AuditRecord:
        """Return the audit record of what this caller did, or tried to.

        `organization` is whom it is about, and who may read it; by default the caller's own.
        """
        return AuditRecord(
            at=time.time(),
            principal=self.principal.id,
            organization=organization or self.principal.organization,
            action=action,
            subject=subject,
            outcome=outcome,
            request_id=self.request_id,
            details=details or {},
            address=self.address,
        )

    async def remember(self, tx: Tx, result: object) -> None:
        """Store the answer with the change: the last statement of every mutation's transaction.

        Raises:
            AlreadyRememberedError: a request with the same idempotency key came first.
            InvalidApiKeyError: who asked for it is nobody by now, or may less.
        """
        self.require_still()
        if self.once is not None:
            await self.once.remember(tx, self.principal, result)


def require(
    caller: Caller,
    permission: Permission,
    organization: str,
    missing: PrsmdError,
    model: ModelRef | None = None,
    shares: Sequence[Share] = (),
) -> Allow:
    """Return why the caller may; raise PermissionDeniedError, or `missing` for foreign things.

    `model` is which one, if it is about one, and `shares` are those of it that are in force.
    """
    verdict = permit(caller.principal, permission, organization, model, shares)
    if isinstance(verdict, Deny):
        raise missing if verdict.hidden else _refusal(verdict)
    return verdict


def require_own(caller: Caller, permission: Permission) -> None:
    """Return if the caller may in their own organization, on a single model of it at least.

    Raise PermissionDeniedError otherwise.
    """
    verdict = possible(caller.principal, permission)
    if isinstance(verdict, Deny):
        raise _refusal(verdict)


async def require_recorded(
    database: Database, caller: Caller, permission: Permission, subject: str
) -> None:
    """Like `require_own`, for a mutation: a denial is audited."""
    try:
        require_own(caller, permission)
    except PermissionDeniedError:
        await record_denial(database, caller, permission.value, subject)
        raise


@contextlib.asynccontextmanager
async def denials_recorded(
    database: Database, caller: Caller, action: str, subject: str
) -> AsyncIterator[None]:
    """Audit what is refused inside: for want of a permission, or as if it did not exist."""
    try:
        yield
    except (PermissionDeniedError, NotFoundError) as error:
        await record_denial(database, caller, action, subject, error)
        raise


async def record_denial(
    database: Database,
    caller: Caller,
    action: str,
    subject: str,
    error: PrsmdError | None = None,
) -> None:
    """Have it on record that the caller was denied something: as itself, or in a count."""
    details = {} if error is None else {"code": error.code}
    denied = caller.record(action, subject, "denied", details)
    if caller.denials is None:
        await database.write(lambda tx: audit.append(tx, denied, TABLE))
    else:
        await caller.denials.record(denied)


def _refusal(verdict: Deny) -> PermissionDeniedError:
    return PermissionDeniedError(
        verdict.reason,
        required_permissions=list(verdict.required_permissions),
        current_permissions=list(verdict.current_permissions),
    )
