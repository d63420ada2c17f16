"""The client's noun for sharing: who may use a model of yours, how much, and who did."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from . import share_calls
from .aio import AsyncTransport
from .share_calls import DayUsage, Share
from .wire import Page

_AT_ONCE = 100


class Shares:
    """The shares of the organization's models, and their use."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        model: str,
        permissions: Sequence[str],
        borrowers: Mapping[str, Sequence[str]],
        usage_limits: Mapping[str, int] | None = None,
        expires_at: str | None = None,
    ) -> Share:
        """Lend a model for `read`, `infer`, `logs`, `usage`.

        Args:
            model: Its id or name.
            permissions: What it is lent for.
            borrowers: `{"organizations": […]}`, or `{"keys": […]}` with the ids of keys.
            usage_limits: For each borrower: requests_per_day, total_requests,
                requests_per_minute, concurrent_requests.
            expires_at: A time in RFC 3339; by default never.
        """
        call = share_calls.share(model, permissions, borrowers, usage_limits, expires_at)
        return await self._transport.send(call)

    async def list(self, model: str, limit: int = 20, offset: int = 0) -> Page[Share]:
        """List the shares of a model, oldest first, with what is left of each."""
        return await self._transport.send(share_calls.list_shares(model, limit, offset))

    async def change(self, model: str, share_id: str, **changes: Any) -> Share:
        """Change permissions, borrowers, limits (one by one) or end; None lifts a bound."""
        return await self._transport.send(share_calls.change_share(model, share_id, changes))

    async def revoke(self, model: str, share_id: str) -> Share:
        """Take a model back, from the next request on."""
        return await self._transport.send(share_calls.revoke_share(model, share_id))

    async def usage(
        self, model: str, first: str | None = None, last: str | None = None
    ) -> AsyncIterator[DayUsage]:
        """Yield who used a model on which day and how much, newest first; by default 30 days."""
        offset, more = 0, True
        while more:
            call = share_calls.usage(model, first, last, _AT_ONCE, offset)
            page = await self._transport.send(call)
            for row in page:
                yield row
            offset, more = offset + len(page), page.has_more
