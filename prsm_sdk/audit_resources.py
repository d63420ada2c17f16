"""The client's noun for the audit: query, follow, verify, export."""

from collections.abc import AsyncIterator, Mapping

from . import audit_calls
from .aio import AsyncTransport
from .audit_models import AuditRecord, AuditVerdict
from .wire import Page

Filters = Mapping[str, str | float | None]


class Audit:
    """What was done, by whom, allowed or denied. `log` is `changes` or `inferences`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(
        self,
        log: str | None = None,
        filters: Filters | None = None,
        limit: int = 20,
        offset: int = 0,
    ) -> Page[AuditRecord]:
        """List records, newest first, at most 100 at a time.

        `filters`: since, until (epoch seconds or times), principal, action, subject, outcome,
        organization, and before (a sequence, which pages on without counting); a text that ends in
        `*` is the beginning of what is meant.
        """
        return await self._transport.send(audit_calls.records(log, filters, limit, offset))

    def follow(
        self,
        log: str | None = None,
        filters: Filters | None = None,
        after: int | None = None,
    ) -> AsyncIterator[AuditRecord]:
        """Follow records as they are written, from after the one of this sequence."""
        return self._transport.follow(audit_calls.follow_records(log, filters, after))

    async def verify(
        self, log: str | None = None, sequence: int | None = None, hashed: str | None = None
    ) -> AuditVerdict:
        """Have the daemon verify that no record was changed or removed."""
        return await self._transport.send(audit_calls.verify(log, sequence, hashed))

    def export(
        self,
        log: str | None = None,
        organization: str | None = None,
        since: str | float | None = None,
    ) -> AsyncIterator[bytes]:
        """Yield the pieces of an export, JSON lines; `prsmctl audit verify` proves them anywhere.

        Raises:
            ConnectionCutError: It broke off; what came is not all.
        """
        return self._transport.download(audit_calls.export(log, organization, since))

    async def public_keys(self) -> str:
        """Return the keys that exports are verified with, newest first, as PEM."""
        return (await self._transport.send(audit_calls.public_keys())).public_keys
