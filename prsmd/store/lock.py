"""The lock that keeps a second daemon off the same folder. The kernel drops it with the process."""

import fcntl
import os
from pathlib import Path

from .errors import StoreLockedError


class FolderLock:
    """Holds an exclusive flock on `<folder>/lock`, which tells the holder's process id."""

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StoreLockedError(
                f"{folder} is in use by another prsmd (process {holder or 'unknown'}). "
                "Stop it first, or give this one a folder of its own.",
                holder=holder,
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files."""
        os.close(self._descriptor)
