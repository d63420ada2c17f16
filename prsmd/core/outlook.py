"""Says what a deployment without a ready replica waits for, and whether waiting can help.

The words are those of the holds and causes, unchanged; nothing is decided from them.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from prsmd.core.backoff import ended_by_slot, failures
from prsmd.core.plan import DesiredDeployment, Hold
from prsmd.core.sight import Sight
from prsmd.core.slots import Layout
from prsmd.domain.replica import ExitKind, Replica, ReplicaState

HOPELESS_FAILURES = 3  # in a row: one can be chance and two a bad moment


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a request would wait for, in words; `hopeless`: nothing comes without an operator."""

    waiting_for: str
    hopeless: bool


def outlook(
    item: DesiredDeployment, layout: Layout, holds: Sequence[Hold], sight: Sight
) -> Outlook:
    """Return the outlook of a deployment; `holds` may be those of all deployments."""
    coming = (*layout.kept, *layout.older)
    if coming:
        return Outlook(waiting_for=coming_words(coming[0], sight), hopeless=False)
    if not layout.target:
        return Outlook(
            waiting_for="the model is scaled to zero; a replica has to be started", hopeless=False
        )
    mine = holds_of(item, holds)
    if not mine:
        return Outlook(waiting_for="a replica has to be launched", hopeless=False)
    rows = failing_rows(item)
    return Outlook(
        waiting_for=hold_words(mine), hopeless=all(_is_hopeless(hold, rows) for hold in mine)
    )


def holds_of(item: DesiredDeployment, holds: Iterable[Hold]) -> list[Hold]:
    """Return the holds of one deployment."""
    return [hold for hold in holds if hold.deployment_id == item.deployment.id]


def holds_by_deployment(holds: Iterable[Hold]) -> Mapping[str, Sequence[Hold]]:
    """Return the holds by the id of their deployment, in the order given."""
    found: dict[str, list[Hold]] = {}
    for hold in holds:
        found.setdefault(hold.deployment_id, []).append(hold)
    return found


def hold_words(holds: Sequence[Hold]) -> str:
    """Return the reasons with their details; slots held for the same reason share one sentence."""
    slots: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for hold in holds:
        slots.setdefault((hold.reason, hold.details), []).append(str(hold.slot))
    return ". ".join(
        f"slot{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}: {reason}"
        + (f" ({'; '.join(details)})" if details else "")
        for (reason, details), numbers in slots.items()
    )


def coming_words(replica: Replica, sight: Sight) -> str:
    """Return what still keeps a replica from serving."""
    if replica.state is ReplicaState.PENDING:
        return f"replica {replica.id} is being launched (image pull and container start)"
    error = sight.probe(replica).words
    last = f": {error}" if error else ""
    if replica.state is ReplicaState.STARTING:
        return f"replica {replica.id} is starting and not ready yet{last}"
    return f"replica {replica.id} is not ready{last}"


def failing_rows(item: DesiredDeployment) -> Mapping[int, tuple[Replica, ...]]:
    """Return the failures in a row of the current revision by slot, oldest first.

    A slot in which nothing has ended is left out.
    """
    ended = ended_by_slot(item.replicas, item.current_numbers)
    return {slot: failures(replicas) for slot, replicas in ended.items()}


def needs_operator(row: Sequence[Replica]) -> bool:
    """Tell whether a row of failures is not worth waiting on: too long, or there is no image."""
    if not row:
        return False
    newest = row[-1].exit
    no_image = newest is not None and newest.kind is ExitKind.IMAGE_UNAVAILABLE
    return no_image or len(row) >= HOPELESS_FAILURES


def _is_hopeless(hold: Hold, rows: Mapping[int, Sequence[Replica]]) -> bool:
    if hold.kind == "backoff":
        return needs_operator(rows.get(hold.slot, ()))
    return hold.kind == "unplaceable"
