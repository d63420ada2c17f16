"""The shares, by whom they reach. Published whole, never edited; requests only look up."""

from collections.abc import Iterable, Sequence

from prsmd.domain.access import ModelRef, Principal
from prsmd.domain.quota import Share


class Lending:
    """All shares and the names of the models that they are of."""

    def __init__(self, shares: Iterable[tuple[Share, ModelRef]] = ()) -> None:
        self._of_organizations: dict[str, _Borrower] = {}
        self._of_keys: dict[str, _Borrower] = {}  # by principals' ids
        for share, model in shares:
            for name in share.organizations:
                self._of_organizations.setdefault(name, _Borrower()).add(share, model)
            for key in share.keys:
                self._of_keys.setdefault(f"key:{key}", _Borrower()).add(share, model)

    def of(self, principal: Principal, deployment_id: str, now: float) -> Sequence[Share]:
        """Return the shares of a deployment that reach a principal and are in force at `now`.

        One that was given to its very key goes before one given to its organization.
        """
        found = self._everything(principal, deployment_id)
        for share in found:
            if share.expires_at is not None and share.expires_at <= now:
                return [share for share in found if share.in_force(now)]
        return found

    def named(self, principal: Principal, model: str) -> Sequence[str]:
        """Return the deployments of that id, model id or name that were lent to a principal."""
        key = self._of_keys.get(principal.id)
        organization = self._of_organizations.get(principal.organization)
        by_key = () if key is None else key.named.get(model, ())
        by_organization = () if organization is None else organization.named.get(model, ())
        return (*by_key, *by_organization) if by_key else by_organization

    def _everything(self, principal: Principal, deployment_id: str) -> tuple[Share, ...]:
        key = self._of_keys.get(principal.id)
        organization = self._of_organizations.get(principal.organization)
        by_key = () if key is None else key.shares.get(deployment_id, ())
        by_organization = () if organization is None else organization.shares.get(deployment_id, ())
        return (*by_key, *by_organization) if by_key else by_organization


class _Borrower:
    """What was lent to one organization or key, by deployment, and the names of those."""

    __slots__ = ("named", "shares")

    def __init__(self) -> None:
        self.shares: dict[str, tuple[Share, ...]] = {}
        self.named: dict[str, tuple[str, ...]] = {}

    def add(self, share: Share, model: ModelRef) -> None:
        """Note a share of a model."""
        place = model.deployment_id
        self.shares[place] = (*self.shares.get(place, ()), share)
        for name in {place, model.model_id, model.model_name}:
            known = self.named.get(name, ())
            if place not in known:
                self.named[name] = (*known, place)
