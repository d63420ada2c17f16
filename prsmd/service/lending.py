"""The shares in memory: whom they reach on the data path, and the meters of their limits.

Published anew as a share changes; a request only looks up. Whoever writes a change has the store
publish it by `put` and `drop` as it is committed (`then` of `Database.write`). That is in the order
of the commits, so that no tenant's changes wait for another's.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from prsmd.core.lending import Lending
from prsmd.core.meter import Refuse, Standing
from prsmd.domain.access import ModelRef, Principal
from prsmd.domain.errors import PrsmdError, QuotaExceededError, RateLimitedError
from prsmd.domain.quota import Share
from prsmd.gateway.meters import Held, Meters

_QUOTAS = frozenset({"requests_per_day", "total_requests"})
_WORDS = {
    "requests_per_day": "requests per day",
    "total_requests": "requests in all",
    "requests_per_minute": "requests per minute",
    "concurrent_requests": "requests at once",
}


class Lendings:
    """The published table of shares. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        meters: Meters,
        shares: Iterable[tuple[Share, ModelRef]] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._meters = meters
        self._clock = clock
        known = list(shares)
        self._table = Lending.of_all(known)
        self._of_models: dict[str, set[str]] = {}  # ids of shares by deployment
        for share, _ in known:
            self._of_models.setdefault(share.deployment_id, set()).add(share.id)

    def __len__(self) -> int:
        """Return how many shares there are."""
        return sum(map(len, self._of_models.values()))

    def of(self, principal: Principal, deployment_id: str) -> Sequence[Share]:
        """Return the shares in force of a deployment that reach a principal."""
        return self._table.of(principal, deployment_id, self._clock())

    def named(self, principal: Principal, model: str) -> Sequence[str]:
        """Return the deployments with this id, model id or model name that were ever lent to it."""
        return self._table.named(principal, model)

    def holds(self, share: Share) -> bool:
        """Tell whether a share is still as it was, and in force."""
        return self._table.share(share.id) is share and share.in_force(self._clock())

    async def admit(self, share: Share, principal: Principal) -> Held | None:
        """Count a request in the limits of a share; None: it has none.

        Raises:
            QuotaExceededError, RateLimitedError: a limit is reached; nothing was counted.
            ResourceUnavailableError: the store could not be asked in time.
        """
        if not share.limits.bounded:
            return None
        return await self._meters.admit(share.account(principal), share.limits, _limited)

    def standings(self, share: Share, account: str, reserved: Mapping[int, int]) -> list[Standing]:
        """Return what is left of an account; `reserved` is what the store has set aside, by day."""
        now = self._clock()
        meter = self._meters.view(account, share.limits)
        for window in meter.arranged(now):
            if not window.known:
                stored = reserved.get(window.day, 0)
                window.learn(stored, stored)
        return meter.standings(now)

    def put(self, share: Share, model: ModelRef) -> None:
        """Publish a share as it is now."""
        self._of_models.setdefault(share.deployment_id, set()).add(share.id)
        self._table = self._table.put(share, model)

    def drop(self, share: Share) -> None:
        """Publish that a share is no more."""
        known = self._of_models.get(share.deployment_id, set())
        known.discard(share.id)
        if not known:
            self._of_models.pop(share.deployment_id, None)
        self._table = self._table.drop(share.id)

    async def drop_model(self, deployment_id: str) -> None:
        """Publish that the shares of a model are no more: the model was removed from the store.

        Every change of them was committed, and so published, before. Others have their turn
        between any two shares.
        """
        for share_id in self._of_models.pop(deployment_id, set()):
            self._table = self._table.drop(share_id)
            await asyncio.sleep(0)


def _limited(refusal: Refuse) -> PrsmdError:
    kind = QuotaExceededError if refusal.limit_type in _QUOTAS else RateLimitedError
    what = f"{refusal.limit} {_WORDS[refusal.limit_type]}"
    return kind(
        f"This share allows {what}, and they are used up.",
        limit_type=refusal.limit_type,
        limit=refusal.limit,
        reset_time=refusal.reset_time,
        retry_after_seconds=refusal.retry_after_seconds,
    )
