"""What was answered before: to whom it is given again, and to whom not.

Only who asked is told, and only while they may all that they might when they asked: a stored answer
tells of things that the caller may not be allowed to see, or touch, any more.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable

from prsmd.core.permit import covers
from prsmd.domain.access import Principal
from prsmd.domain.errors import ConflictError, PermissionDeniedError
from prsmd.service.caller import Caller, denials_recorded
from prsmd.service.idempotency import Answer, Once, asker_of
from prsmd.store import idempotency
from prsmd.store.db import Database
from prsmd.store.decoding import decoding
from prsmd.store.idempotency import Remembered


@dataclasses.dataclass(frozen=True, slots=True)
class _Told:
    """An answer of before. `then` is who asked, with what they might do then."""

    then: Principal
    fingerprint: str
    answer: Answer


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
        told = await self._find(caller, once.key)
        if told is None:
            return None
        caller.require_still()
        async with denials_recorded(self._database, caller, "answers.repeat", subject):
            _refuse_less(caller, told.then)
        if told.fingerprint != once.fingerprint:
            raise ConflictError(
                "This Idempotency-Key came with another request in the last 24 hours: its method,"
                " path, query or body differs. Send that request, or use a new key."
            )
        return told.answer

    async def _find(self, caller: Caller, key: str) -> _Told | None:
        async with self._database.read() as tx:
            found = await idempotency.find(tx, caller.principal.id, key)
            return None if found is None else _told(found)


def _told(found: Remembered) -> _Told:
    """Return what is stored. DamagedRowError where that is not what prsmd wrote."""
    with decoding("remembered_answers.body"):
        body = {**json.loads(found.body)}
    with decoding("remembered_answers.grounds"):
        then = asker_of(found)
    answer = Answer(body=body, status=found.status, headers=found.headers)
    return _Told(then, found.fingerprint, answer)


def _refuse_less(caller: Caller, then: Principal) -> None:
    now = caller.principal
    if not covers(now, then):
        raise PermissionDeniedError(
            "You may do less now than when a request with this Idempotency-Key was answered. To ask"
            " anew, use a new key.",
            required_permissions=sorted(then.permissions),
            current_permissions=sorted(now.permissions),
        )
