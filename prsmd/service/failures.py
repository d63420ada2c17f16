"""Failed attempts to say who one is: slowed down, counted, logged and on record.

What was sent is never kept or shown; of a well-formed key its id is.
"""

import collections
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping

from prsmd.core.apikey import is_key_id, parse_key
from prsmd.core.attempts import Attempts, network_of
from prsmd.domain.errors import (
    InvalidApiKeyError,
    InvalidTokenError,
    PrsmdError,
    RateLimitedError,
)
from prsmd.domain.events import AuditRecord
from prsmd.domain.origin import Origin
from prsmd.engine.denials import Denials
from prsmd.service.belonging import ForeignOrganizationError
from prsmd.service.directory import Directory

log = logging.getLogger("prsmd.access")
ACTION = "access.authenticate"
ACT_FOR = "access.act_for"
ANONYMOUS = "anonymous"
REASONS = ("missing", "malformed", "invalid", "peer", "throttled")
_MOST_WORDS = 200


class Failures:
    """Watches attempts. `counts` are the failures since the start, by reason (one of REASONS)."""

    def __init__(self, attempts: Attempts, denials: Denials, directory: Directory) -> None:
        self.counts: collections.Counter[str] = collections.Counter(dict.fromkeys(REASONS, 0))
        self._attempts = attempts
        self._denials = denials
        self._directory = directory

    @contextlib.asynccontextmanager
    async def watched(
        self, text: str | None, origin: Origin, request_id: str
    ) -> AsyncIterator[None]:
        """Let somebody say inside who they are, by a key or token, or (None) as a Unix peer.

        RateLimitedError before anything is looked at where there were too many failures.
        """
        where, shown, key_id = _where(text, origin), text or "", None
        self.refuse(where, shown, None)
        if text is not None:
            key_id = key_id_of(text)
            self.refuse(where, shown, key_id)
        try:
            yield
        except InvalidApiKeyError as error:
            reason = _reason(text, origin)
            if reason != "missing":  # some clients ask first and send a key when told to
                self._attempts.failed(where, shown, time.monotonic(), key_id)
            await self.note(reason, error, origin, request_id, key_id)
            raise
        except ForeignOrganizationError as error:
            await self._note_foreign(error, origin, request_id)
            raise
        if text is not None or origin.peer is not None:
            self._attempts.proven(where, shown)

    def refuse(self, where: str, text: str, key_id: str | None) -> None:
        """Raise RateLimitedError where there were too many failures of late."""
        seconds = math.ceil(self._attempts.wait(where, text, time.monotonic(), key_id))
        if seconds > 0:
            self.counts["throttled"] += 1
            raise RateLimitedError(
                f"Too many attempts with a wrong key from this address; try again in {seconds} s.",
                limit_type="failed_attempts_per_minute",
                limit=self._attempts.per_minute,
                reset_time=int(time.time()) + seconds,
                retry_after_seconds=seconds,
            )

    async def note(
        self,
        reason: str,
        error: PrsmdError,
        origin: Origin,
        request_id: str,
        key_id: str | None = None,
    ) -> None:
        """Count a failure and have it in the log and on record, as itself or in a count."""
        self.counts[reason] += 1
        key = None if key_id is None else self._directory.key(key_id)
        record = AuditRecord(
            at=time.time(),
            principal=ANONYMOUS,
            organization=self._denials.organization if key is None else key.organization,
            action=ACTION,
            subject="credential" if key_id is None else f"key:{key_id}",
            outcome="denied",
            request_id=request_id,
            details={"code": error.code, "reason": reason, "message": error.message[:_MOST_WORDS]},
            address=origin.address,
        )
        if await self._recorded(record, network_of(origin.whose)):
            why = error.why if isinstance(error, InvalidTokenError) else error.message
            log.warning(
                "authentication failed from %s with %s: %s",
                origin.address or "an unknown address",
                record.subject,
                why[:_MOST_WORDS],
                extra={"request_id": request_id, "address": origin.address, "key": key_id or ""},
            )

    async def _note_foreign(
        self, error: ForeignOrganizationError, origin: Origin, request_id: str
    ) -> None:
        """Have it on record that somebody who is known named an organization of others."""
        principal = error.principal
        record = AuditRecord(
            at=time.time(),
            principal=principal.id,
            organization=principal.organization or self._denials.organization,
            action=ACT_FOR,
            subject=f"organization:{error.organization}",
            outcome="denied",
            request_id=request_id,
            details={"code": error.code},
            address=origin.address,
        )
        await self._recorded(record)

    async def _recorded(self, record: AuditRecord, network: str | None = None) -> bool:
        """Tell whether a denial is on record as itself; else it is counted."""
        try:
            return await self._denials.record(record, network)
        except PrsmdError as failing:
            log.error("a failed attempt is not on record yet: %s", failing.message)  # noqa: TRY400
            return False

    def metrics(self) -> Mapping[str, int]:
        """Return the failures since the start, by reason."""
        return dict(self.counts)


def key_id_of(text: str) -> str | None:
    """Return the id of a well-formed key; None for anything else."""
    parsed = parse_key(text)
    return parsed[0] if parsed is not None and is_key_id(parsed[0]) else None


def _where(text: str | None, origin: Origin) -> str:
    """Return whose failures count together: wrong keys do not hurt whoever a local user is."""
    return f"peer {origin.whose}" if text is None else origin.whose


def _reason(text: str | None, origin: Origin) -> str:
    if text is None:
        return "missing" if origin.peer is None else "peer"
    return "malformed" if parse_key(text) is None and text.count(".") != 2 else "invalid"
