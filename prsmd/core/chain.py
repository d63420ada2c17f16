"""The hash chain of an audit log: what of a record is hashed, how records link, what is signed.

Decides whether records that are said to follow each other do, and which is the first that does not.
Reads and signs nothing itself. docs/decisions/0017-audit-chain.md says why it is made so.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from prsmd.domain.events import AuditRecord

GENESIS = "0" * 64  # the hash before the first record
CHECKPOINT = "checkpoint"
ANCHOR = "anchor"
_LINK = b"prsmd audit link 1\n"
_SIGNED = b"prsmd audit signature 1\n"


class ProblemKind(enum.StrEnum):
    """What is wrong with a log."""

    ALTERED = "altered"
    MISSING = "missing"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    FORGED = "forged"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first thing that is wrong. `sequence` is the record it is about, or where one should be.

    `line` counts from 1 in an export (None: this is no export).
    """

    kind: ProblemKind
    sequence: int
    message: str
    line: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """A place in the chain: the last record up to there and its hash."""

    sequence: int = 0
    hash: str = GENESIS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verification found; no `problem`: the log is whole.

    `first` and `last` are the records that were looked at (last < first: none), `foreign` how many
    of them only as digests. `proven` is the last record that a signature vouches for.
    """

    log: str
    first: int
    last: int
    head: str
    records: int
    foreign: int
    checkpoints: int
    proven: int
    problem: Problem | None = None


def canonical(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted names, no spaces, ASCII.

    Raises:
        ValueError: JSON cannot hold it.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def content_of(record: AuditRecord) -> dict[str, Any]:
    """Return what of a stored record is hashed, and handed over in an export.

    Without an address the text has none, as in releases that did not note it: what they wrote
    still has its hash, and no two records have the same text.
    """
    content = {
        "sequence": record.sequence,
        "at": record.at,
        "principal": record.principal,
        "organization": record.organization,
        "action": record.action,
        "subject": record.subject,
        "outcome": record.outcome,
        "request_id": record.request_id,
        "details": record.details,
        "salt": record.salt,
    }
    return {**content, "address": record.address} if record.address else content


def text_of(record: AuditRecord) -> bytes:
    """Return a stored record's canonical text; empty for what nobody ever appended."""
    try:
        return canonical(content_of(record))
    except ValueError:
        return b""


def digest_of(content: bytes) -> str:
    """Return the digest of a record's canonical text; its salt keeps it from being guessed."""
    return hashlib.sha256(content).hexdigest()


def link(log: str, sequence: int, previous: str, digest: str) -> str:
    """Return the hash of the record of this digest that follows the one of hash `previous`."""
    return hashlib.sha256(_LINK + f"{log}\n{sequence}\n{previous}\n{digest}".encode()).hexdigest()


def signed_text(statement: Mapping[str, Any]) -> bytes:
    """Return what the `signature` of a statement signs: everything else that it says."""
    return _SIGNED + canonical({k: v for k, v in statement.items() if k != "signature"})


def start_head(start: Mapping[str, Any] | None) -> Head:
    """Return the place that the statement of a log's beginning names; None: the very first."""
    return Head() if start is None else Head(int(start["sequence"]), str(start["hash"]))


class Walk:
    """Goes along a chain from `start`, record by record.

    `commitments` are hashes by sequence that others vouch for, copies of checkpoints that are kept
    elsewhere, say. `size` is the bytes of the records so far. After the first problem it goes no
    further.
    """

    def __init__(self, log: str, start: Head, commitments: Mapping[int, str] | None = None) -> None:
        self.log = log
        self.start = start
        self.at = start
        self.proven = start.sequence
        self.size = 0
        self._commitments = commitments or {}

    def take(self, record: AuditRecord) -> Problem | None:
        """Go on to a stored record."""
        text = text_of(record)
        problem = self.step(record.sequence, digest_of(text), record.hash)
        if problem is None and record.size != len(text):
            words = f"what is noted as the size of record {record.sequence} was altered"
            return self._problem(ProblemKind.ALTERED, words, record.sequence)
        self.size += record.size
        return problem

    def step(self, sequence: int, digest: str, stored: str) -> Problem | None:
        """Go on to a record whose stored hash is `stored`."""
        expected = self.at.sequence + 1
        if sequence > expected:
            return self._problem(ProblemKind.MISSING, f"record {expected} is missing", expected)
        if sequence < expected:
            words = f"record {sequence} stands where {expected} should"
            return self._problem(ProblemKind.REORDERED, words, expected)
        if link(self.log, sequence, self.at.hash, digest) != stored:
            return self._problem(ProblemKind.ALTERED, f"record {sequence} was altered", sequence)
        self.at = Head(sequence, stored)
        promised = self._commitments.get(sequence)
        return None if promised is None else self.committed(Head(sequence, promised))

    def committed(self, to: Head) -> Problem | None:
        """Compare the place where the walk is with what was vouched for."""
        if to == self.at:
            self.proven = to.sequence
            return None
        if to.sequence > self.at.sequence:
            expected = self.at.sequence + 1
            words = f"record {expected} is missing, and all up to {to.sequence}"
            return self._problem(ProblemKind.MISSING, words, expected)
        if to.sequence < self.at.sequence:
            words = f"a checkpoint of record {to.sequence} stands after {self.at.sequence}"
            return self._problem(ProblemKind.REORDERED, words, to.sequence)
        words = (
            f"records {self.proven + 1} to {to.sequence} link, but are not those that were signed"
        )
        return self._problem(ProblemKind.ALTERED, words, self.proven + 1)

    def _problem(self, kind: ProblemKind, message: str, sequence: int) -> Problem:
        return Problem(kind=kind, sequence=sequence, message=message)
