"""How many requests a key may make: so many a minute, so many a day (UTC), whatever it asks for."""

from prsmd.core.meter import Refuse
from prsmd.domain.access import Principal
from prsmd.domain.errors import PrsmdError, RateLimitedError
from prsmd.domain.quota import UsageLimits
from prsmd.gateway.meters import Held, Meters
from prsmd.service.directory import Directory


class Throttle:
    """Admits the requests of keys, in the limits that the directory has of them by now."""

    def __init__(self, directory: Directory, meters: Meters) -> None:
        self._directory = directory
        self._meters = meters

    def limits(self, principal: Principal) -> UsageLimits | None:
        """Return the limits of the key that a principal is; None: there are none."""
        key_id = principal.key_id
        key = None if key_id is None else self._directory.key(key_id)
        if key is None or (key.requests_per_minute is None and key.requests_per_day is None):
            return None
        return UsageLimits(
            requests_per_minute=key.requests_per_minute, requests_per_day=key.requests_per_day
        )

    async def admit(self, principal: Principal, limits: UsageLimits) -> Held:
        """Count a request of a key in its limits.

        Raises:
            RateLimitedError: nothing is left; nothing was counted.
            ResourceUnavailableError: the store could not be asked in time.
        """
        return await self._meters.admit(principal.id, limits, _limited)


def _limited(refusal: Refuse) -> PrsmdError:
    words = refusal.limit_type.replace("_", " ")
    seconds = refusal.retry_after_seconds
    return RateLimitedError(
        f"This API key may make {refusal.limit} {words}; the next one passes in {seconds} s.",
        limit_type=refusal.limit_type,
        limit=refusal.limit,
        reset_time=refusal.reset_time,
        retry_after_seconds=seconds,
    )
