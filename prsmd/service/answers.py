"""What was answered before: to whom it is given again, and to whom not.

Only who asked is told, and only while they may all that they might when they asked: a stored answer
tells of things that the caller may not be allowed to see, or touch, any more.
"""

import hashlib
import json
from collections.abc import Callable

from prsmd.core.permit import covers
from prsmd.domain.errors import ConflictError, PermissionDeniedError
from prsmd.service.caller import Caller, denials_recorded
from prsmd.service.idempotency import Answer, Once, asker_of
from prsmd.store import idempotency
from prsmd.store.db import Database
from prsmd.store.idempotency import Remembered


class Answers:
    """Looks up what was answered before. `digest` is made with the appliance's own secret."""

    def __init__(self, database: Database, digest: Callable[[str], bytes]) -> None:
        self._database = database
        self._digest = digest

    def fingerprint(self, request: bytes) -> str:
        """Return a name of this request's content from which nobody can guess the content.

        A body may hold a password, and the name is stored.
        """
        return self._digest(hashlib.sha256(request).hexdigest()).hex()

    async def has(self, caller: Caller, key: str) -> bool:
        """Tell whether a request of the caller's with this key was answered within the last day."""
        return await self._find(caller, key) is not None

    async def first(self, caller: Caller, once: Once, subject: str) -> Answer | None:
        """Return what the first request with this key was answered, or None.

        `subject` is what is asked, for the audit log.

        Raises:
            PermissionDeniedError: the caller may less than then, which is on record.
            InvalidApiKeyError: the caller is nobody by now, or may less than when they asked.
            ConflictError: it was another request.
        """
        if once.key is None:
            return None
        found = await self._find(caller, once.key)
        if found is None:
            return None
        caller.require_still()
        async with denials_recorded(self._database, caller, "answers.repeat", subject):
            _refuse_less(caller, found)
        if found.fingerprint != once.fingerprint:
            raise ConflictError(
                "This Idempotency-Key came with another request in the last 24 hours: its method,"
                " path, query or body differs. Send that request, or use a new key."
            )
        return Answer(body=json.loads(found.body), status=found.status, headers=found.headers)

    async def _find(self, caller: Caller, key: str) -> Remembered | None:
        async with self._database.read() as tx:
            return await idempotency.find(tx, caller.principal.id, key)


def _refuse_less(caller: Caller, found: Remembered) -> None:
    then, now = asker_of(found), caller.principal
    if not covers(now, then):
        raise PermissionDeniedError(
            "You may do less now than when a request with this Idempotency-Key was answered. To ask"
            " anew, use a new key.",
            required_permissions=sorted(then.permissions),
            current_permissions=sorted(now.permissions),
        )
