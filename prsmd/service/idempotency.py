"""Idempotency keys: what a request asks for is done once; repeating it gets the first answer again.

To use it, a use case ends its write transaction with `await caller.remember(tx, result)`, and the
operation's row in the route table says `answer=` which `Answer` a result is. Dry runs do neither.

The answer is stored with what it answers or not at all: a duplicate that comes at the same time is
rolled back as a whole. Refusals are not stored, for they changed nothing.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from prsmd.domain.errors import ConflictError
from prsmd.store import idempotency
from prsmd.store.db import Database, Tx
from prsmd.store.idempotency import KEPT_SECONDS, Remembered


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client is told of a change.

    The fields of `first` are in the first answer only and are never stored: secrets. Repetitions
    have those of `repeated` in their place.
    """

    body: Mapping[str, Any]
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    first: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    repeated: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Once:
    """One request that changes something; `answer` is there once its transaction has ended well.

    `fingerprint` tells it from other requests with the same `key`. Without a key nothing is stored.
    """

    def __init__(
        self, render: Callable[[Any], Answer], key: str | None = None, fingerprint: str = ""
    ) -> None:
        self.key = key
        self.fingerprint = fingerprint
        self.answer: Answer | None = None
        self._render = render

    async def remember(self, tx: Tx, principal: str, result: object) -> None:
        """Make the answer of the result, and store it under the principal's key if there is one.

        Raises:
            AlreadyRememberedError: a request with this key came first.
        """
        answer = self._render(result)
        if self.key is not None:
            body = json.dumps({**answer.body, **answer.repeated}, ensure_ascii=False)
            remembered = Remembered(
                principal=principal,
                key=self.key,
                fingerprint=self.fingerprint,
                status=answer.status,
                headers=answer.headers,
                body=body,
                created_at=time.time(),
            )
            await idempotency.add(tx, remembered)
        self.answer = answer


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

    async def first(self, principal: str, once: Once) -> Answer | None:
        """Return what the first request with this key was answered within the last day, or None.

        Raises:
            ConflictError: it was another request.
        """
        if once.key is None:
            return None
        async with self._database.read() as tx:
            since = time.time() - KEPT_SECONDS
            found = await idempotency.find(tx, principal, once.key, since)
        if found is None:
            return None
        if found.fingerprint != once.fingerprint:
            raise ConflictError(
                "This Idempotency-Key came with another request in the last 24 hours: its method,"
                " path, query or body differs. Send that request, or use a new key."
            )
        return Answer(body=json.loads(found.body), status=found.status, headers=found.headers)
