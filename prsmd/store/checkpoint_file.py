"""The file beside the state that has a line for each signed checkpoint of the audit logs.

It is there to be copied elsewhere. Every line is on the disk when `append` returns.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prsmd.core.chain import CHECKPOINT, canonical
from prsmd.core.signing import Signer, Trust

from .attestations import Checkpoint

_ROTATE_BYTES = 16 * 1024**2


class CheckpointFile:
    """Appends lines; beyond 16 MiB the file is moved aside to `FILE.1`. Calls block on the disk.

    The last statement of each kind about each log goes along into the new file: one of a log in
    which little happens would else be gone with the next but one. `copy` is a second file, where
    who owns the first cannot change what stands there: it gets the same lines and is read with it.
    """

    def __init__(self, path: Path, copy: Path | None = None) -> None:
        self.path = path
        self.copy = copy

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines, given without their newlines. OSError when the disk refuses."""
        if self.path.exists() and self.path.stat().st_size > _ROTATE_BYTES:
            last = {_about(said): said for said in _statements(self.path)}
            self.path.replace(self._aside)
            lines = [*(canonical(said) for said in last.values()), *lines]
        if self.copy is not None:
            _append(self.copy, lines)
        _append(self.path, lines)

    def last(self, instance: str) -> dict[str, Checkpoint]:
        """Return the last checkpoint of each log of an instance.

        Half a line counts not. Signatures are not looked at.
        """
        found = {}
        for log, said in self.last_of(instance, CHECKPOINT).items():
            with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
                found[log] = Checkpoint.of(said)
        return found

    def last_of(self, instance: str, kind: str) -> dict[str, Mapping[str, Any]]:
        """Return the last statement of a kind about each log of an instance."""
        return {
            str(said.get("log")): said
            for said in self.statements()
            if said["instance"] == instance and said.get("kind") == kind
        }

    def statements(self) -> list[Mapping[str, Any]]:
        """Return all statements that are there, oldest first, of whatever instance and kind."""
        own = [*_statements(self._aside), *_statements(self.path)]
        if self.copy is None:
            return own
        there = {canonical(said) for said in own}
        more = [said for said in _statements(self.copy) if canonical(said) not in there]
        return sorted([*own, *more], key=_sequence_of) if more else own

    def lacking(self) -> int:
        """Return how many statements of the own file the copy has not; OSError if unreadable."""
        if self.copy is None:
            return 0
        there = {canonical(said) for said in _statements(self.copy)}
        own = (*_statements(self._aside), *_statements(self.path))
        return sum(canonical(said) not in there for said in own)

    @property
    def _aside(self) -> Path:
        return self.path.with_name(self.path.name + ".1")


def _append(path: Path, lines: Sequence[bytes]) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "ab") as file:
        if _ends_in_half_a_line(file.fileno()):
            file.write(b"\n")
        file.writelines(line + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def _sequence_of(said: Mapping[str, Any]) -> int:
    found = said.get("sequence")
    return found if isinstance(found, int) else 0


def _statements(path: Path) -> list[Mapping[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found: list[Mapping[str, Any]] = []
    for line in lines:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and isinstance(said.get("instance"), str):
            found.append(said)
    return found


def _about(said: Mapping[str, Any]) -> tuple[str, ...]:
    return str(said.get("instance")), str(said.get("kind")), str(said.get("log"))


def _ends_in_half_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def keep_public_key(path: Path, signer: Signer) -> bytes:
    """Return the public keys that ever signed here, the signer's first, and keep them in a file.

    So checkpoints of before a change of the key can still be checked.
    """
    known = path.read_bytes() if path.exists() else b""
    if known and signer.fingerprint in Trust(known).fingerprints:
        return known
    content = signer.public_pem + known
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return content
