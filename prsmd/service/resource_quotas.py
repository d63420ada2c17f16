"""Resource quotas: everybody of an organization sees them; the appliance's administrators set them.

What is refused for want of quota is decided in `core/quota_admission.py`.
"""

import dataclasses
from collections.abc import Mapping

from prsmd.core.quota_admission import held
from prsmd.domain.access import Permission
from prsmd.domain.errors import InvalidInputError, NotFoundError
from prsmd.domain.events import own_record
from prsmd.domain.resource_quota import (
    IN_MEMORY,
    SUMMED,
    Amounts,
    Dimension,
    Limit,
    Limits,
    format_amount,
)
from prsmd.engine.quota_ledger import used
from prsmd.service.caller import Caller, denials_recorded, require_recorded
from prsmd.service.directory import Directory
from prsmd.service.published_limits import PublishedLimits
from prsmd.store import audit, organizations, replicas, resource_quotas
from prsmd.store.db import Database, Tx

UNLIMITED_LIMIT = Limit(None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuotaReport:
    """An organization's quota. `reserved` is what its replicas hold now, of cpu to replicas."""

    organization: str
    limits: Limits
    used: Amounts
    reserved: Amounts

    def limit(self, dimension: Dimension) -> Limit:
        """Return one limit."""
        return self.limits.get(dimension, UNLIMITED_LIMIT)


@dataclasses.dataclass(frozen=True, slots=True)
class LimitChange:
    """A limit to be set (None: unlimited); `reset`: the default is to hold again."""

    hard: int | None = None
    reset: bool = False


class ResourceQuotas:
    """Use cases on resource quotas."""

    def __init__(
        self, database: Database, directory: Directory, published: PublishedLimits
    ) -> None:
        self._database = database
        self._directory = directory
        self._published = published

    async def own(self, caller: Caller) -> QuotaReport:
        """Return the quota of the caller's organization and what is used of it."""
        async with self._database.read() as tx:
            return await self._report(tx, caller.principal.organization)

    async def get(self, caller: Caller, name: str) -> QuotaReport:
        """Return an organization's quota and what is used of it.

        Raises:
            NotFoundError: the caller may not know of the organization, or there is none.
        """
        async with self._database.read() as tx:
            return await self._report(tx, await _visible(tx, caller, name))

    async def change(
        self, caller: Caller, name: str, changes: Mapping[Dimension, LimitChange]
    ) -> QuotaReport:
        """Set limits of an organization. Lowered below what is used, nothing is stopped.

        Raises:
            NotFoundError: there is no such organization.
            PermissionDeniedError: the caller does not administer the appliance; it is on record.
        """
        subject = f"organization:{name[:100]}"
        await require_recorded(self._database, caller, Permission.NODE_MANAGE, subject)
        if not changes:
            raise InvalidInputError.field("hard", "names nothing to change")

        async def write(tx: Tx) -> QuotaReport:
            organization = await _visible(tx, caller, name)
            before = await resource_quotas.limits(tx, organization)
            for dimension, wanted in changes.items():
                if wanted.reset:
                    await resource_quotas.reset(tx, organization, dimension)
                else:
                    await resource_quotas.put(tx, organization, dimension, wanted.hard)
            report = await self._report(tx, organization)
            details = {"before": _told(before, changes), "after": _told(report.limits, changes)}
            record = caller.record(
                "organizations.quota", subject, "allowed", details, organization=organization
            )
            await audit.append(tx, record)
            await caller.remember(tx, report)
            return report

        async with denials_recorded(self._database, caller, "organizations.quota", subject):
            return await self._directory.commit(
                self._database,
                write,
                lambda report: self._published.put(report.organization, report.limits),
            )

    async def _report(self, tx: Tx, organization: str) -> QuotaReport:
        counted = await used(tx, organization, (one for one in SUMMED if one not in IN_MEMORY))
        active = await replicas.list_active(tx, organization)
        return QuotaReport(
            organization=organization,
            limits=await resource_quotas.limits(tx, organization),
            used={**counted, **self._published.used(organization)},
            reserved=held(one.placement for one in active),
        )


async def ensure_defaults(
    database: Database, hard: Mapping[Dimension, int | None], now: float
) -> None:
    """Let these be the limits where no administrator set any. A change is on record.

    Writes nothing where they are so already.
    """
    async with database.read() as tx:
        before = await resource_quotas.limits(tx, "")
    if {name: limit.hard for name, limit in before.items()} == dict(hard):
        return

    async def write(tx: Tx) -> None:
        await resource_quotas.set_defaults(tx, hard)
        details = {
            "before": _told(before, hard),
            "after": _told(await resource_quotas.limits(tx, ""), hard),
        }
        record = own_record(now, "", "organizations.default_quota", "settings:quota", details)
        await audit.append(tx, record)

    await database.write(write)


async def _visible(tx: Tx, caller: Caller, name: str) -> str:
    found = await organizations.get(tx, name) if caller.scope in {None, name} else None
    if found is None or found.removed_at is not None:
        raise NotFoundError(f"There is no organization {name[:100]}.")
    return found.id


def _told(limits: Limits, names: Mapping[Dimension, object]) -> dict[str, str | int | None]:
    found = {}
    for name in sorted(names):
        hard = limits.get(name, UNLIMITED_LIMIT).hard
        found[name.value] = None if hard is None else format_amount(name, hard)
    return found
