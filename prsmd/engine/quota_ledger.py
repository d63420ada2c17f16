"""The books of resource quotas as one transaction sees them, and the refusal of what is beyond.

Whoever writes something that counts asks here first, in the same transaction.
"""

import dataclasses
import time
from collections.abc import Iterable, Mapping

from prsmd.core.quota_admission import Excess, admit, growth, needs_of
from prsmd.domain.errors import ResourceQuotaExceededError
from prsmd.domain.resource_quota import (
    COMPUTE,
    SUMMED,
    Amounts,
    Dimension,
    Limits,
    format_amount,
)
from prsmd.domain.spec import Needs
from prsmd.store import resource_quotas
from prsmd.store.db import Tx

_RETRY_SECONDS = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one model asks for: how many replicas, of which revisions (see `needs_of`)."""

    replicas: int
    needs: tuple[Needs, ...]

    @property
    def current(self) -> int:
        """How many replicas the wanted revision comes to within its bounds: the last of `needs`."""
        scaling = self.needs[-1].scaling
        return max(scaling.min_replicas, min(self.replicas, scaling.max_replicas))

    @property
    def amounts(self) -> Amounts:
        """What that comes to."""
        return needs_of(self.needs, self.replicas)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """An organization's limits, and what its models ask for by deployment id."""

    limits: Limits
    wanted: Mapping[str, Wanted]

    @property
    def asked(self) -> Amounts:
        """What all its models ask for together."""
        return self.asked_beside("")

    def asked_beside(self, deployment_id: str) -> Amounts:
        """What all its models but one ask for together."""
        others = [one.amounts for id_, one in self.wanted.items() if id_ != deployment_id]
        return {name: sum(amounts[name] for amounts in others) for name in COMPUTE}


async def read_book(tx: Tx, organization: str) -> Book:
    """Return what models may ask for, and what they do."""
    found = await resource_quotas.needs(tx, organization)
    return Book(
        limits=await resource_quotas.limits(tx, organization),
        wanted={id_: Wanted(replicas=count, needs=needs) for id_, (count, needs) in found.items()},
    )


async def used(
    tx: Tx, organization: str, dimensions: Iterable[Dimension] = SUMMED
) -> dict[Dimension, int]:
    """Return what an organization has of these."""
    wished = set(dimensions)
    found = await resource_quotas.counted(tx, organization, wished, time.time())
    if wished & set(COMPUTE):
        asked = (await read_book(tx, organization)).asked
        found |= {name: asked[name] for name in COMPUTE if name in wished}
    return found


async def refuse_more(tx: Tx, organization: str, more: Amounts) -> None:
    """Return if the organization may have so much more. ResourceQuotaExceededError where not."""
    limits = await resource_quotas.limits(tx, organization)
    there = await used(tx, organization, (name for name, amount in more.items() if amount > 0))
    _refuse(organization, admit(limits, there, more))


async def refuse_one_more(tx: Tx, organization: str, dimension: Dimension) -> None:
    """Return if the organization may have one more of these."""
    await refuse_more(tx, organization, {dimension: 1})


async def refuse_model(
    tx: Tx, organization: str, deployment_id: str, wanted: Wanted, *, new: bool = False
) -> None:
    """Return if a model may ask for this in place of what it asks for now; `new`: for the first.

    Raises:
        ResourceQuotaExceededError: a limit would be exceeded, and it asks for more than before.
    """
    book = await read_book(tx, organization)
    before = book.wanted.get(deployment_id)
    more = growth({} if before is None else before.amounts, wanted.amounts)
    excesses = admit(book.limits, book.asked, more)
    if new:
        there = await used(tx, organization, (Dimension.MODELS,))
        excesses = (*admit(book.limits, there, {Dimension.MODELS: 1}), *excesses)
    _refuse(organization, excesses)


def _refuse(organization: str, excesses: tuple[Excess, ...]) -> None:
    if not excesses:
        return
    first = excesses[0]
    what = "; ".join(one.words for one in excesses)
    raise ResourceQuotaExceededError(
        f"The quota of organization {organization} does not allow it: {what}. {_hint(excesses)},"
        " or ask an administrator for a higher quota (`prsmctl org quota` shows all of it).",
        limit_type=first.dimension.value,
        organization=organization,
        used=format_amount(first.dimension, first.used),
        requested=format_amount(first.dimension, first.asked),
        limit=format_amount(first.dimension, first.hard),
        exceeded=[_told(one) for one in excesses],
        reset_time=None,
        retry_after_seconds=_RETRY_SECONDS,
        permanent=True,  # waiting alone does not help
    )


def _hint(excesses: tuple[Excess, ...]) -> str:
    hints = list(dict.fromkeys(one.hint for one in excesses))
    words = " and ".join(hints)
    return words[:1].upper() + words[1:]


def _told(one: Excess) -> dict[str, str | int]:
    return {
        "limit_type": one.dimension.value,
        "used": format_amount(one.dimension, one.used),
        "requested": format_amount(one.dimension, one.asked),
        "limit": format_amount(one.dimension, one.hard),
    }
