"""The shares, by whom they reach. Published whole, never edited; requests only look up."""

import itertools
from collections.abc import Iterable, Sequence

from prsmd.domain.access import ModelRef, Principal
from prsmd.domain.quota import Share

_NOTHING: Sequence[Share] = ()


class Lending:
    """All shares and the names of the models that they are of."""

    def __init__(self, shares: Iterable[tuple[Share, ModelRef]] = ()) -> None:
        self._reaching: dict[tuple[str, str], tuple[Share, ...]] = {}
        self._names: dict[tuple[str, str], tuple[str, ...]] = {}
        for share, model in shares:
            for borrower in _borrowers(share):
                place = (borrower, model.deployment_id)
                self._reaching[place] = (*self._reaching.get(place, ()), share)
                for name in {model.deployment_id, model.model_id, model.model_name}:
                    _note(self._names, (borrower, name), model.deployment_id)

    def of(self, principal: Principal, deployment_id: str, now: float) -> Sequence[Share]:
        """Return the shares of a deployment that reach a principal and are in force at `now`.

        One that was given to its very key goes before one given to its organization.
        """
        by_key = self._reaching.get((principal.id, deployment_id))
        by_organization = self._reaching.get((_named(principal), deployment_id))
        if by_key is None and by_organization is None:
            return _NOTHING
        both = itertools.chain(by_key or (), by_organization or ())
        return [share for share in both if share.in_force(now)]

    def named(self, principal: Principal, model: str) -> Sequence[str]:
        """Return the deployments of that id, model id or name that were lent to a principal."""
        by_key = self._names.get((principal.id, model), ())
        return (*by_key, *self._names.get((_named(principal), model), ()))


def _borrowers(share: Share) -> list[str]:
    """Return whom it reaches, as principals are looked up: keys by their whole id."""
    return [f"key:{key}" for key in share.keys] + [f"org:{each}" for each in share.organizations]


def _named(principal: Principal) -> str:
    return f"org:{principal.organization}"


def _note(names: dict[tuple[str, str], tuple[str, ...]], key: tuple[str, str], value: str) -> None:
    known = names.get(key, ())
    if value not in known:
        names[key] = (*known, value)
