"""What vouches for a log beside its own tables: the checkpoint file, former keys, a kept copy."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

from prsmd.core.chain import ANCHOR, CHECKPOINT, Head, Problem, ProblemKind
from prsmd.engine.audit_log import AuditLog
from prsmd.engine.notary import Notary
from prsmd.store import attestations
from prsmd.store.attestations import Checkpoint

_SLICE = 50  # signatures checked in one go: a few milliseconds
_FILE = "audit-checkpoints.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class Promised:
    """Hashes by sequence that the log must have, and what is wrong with the file that says so."""

    places: Mapping[int, str]
    problem: Problem | None = None

    def beyond(self, last: int) -> Problem | None:
        """Return what is wrong with a log that ends at `last`, before a place that is known."""
        most = max(self.places, default=0)
        if most <= last:
            return None
        words = f"record {last + 1} is missing, and all up to {most}, of which a copy is known"
        return Problem(kind=ProblemKind.TRUNCATED, sequence=last + 1, message=words)


async def witnesses(
    notary: Notary, audited: AuditLog, start: Head, kept: Head | None = None
) -> Promised:
    """Return what vouches for the records after `start`.

    A `kept` place at or before the start cannot be compared with anything but the start itself.
    """
    async with audited.database.read() as tx:
        stored = await attestations.checkpoints(tx, start.sequence, 2**62, audited.table)
    filed = await notary.filed(audited)
    said = [each for each in await notary.statements() if each.get("log") == audited.name]
    own = [each for each in said if each["instance"] == notary.instance]
    places, problem = await _extra(notary, own, start, stored)
    promised = {**places, **notary.keys.commitments(audited.name)}
    promised = {at: name for at, name in promised.items() if at > start.sequence}
    problem = problem or _other_instance(notary, said, own) or _gap(notary, own, stored, filed)
    if kept is not None and kept.sequence > start.sequence:
        promised[kept.sequence] = kept.hash
    elif kept is not None and kept.sequence == start.sequence and kept.hash != start.hash:
        words = f"the log begins after another record {kept.sequence} than the one that is known"
        problem = Problem(kind=ProblemKind.ALTERED, sequence=kept.sequence, message=words)
    return Promised(promised, problem)


async def _extra(
    notary: Notary,
    own: list[Mapping[str, Any]],
    start: Head,
    stored: list[Checkpoint],
) -> tuple[dict[int, str], Problem | None]:
    """Return the places of the file's checkpoints that the log itself has not, and the forged."""
    known = {(each.sequence, each.hash, each.signature) for each in stored}
    places: dict[int, str] = {}
    for number, said in enumerate(own):
        if said.get("kind") != CHECKPOINT:
            continue
        sequence, hashed = _sequence_of(said), said.get("hash")
        if sequence <= start.sequence or (sequence, hashed, said.get("signature")) in known:
            continue
        if not notary.trusts(said):
            words = f"{_FILE} has a checkpoint of record {sequence} that no trusted key signed"
            return places, Problem(kind=ProblemKind.FORGED, sequence=sequence, message=words)
        places[sequence] = str(hashed)
        if number % _SLICE == 0:
            await asyncio.sleep(0)
    return places, None


def _other_instance(
    notary: Notary, said: list[Mapping[str, Any]], own: list[Mapping[str, Any]]
) -> Problem | None:
    """Return that the file is another instance's, whose log was this daemon's."""
    others = {each["instance"] for each in said if notary.keys.trusts(each)} - {notary.instance}
    if own or not others:
        return None
    words = f"{_FILE} is of {', '.join(sorted(others))[:200]}, the log of {notary.instance}"
    return Problem(kind=ProblemKind.FORGED, sequence=1, message=words)


def _gap(
    notary: Notary,
    own: list[Mapping[str, Any]],
    stored: list[Checkpoint],
    filed: Checkpoint | None,
) -> Problem | None:
    """Return the first checkpoint that was filed and is not in the file any more.

    The newest of the log may be on its way there, and while the file cannot be written, more.
    """
    if not notary.signing:
        return None
    there = {_sequence_of(each) for each in own if each.get("kind") == CHECKPOINT}
    through = 0 if filed is None else filed.sequence
    first = min(there, default=0)  # what is older was in a file that has made room
    missing = [each.sequence for each in stored if first <= each.sequence <= through]
    missing = [at for at in missing if at not in there]
    named = [each.get("checkpoint") for each in own if each.get("kind") == ANCHOR]
    missing += [at for at in map(_sequence_of, named) if at > max(there, default=0)]
    if through and through not in there:
        missing.append(through)
    if not missing:
        return None
    at = min(missing)
    words = f"the checkpoint of record {at} was filed and is not in {_FILE} any more"
    return Problem(kind=ProblemKind.MISSING, sequence=at, message=words)


def _sequence_of(place: Any) -> int:
    found = place.get("sequence") if isinstance(place, Mapping) else 0
    return found if isinstance(found, int) else 0
