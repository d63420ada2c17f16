"""The shares, by whom they reach. A value that is published; requests only look up.

A change of one share costs in proportion to the borrowers that come or go, however many shares
there are.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from prsmd.core.persistent_map import PersistentMap
from prsmd.domain.access import ModelRef, Principal
from prsmd.domain.quota import Share

_Ids = tuple[str, ...]
_Reach = tuple[str, str]  # a borrower, and what it asks for


@dataclasses.dataclass(frozen=True, slots=True)
class Lending:
    """All shares and the names of the models that they are of.

    A borrower is an organization's name, or a key's principal id, which has a colon.
    """

    _shares: PersistentMap[str, tuple[Share, ModelRef]]
    _reaching: PersistentMap[_Reach, _Ids]  # ids of shares by deployment
    _named: PersistentMap[_Reach, _Ids]  # ids of deployments by model id or name

    @classmethod
    def of_all(cls, shares: Iterable[tuple[Share, ModelRef]]) -> "Lending":
        """Return the table of these shares, the oldest first."""
        known: dict[str, tuple[Share, ModelRef]] = {}
        reaching: dict[_Reach, _Ids] = {}
        named: dict[_Reach, _Ids] = {}
        for share, model in shares:
            known[share.id] = (share, model)
            one, place = (share.id,), (model.deployment_id,)
            for borrower in _borrowers(share):
                _add(reaching, (borrower, model.deployment_id), one)
                for name in _names(model):
                    _add(named, (borrower, name), place)
        return cls(PersistentMap(known), PersistentMap(reaching), PersistentMap(named))

    def share(self, share_id: str) -> Share | None:
        """Return a share, or None."""
        known = self._shares.get(share_id)
        return None if known is None else known[0]

    def put(self, share: Share, model: ModelRef) -> "Lending":
        """Return these shares with one as it is now."""
        known = self.share(share.id)
        before = frozenset() if known is None else _borrowers(known)
        after = _borrowers(share)
        reaching, named = self._without(share.id, model, before - after)
        one, place = (share.id,), (model.deployment_id,)
        for borrower in after - before:
            at = (borrower, model.deployment_id)
            reaching[at] = _joined(self._reaching.get(at), one)
            for name in _names(model):
                named[borrower, name] = _joined(self._named.get((borrower, name)), place)
        return self._changed({share.id: (share, model)}, reaching, named)

    def drop(self, share_id: str) -> "Lending":
        """Return these shares without one, which there need not be."""
        known = self._shares.get(share_id)
        if known is None:
            return self
        share, model = known
        return self._changed({share_id: None}, *self._without(share_id, model, _borrowers(share)))

    def of(self, principal: Principal, deployment_id: str, now: float) -> Sequence[Share]:
        """Return the shares of a deployment that reach a principal and are in force at `now`.

        One that was given to its very key goes before one given to its organization.
        """
        by_key = self._reaching.get((principal.id, deployment_id)) or ()
        by_organization = self._reaching.get((principal.organization, deployment_id)) or ()
        found = map(self.share, by_key + by_organization)
        return [share for share in found if share is not None and share.in_force(now)]

    def named(self, principal: Principal, model: str) -> Sequence[str]:
        """Return the deployments of that id, model id or name that were lent to a principal."""
        return self._named_to(principal.id, model) + self._named_to(principal.organization, model)

    def _named_to(self, borrower: str, model: str) -> _Ids:
        by_name = self._named.get((borrower, model)) or ()
        return by_name if self._reaching.get((borrower, model)) is None else (*by_name, model)

    def _without(
        self, share_id: str, model: ModelRef, borrowers: Iterable[str]
    ) -> tuple[dict[_Reach, _Ids | None], dict[_Reach, _Ids | None]]:
        """Return what changes where a share reaches some borrowers no more."""
        reaching: dict[_Reach, _Ids | None] = {}
        named: dict[_Reach, _Ids | None] = {}
        for borrower in borrowers:
            at = (borrower, model.deployment_id)
            reaching[at] = _without(self._reaching.get(at), share_id)
            if reaching[at] is None:
                for name in _names(model):
                    known = self._named.get((borrower, name))
                    named[borrower, name] = _without(known, model.deployment_id)
        return reaching, named

    def _changed(
        self,
        shares: dict[str, tuple[Share, ModelRef] | None],
        reaching: dict[_Reach, _Ids | None],
        named: dict[_Reach, _Ids | None],
    ) -> "Lending":
        return Lending(
            self._shares.changed(shares),
            self._reaching.changed(reaching),
            self._named.changed(named),
        )


def _borrowers(share: Share) -> frozenset[str]:
    return share.organizations.union(f"key:{key}" for key in share.keys)


def _names(model: ModelRef) -> set[str]:
    """Return what a model is called beside its deployment's id."""
    return {model.model_id, model.model_name} - {model.deployment_id}


def _add(known: dict[_Reach, _Ids], at: _Reach, one: _Ids) -> None:
    known[at] = _joined(known.get(at), one)


def _joined(known: _Ids | None, one: _Ids) -> _Ids:
    if known is None:
        return one
    return known if one[0] in known else known + one


def _without(known: _Ids | None, one: str) -> _Ids | None:
    return tuple(each for each in known or () if each != one) or None
