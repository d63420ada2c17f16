"""The file beside the state that has a line for each signed checkpoint of the audit logs.

It is there to be copied elsewhere. Every line is on the disk when `append` returns.
"""

import contextlib
import errno
import json
import logging
import os
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from prsmd.core.chain import CHECKPOINT, canonical
from prsmd.core.signing import Signer, Trust

from .attestations import Checkpoint
from .errors import damaged

_ROTATE_BYTES = 16 * 1024**2
_MOST_OWED = 10_000  # lines to a copy that cannot be written; a next start tells of what it lacks
_log = logging.getLogger(__name__)


class CheckpointFile:
    """Appends lines; beyond 16 MiB the file is moved aside to `FILE.1`. Calls block on the disk.

    The last statement of each kind about each log goes along into the new file: one of a log in
    which little happens would else be gone with the next but one. `copy` is a second file, where
    who owns the first cannot change what stands there: it gets the same lines and is read with it.
    One that cannot be read or written stops nothing: an error in the log names it, and it gets the
    lines that it lacks of this process when it can be written again.

    What reads raises StoreDamagedError where the file, or the one moved aside, cannot be read.
    """

    def __init__(self, path: Path, copy: Path | None = None) -> None:
        self.path = path
        self.copy = copy
        self._owed: list[bytes] = []  # to the copy
        self._told = ""
        self._appending = threading.Lock()

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines, given without their newlines. OSError when the disk refuses."""
        with self._appending:
            if self.path.exists() and self.path.stat().st_size > _ROTATE_BYTES:
                last = {_about(said): said for said in self._own(self.path)}
                self.path.replace(self._aside)
                lines = [*(canonical(said) for said in last.values()), *lines]
            if self.copy is not None:
                self._append_to(self.copy, lines)
            _append(self.path, lines)

    def _append_to(self, copy: Path, lines: Sequence[bytes]) -> None:
        owed = [*self._owed, *lines][-_MOST_OWED:]
        with self._telling_of_copy():
            _append(copy, owed)
            owed = []
        self._owed = owed

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
        own = [*self._own(self._aside), *self._own(self.path)]
        if self.copy is None:
            return own
        there, more = {canonical(said) for said in own}, list[Mapping[str, Any]]()
        with self._telling_of_copy():
            more = [said for said in _statements(self.copy) if canonical(said) not in there]
        return sorted([*own, *more], key=_sequence_of) if more else own

    def lacking(self) -> int:
        """Return how many statements of the own file the copy lacks; OSError: it is unreadable."""
        if self.copy is None:
            return 0
        there = {canonical(said) for said in _statements(self.copy)}
        own = (*self._own(self._aside), *self._own(self.path))
        return sum(canonical(said) not in there for said in own)

    @property
    def _aside(self) -> Path:
        return self.path.with_name(self.path.name + ".1")

    def _own(self, path: Path) -> list[Mapping[str, Any]]:
        try:
            return _statements(path)
        except OSError as error:
            raise damaged(path, f"it cannot be read: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _telling_of_copy(self) -> Iterator[None]:
        """Log what fails with the copy, once until it has succeeded or fails in another way."""
        try:
            yield
        except OSError as error:
            words = f"{error}"
            if words != self._told:
                _log.error("the copy of the checkpoints, %s, cannot be used: %s", self.copy, words)
            self._told = words
        else:
            self._told = ""


def _append(path: Path, lines: Sequence[bytes]) -> None:
    with _opened(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, "ab") as file:
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
        with _opened(path, os.O_RDONLY, "rb") as file:
            lines = file.read().split(b"\n")
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


def _opened(path: Path, flags: int, mode: Literal["ab", "rb"]) -> BinaryIO:
    # A FIFO in the file's place would be waited for.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return os.fdopen(descriptor, mode)


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
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
        file.write(content)
    partial.replace(path)
    return content
