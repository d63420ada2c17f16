"""The file beside control.db that says whose it is and how many commits it has.

It is written after each commit, without waiting for the disk, so it never says more than control.db
has: a control.db that has fewer lost some (its -wal, or all of it), or is an older copy.
"""

import contextlib
import dataclasses
import logging
import os
import re
import zlib
from pathlib import Path

from .errors import damaged

NAME = "control.head"
NEW, ANY = "new", "any"
_TEXT = re.compile(rb"([A-Za-z0-9_]{1,64}) ([0-9]{20}) ([0-9a-f]{8})\n")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """How far the control file of an instance came.

    In the place of an instance, NEW says that one is to begin, and ANY that the one that is there
    is the right one, however far it came: somebody said so, and the next start has yet to see it.
    `commits` are then those that were made before.
    """

    instance: str
    commits: int = 0

    @property
    def begins(self) -> bool:
        """Whether an instance is to begin where there was one before."""
        return self.instance == NEW

    @property
    def unchecked(self) -> bool:
        """Whether the control file is taken as it is."""
        return self.instance in {NEW, ANY}


class HeadFile:
    """Reads the head once and keeps it from then on. Calls block on the disk, shortly."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._descriptor: int | None = None
        self._instance = ""

    def read(self) -> Head | None:
        """Return what the file says; None where there is none.

        Raises:
            StoreDamagedError: it cannot be read, or is not what prsmd writes.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError as error:
            if self.path.is_symlink():
                raise damaged(self.path, "it is a link to nothing") from error
            return None
        except OSError as error:
            raise damaged(self.path, error.strerror or str(error)) from error
        found = _TEXT.fullmatch(content)
        if found is None or int(found[3], 16) != _checksum(found[1], found[2]):
            raise damaged(self.path, "it is not what prsmd writes there")
        return Head(found[1].decode(), int(found[2]))

    def order(self, head: Head) -> None:
        """Write durably what the next start is to go by. OSError where the disk refuses."""
        self._write(head)
        self.close()

    def begin(self, head: Head) -> None:
        """Write the head durably, and keep it from now on. A disk that refuses costs the file."""
        self._instance = head.instance
        try:
            self._write(head)
        except OSError as error:
            _log.warning("%s is not kept: %s", self.path, error)

    def note(self, commits: int) -> None:
        """Say that so many commits are on the disk."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # it then says less than there is, which is harmless
                os.pwrite(self._descriptor, _text(Head(self._instance, commits)), 0)

    def close(self) -> None:
        """Have the disk hold what it says, and let go."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.fdatasync(descriptor)
            os.close(descriptor)

    def _write(self, head: Head) -> None:
        partial = self.path.with_name(self.path.name + ".partial")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._descriptor = os.open(partial, flags, 0o600)
        os.write(self._descriptor, _text(head))
        os.fsync(self._descriptor)
        partial.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _text(head: Head) -> bytes:
    instance, commits = head.instance.encode(), b"%020d" % head.commits
    return b"%s %s %08x\n" % (instance, commits, _checksum(instance, commits))


def _checksum(instance: bytes, commits: bytes) -> int:
    return zlib.crc32(instance + b" " + commits)
