"""Idempotency keys: what a request asks for is done once; repeating it gets the first answer again.

To use it, a use case ends its write transaction with `await caller.remember(tx, result)`, and the
operation's row in the route table says `answer=` which `Answer` a result is. Dry runs do neither.

The answer is stored with what it answers or not at all: a duplicate that comes at the same time is
rolled back as a whole. Refusals are not stored, for they changed nothing. Beside it is kept what
the caller might do then; to whom it is given again is decided by that (service/answers.py).
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from prsmd.domain.access import Permission, Principal
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.quota_ledger import refuse_more
from prsmd.store import idempotency
from prsmd.store.db import Tx
from prsmd.store.idempotency import Remembered


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

    async def remember(self, tx: Tx, principal: Principal, result: object) -> None:
        """Make the answer of the result, and store it under the principal's key if there is one.

        Raises:
            AlreadyRememberedError: a request with this key came first.
            ResourceQuotaExceededError: the organization has had as much remembered as it may.
        """
        answer = self._render(result)
        if self.key is not None:
            body = json.dumps({**answer.body, **answer.repeated}, ensure_ascii=False)
            remembered = Remembered(
                principal=principal.id,
                key=self.key,
                fingerprint=self.fingerprint,
                status=answer.status,
                headers=answer.headers,
                body=body,
                created_at=time.time(),
                grounds=grounds_of(principal),
                organization=principal.organization,
            )
            more = {Dimension.ANSWER_BYTES: remembered.size_bytes}
            await refuse_more(tx, principal.organization, more)
            await idempotency.add(tx, remembered)
        self.answer = answer


def grounds_of(principal: Principal) -> str:
    """Return what a principal may do, as it is stored with an answer."""
    held = principal.only_models
    told = {
        "organization": principal.organization,
        "role": principal.role,
        "permissions": sorted(principal.permissions),
        "on_models": {name: sorted(granted) for name, granted in principal.on_models.items()},
        "only_models": None if held is None else sorted(held),
    }
    return json.dumps(told)


def asker_of(remembered: Remembered) -> Principal:
    """Return who was told a stored answer, with what they might do then."""
    told = json.loads(remembered.grounds)
    held, on_models = told["only_models"], told["on_models"]
    return Principal(
        id=remembered.principal,
        organization=told["organization"],
        role=told["role"],
        permissions=frozenset(map(Permission, told["permissions"])),
        on_models={n: frozenset(map(Permission, granted)) for n, granted in on_models.items()},
        only_models=None if held is None else frozenset(held),
    )
