"""Decides how long a slot stays empty after its replicas failed. Knows only ended replicas."""

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence

from prsmd.domain.replica import Replica, ReplicaState

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 300.0
JITTER = 0.2  # so that replicas which failed together do not come back together
PROVEN_AFTER_SECONDS = 600.0  # what served this long was good: its end begins a new count


def retry_at(ended: Sequence[Replica]) -> float | None:
    """Return the epoch second from which the slot may be filled again; None: at once.

    `ended` are the ended replicas of one slot of one revision, newest last. The delay is 1 s,
    doubled for each further failure in a row, at most 300 s, and then up to 20 % less or more.
    """
    streak = failures(ended)
    if not streak:
        return None
    newest = streak[-1]
    delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(len(streak) - 1, 30), LONGEST_DELAY_SECONDS)
    return _ended_at(newest) + delay * (1 + JITTER * _spread(newest.id))


def waits_until(ended: Sequence[Replica], now: float) -> float | None:
    """Return when the wait that holds the slot at `now` is over; None when it may be filled.

    A wait longer than any delay can be means that the clock was set back: it is not waited for.
    """
    until = retry_at(ended)
    if until is None or until <= now or until - now > LONGEST_DELAY_SECONDS * (1 + JITTER):
        return None
    return until


def failures(ended: Sequence[Replica]) -> tuple[Replica, ...]:
    """Return the failures in a row that count, oldest first.

    Replicas that were told to stop say nothing about the model and are passed over. One that had
    served for more than ten minutes ends the row: what came before it is forgotten.
    """
    row: list[Replica] = []
    for replica in reversed(ended):
        if replica.state is ReplicaState.FAILED:
            row.append(replica)
        if _proven(replica):
            break
    return tuple(reversed(row))


def ended_by_slot(
    replicas: Iterable[Replica], revisions: Container[int]
) -> Mapping[int, list[Replica]]:
    """Return the ended replicas of these revisions by slot, each slot's in the order given."""
    ended: dict[int, list[Replica]] = {}
    for replica in replicas:
        if not replica.active and replica.revision in revisions:
            ended.setdefault(replica.slot, []).append(replica)
    return ended


def _proven(replica: Replica) -> bool:
    if replica.ready_at is None:
        return False
    return _ended_at(replica) - replica.ready_at > PROVEN_AFTER_SECONDS


def _ended_at(replica: Replica) -> float:
    return replica.created_at if replica.finished_at is None else replica.finished_at


def _spread(text: str) -> float:
    """Return a number in [-1, 1] that is always the same for one replica."""
    digest = hashlib.blake2s(text.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / (2**32 - 1) * 2 - 1
