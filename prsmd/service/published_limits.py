"""The organizations' limits in memory, for what is counted there: open connections.

Published in the order of the commits; whoever counts only looks up.
"""

from collections.abc import Callable, Mapping

from prsmd.domain.resource_quota import Dimension, Limits
from prsmd.store import organizations, resource_quotas
from prsmd.store.db import Tx


class PublishedLimits:
    """What organizations may have at most. `open_connections` tells how many one has open."""

    def __init__(self) -> None:
        self.open_connections: Callable[[str], int] = lambda _: 0
        self._limits: dict[str, Limits] = {}
        self._defaults: Limits = {}

    async def load(self, tx: Tx) -> None:
        """Take over what is stored."""
        self._defaults = await resource_quotas.limits(tx, "")
        for organization in await organizations.list_all(tx):
            self.put(organization.id, await resource_quotas.limits(tx, organization.id))

    def put(self, organization: str, limits: Limits) -> None:
        """Publish an organization's limits as they are now."""
        self._limits[organization] = limits

    def hard(self, organization: str, dimension: Dimension) -> int | None:
        """Return one limit; None: unlimited. A new organization has the defaults."""
        limit = self._limits.get(organization, self._defaults).get(dimension)
        return None if limit is None else limit.hard

    def used(self, organization: str) -> Mapping[Dimension, int]:
        """Return what is counted in memory."""
        return {Dimension.CONNECTIONS: self.open_connections(organization)}
