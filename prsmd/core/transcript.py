"""An exported audit log, line by line: proves it with nothing but itself and a public key.

A line is one JSON object in canonical form. The first, `export`, says where the log begins; then
come `record`, `foreign` (another organization's record as its digest) and `checkpoint`; the last,
`end`, says how much there was, and of which `export` line it is the end. Statements are signed. A
line in any other form was altered.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from prsmd.core.chain import (
    ANCHOR,
    CHECKPOINT,
    Head,
    Problem,
    ProblemKind,
    Verdict,
    Walk,
    canonical,
    digest_of,
)
from prsmd.core.key_rotation import SignatureCheck, TrustedKeys

FORMAT = 1
EXPORT, RECORD, FOREIGN, END = "export", "record", "foreign", "end"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint of which a copy was kept elsewhere, and whose signature was checked."""

    log: str
    instance: str
    sequence: int
    hash: str
    at: float


class _BadError(Exception):
    """This line is not what it should be."""

    def __init__(self, kind: ProblemKind, message: str, sequence: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.sequence = sequence


class Transcript:
    """Reads an export. `verdict` is final once all lines were fed.

    `kept` are checkpoints of which copies were kept elsewhere. What they vouch for must be in the
    export; what was signed after it was made need not.
    """

    def __init__(self, check: SignatureCheck, kept: Sequence[Kept] = ()) -> None:
        self.instance = ""
        self.organization: str | None = None
        self._keys = TrustedKeys(check)
        self._kept = kept
        self._made_at = 0.0
        self._head_digest = ""
        self._walk: Walk | None = None
        self._counts = dict.fromkeys((RECORD, FOREIGN, CHECKPOINT), 0)
        self._line = 0
        self._ended = False
        self._problem: Problem | None = None

    def feed(self, line: bytes) -> None:
        """Read one line, its newline included."""
        self._line += 1
        if self._problem is not None:
            self._look_for_missing(line)
            return
        try:
            self._problem = self._read(_parsed(line))
        except _BadError as bad:
            sequence = self._expected if bad.sequence is None else bad.sequence
            self._problem = Problem(kind=bad.kind, sequence=sequence, message=str(bad))
        if self._problem is not None:
            self._problem = dataclasses.replace(self._problem, line=self._line)

    def verdict(self) -> Verdict:
        """Return what was found."""
        walk = self._walk or Walk("", Head())
        return Verdict(
            log=walk.log,
            first=walk.start.sequence + 1,
            last=walk.at.sequence,
            head=walk.at.hash,
            records=self._counts[RECORD],
            foreign=self._counts[FOREIGN],
            checkpoints=self._counts[CHECKPOINT],
            proven=walk.proven,
            problem=self._problem or self._cut(),
        )

    @property
    def _expected(self) -> int:
        return 1 if self._walk is None else self._walk.at.sequence + 1

    def _cut(self) -> Problem | None:
        if self._ended:
            return None
        return Problem(
            kind=ProblemKind.TRUNCATED,
            sequence=self._expected,
            message=f"the export has no end: record {self._expected} and what follows may be"
            " missing",
            line=self._line + 1,
        )

    def _read(self, value: dict[str, Any]) -> Problem | None:
        if self._walk is None:
            self._begin(value)
            return None
        if self._ended:
            raise _BadError(ProblemKind.ALTERED, "something follows the end")
        kind = value.get("kind")
        if kind == RECORD:
            return self._step(kind, value.get("record"), value)
        if kind == FOREIGN:
            return self._step(kind, None, value)
        if kind in (CHECKPOINT, END):  # a set refuses some types
            return self._stated(self._walk, str(kind), value)
        raise _BadError(ProblemKind.ALTERED, f"line {self._line} is of no known kind")

    def _begin(self, value: dict[str, Any]) -> None:
        if value.get("kind") != EXPORT or value.get("format") != FORMAT:
            raise _BadError(ProblemKind.TRUNCATED, "the first line is not the head of an export")
        self._refuse_unsigned(value, "the head of the export")
        start, log = value.get("start"), _text(value, "log")
        self._accept(value)
        head = Head()
        if start is not None:
            head = self._start(start, value)
        self.instance, self.organization = _text(value, "instance"), value.get("organization")
        self._made_at, self._head_digest = _time(value, "at"), digest_of(canonical(value))
        self._kept = [k for k in self._kept if (k.log, k.instance) == (log, self.instance)]
        promised = {each.sequence: each.hash for each in reversed(self._kept)}
        self._walk = Walk(log, head, {**promised, **self._keys.commitments(log)})

    def _accept(self, value: dict[str, Any]) -> None:
        """Believe what the present key, which signed this head, says of those before it."""
        said = value.get("successions", [])
        if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
            raise _BadError(ProblemKind.ALTERED, "the successions of keys are no list")
        self._keys.accept(said, _text(value, "instance"))

    def _start(self, start: Any, export: dict[str, Any]) -> Head:
        if not isinstance(start, dict) or start.get("kind") not in {ANCHOR, CHECKPOINT}:
            raise _BadError(ProblemKind.FORGED, "the place where the log begins is not signed")
        self._refuse_unsigned(start, "the place where the log begins")
        if any(start.get(name) != export.get(name) for name in ("log", "instance")):
            raise _BadError(ProblemKind.FORGED, "the log begins at a place of another log")
        return Head(_number(start, "sequence"), _text(start, "hash"))

    def _step(self, kind: str, record: Any, value: dict[str, Any]) -> Problem | None:
        assert self._walk is not None  # noqa: S101 - the head of the export was read
        if kind == RECORD:
            if not isinstance(record, dict):
                raise _BadError(ProblemKind.ALTERED, f"line {self._line} holds no record")
            sequence, digest = _number(record, "sequence"), digest_of(canonical(record))
            if self.organization is not None and record.get("organization") != self.organization:
                raise _BadError(ProblemKind.ALTERED, f"record {sequence} is another organization's")
        else:
            sequence, digest = _number(value, "sequence"), _text(value, "digest")
        problem = self._walk.step(sequence, digest, _text(value, "hash"))
        self._counts[kind] += problem is None
        return problem

    def _stated(self, walk: Walk, kind: str, value: dict[str, Any]) -> Problem | None:
        at = walk.at.sequence  # what an unsigned statement says of its place is worth nothing
        what = "the end" if kind == END else f"the checkpoint after record {at}"
        self._refuse_unsigned(value, what, at)
        if value.get("log") != walk.log or value.get("instance") != self.instance:
            raise _BadError(ProblemKind.FORGED, f"{what} is of another log", at)
        if kind == END and not self._is_own_end(value):
            raise _BadError(ProblemKind.FORGED, "the end is of another export", at)
        problem = walk.committed(Head(_number(value, "sequence"), _text(value, "hash")))
        if problem is not None:
            return problem
        if kind == CHECKPOINT:
            self._counts[CHECKPOINT] += 1
            return None
        self._end(value)
        return self._rolled_back(walk)

    def _is_own_end(self, value: dict[str, Any]) -> bool:
        """Tell whether an end is of the export that began here.

        Earlier releases did not write of which head it is; made before it, it is not of this one.
        """
        if value.get("organization") != self.organization:
            return False
        if EXPORT in value:
            return bool(value[EXPORT] == self._head_digest)
        return _time(value, "at") >= self._made_at

    def _rolled_back(self, walk: Walk) -> Problem | None:
        """Return what is wrong with a log that ends before what was signed before its export."""
        beyond = [k for k in self._kept if k.sequence > walk.at.sequence]
        known = max((k.sequence for k in beyond if k.at < self._made_at), default=None)
        if known is None:
            return None
        first = walk.at.sequence + 1
        words = f"record {first} is missing, and all up to {known}, signed before this export"
        return Problem(kind=ProblemKind.TRUNCATED, sequence=first, message=words)

    def _end(self, value: dict[str, Any]) -> None:
        for name, count in self._counts.items():
            if value.get(f"{name}s") != count:
                raise _BadError(
                    ProblemKind.MISSING,
                    f"{value.get(f'{name}s')} {name} lines were exported, {count} are here",
                )
        self._ended = True

    def _refuse_unsigned(
        self, value: Mapping[str, Any], what: str, sequence: int | None = None
    ) -> None:
        if not self._keys.trusts(value):
            raise _BadError(
                ProblemKind.FORGED, f"{what} is not signed by a key that is trusted", sequence
            )

    def _look_for_missing(self, line: bytes) -> None:
        """Tell a record that stands elsewhere from one that is not there."""
        problem = self._problem
        if problem is None or problem.kind is not ProblemKind.MISSING:
            return
        try:
            value = _parsed(line)
        except _BadError:
            return
        kind = value.get("kind")
        inner = value.get("record") if kind == RECORD else value if kind == FOREIGN else None
        if isinstance(inner, dict) and inner.get("sequence") == problem.sequence:
            self._problem = dataclasses.replace(
                problem,
                kind=ProblemKind.REORDERED,
                message=f"record {problem.sequence} stands after later ones",
            )


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
        plain = isinstance(value, dict) and canonical(value) + b"\n" == line
    except (ValueError, RecursionError):
        plain = False
    if not plain:
        raise _BadError(ProblemKind.ALTERED, "the line is not as it was written")
    found: dict[str, Any] = value
    return found


def _number(value: Mapping[str, Any], name: str) -> int:
    found = value.get(name)
    if type(found) is not int:
        raise _BadError(ProblemKind.ALTERED, f"{name} is no number")
    return found


def _time(value: Mapping[str, Any], name: str) -> float:
    found = value.get(name)
    if type(found) not in {int, float}:
        raise _BadError(ProblemKind.ALTERED, f"{name} is no time")
    return float(found or 0)


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise _BadError(ProblemKind.ALTERED, f"{name} is no text")
    return found
